"""Ways in the zone: straight distance times a detour, and how long a van takes."""

import math
from collections.abc import Sequence
from typing import Final

Point = tuple[float, float]
"""Latitude and longitude, degrees (WGS-84)."""

_METRES_PER_DEGREE: Final = 111_320.0
_EAST_FACTOR: Final = math.cos(math.radians(38.865))
DETOUR: Final = 1.35
"""Streets over the straight line, as measured in many towns."""
METRES_PER_SECOND: Final = 22 / 3.6
PARKING_S: Final = 90.0


def straight_metres(start: Point, end: Point) -> float:
    """Flat-earth distance; right to a thousandth inside the zone."""
    north = (end[0] - start[0]) * _METRES_PER_DEGREE
    east = (end[1] - start[1]) * _METRES_PER_DEGREE * _EAST_FACTOR
    return math.hypot(north, east)


def road_metres(start: Point, end: Point) -> float:
    """By street."""
    return straight_metres(start, end) * DETOUR


def drive_s(metres: float) -> float:
    """Seconds at the wheel and to park; none without a way."""
    return metres / METRES_PER_SECOND + PARKING_S if metres > 1.0 else 0.0


def tour(start: Point, stops: Sequence[Point]) -> list[int]:
    """A short round trip through all stops: nearest neighbour, then 2-opt until nothing is gained."""
    left = list(range(len(stops)))
    order: list[int] = []
    here = start
    while left:
        nearest = min(left, key=lambda index: (straight_metres(here, stops[index]), index))
        left.remove(nearest)
        order.append(nearest)
        here = stops[nearest]
    points = [start, *(stops[index] for index in order), start]
    improved = True
    while improved:
        improved = False
        for first in range(1, len(points) - 2):
            for last in range(first + 1, len(points) - 1):
                before = straight_metres(points[first - 1], points[first])
                before += straight_metres(points[last], points[last + 1])
                after = straight_metres(points[first - 1], points[last])
                after += straight_metres(points[first], points[last + 1])
                if after < before - 1e-6:
                    points[first : last + 1] = reversed(points[first : last + 1])
                    order[first - 1 : last] = reversed(order[first - 1 : last])
                    improved = True
    return order
