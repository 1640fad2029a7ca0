"""One member of the crew with a van: where it is, what is in it, how far it went."""

from dataclasses import dataclass, field
from typing import Final

from cli.week.geography import Point, drive_s, road_metres
from fleet.clock import MILLISECONDS_PER_SECOND

BOXES_MAX: Final = 160
"""Meals in the cold box of a small electric van."""
PACKS_MAX: Final = 16
LOADING_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Trip:
    """One way."""

    began_ms: int
    ended_ms: int
    start: Point
    end: Point
    metres: float
    why: str


@dataclass(slots=True)
class Van:
    """`boxes` and `packs` are loaded at the depot."""

    depot: Point
    at: Point
    boxes: int = BOXES_MAX
    packs: int = PACKS_MAX
    trips: list[Trip] = field(default_factory=list)
    under_way: Trip | None = None

    @property
    def kilometres(self) -> float:
        """So far."""
        return sum(trip.metres for trip in self.trips) / 1000

    def set_out(self, to: Point, now_ms: int, why: str) -> int:
        """Drive; the arrival in business ms."""
        self.stop(now_ms)
        metres = road_metres(self.at, to)
        arrives_ms = now_ms + round(drive_s(metres) * MILLISECONDS_PER_SECOND)
        self.under_way = Trip(now_ms, arrives_ms, self.at, to, metres, why)
        return arrives_ms

    def stop(self, now_ms: int) -> None:
        """Be where one is now: at the end of the way, or somewhere on it."""
        trip = self.under_way
        if trip is None:
            return
        self.under_way = None
        length_ms = trip.ended_ms - trip.began_ms
        share = 1.0 if length_ms <= 0 else min(1.0, (now_ms - trip.began_ms) / length_ms)
        self.at = (
            trip.start[0] + (trip.end[0] - trip.start[0]) * share,
            trip.start[1] + (trip.end[1] - trip.start[1]) * share,
        )
        if trip.metres > 1.0:
            self.trips.append(Trip(trip.began_ms, now_ms, trip.start, self.at, trip.metres * share, trip.why))

    def load(self) -> None:
        """Fill up at the depot."""
        self.boxes, self.packs = BOXES_MAX, PACKS_MAX
