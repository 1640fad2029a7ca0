"""Distances on the ground (WGS-84), and how long somebody needs to get somewhere.

`TravelTimes` is the port for a road router; until there is one, the straight line times a detour factor stands in.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

EARTH_RADIUS_M: Final = 6_371_008.8
DETOUR_FACTOR: Final = 1.35
"""Street over straight line; 1.2–1.4 is usual in cities, the upper end where hills and a coast are in the way."""
SPEED_KMH: Final = 22.0
"""A service van in town, with parking."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place, WGS-84 degrees."""

    latitude: float
    longitude: float


class TravelTimes(Protocol):
    """How far it is along streets."""

    def distance_m(self, here: Point, there: Point) -> float: ...
    def travel_s(self, here: Point, there: Point) -> int:
        """Whole seconds; 0 exactly for the same place."""
        ...


def distance_m(here: Point, there: Point) -> float:
    """Straight line, haversine."""
    first, second = math.radians(here.latitude), math.radians(there.latitude)
    across = math.radians(there.longitude - here.longitude)
    half = math.sin((second - first) / 2) ** 2 + math.cos(first) * math.cos(second) * math.sin(across / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, half)))


@dataclass(frozen=True, slots=True)
class StraightLine:
    """`TravelTimes` without a map: the straight line × `detour` at `speed_kmh`."""

    detour: float = DETOUR_FACTOR
    speed_kmh: float = SPEED_KMH

    def distance_m(self, here: Point, there: Point) -> float:
        """Metres along the streets, estimated."""
        return distance_m(here, there) * self.detour

    def travel_s(self, here: Point, there: Point) -> int:
        """Whole seconds, rounded up."""
        return math.ceil(self.distance_m(here, there) / (self.speed_kmh / 3.6))
