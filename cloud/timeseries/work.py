"""Batches of the spool on their way into the series."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud.model import Quarantined
from cloud.ports import SeriesPoint
from cloud.timeseries.ready import ReadyLines


@dataclass(slots=True)
class Work:
    """One batch of the spool, decoded."""

    next_position: int
    points: Sequence[SeriesPoint] = ()
    received_at_ms: list[int] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    records: int = 0
    skipped_bytes: int = 0

    def sort(self, start: int, end: int) -> None:
        """The points of a range by time."""
        times = self.points.times_ns() if isinstance(self.points, ReadyLines) else [one.at_ns for one in self.points]
        order = [*range(start), *sorted(range(start, end), key=times.__getitem__), *range(end, len(times))]
        points = self.points
        self.points = points.ordered(order) if isinstance(points, ReadyLines) else [points[n] for n in order]
        self.received_at_ms = [self.received_at_ms[n] for n in order]


class Flight:
    """Batches of a backlog that are on their way together; they may arrive in another order than they left.

    Attributes:
        landed: everything before this position is written.
        end: where the last of them ends, once that is known.
        places: how many may be on their way.
        wake: set when one has arrived.
    """

    def __init__(self, position: int, at_once: int) -> None:
        self.landed = position
        self.end: int | None = None
        self.bodies_unsaved = 0
        self.places = asyncio.Semaphore(at_once)
        self.saving = asyncio.Lock()
        self.wake = asyncio.Event()
        self._arrived: dict[int, int] = {}

    @property
    def is_over(self) -> bool:
        """Whether all of them have arrived."""
        return self.landed == self.end

    def land(self, position: int, next_position: int) -> None:
        """The batch from `position` to `next_position` is written."""
        self._arrived[position] = next_position
        self.bodies_unsaved += 1
        while (behind := self._arrived.pop(self.landed, None)) is not None:
            self.landed = behind
