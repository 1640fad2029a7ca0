"""Where people ride in the zone, and when: places, commuting demand, distances."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fleet.kind import Site
from fleet.randomness import Randomness

PlaceKind = Literal["bus_stop", "apartment", "office"]
Coordinates = tuple[float, float]

HOUR_MS: Final = 3_600_000
LOCAL_OFFSET_HOURS: Final = 8  # Asia/Shanghai, no daylight saving
METRES_PER_DEGREE_LATITUDE: Final = 111_320.0
METRES_PER_DEGREE_LONGITUDE: Final = METRES_PER_DEGREE_LATITUDE * math.cos(math.radians(38.865))
ZONE_SOUTH_WEST: Final[Coordinates] = (38.84, 121.48)
ZONE_NORTH_EAST: Final[Coordinates] = (38.89, 121.56)


@dataclass(frozen=True, slots=True)
class Place:
    """A door that people go to or come from."""

    name: str
    kind: PlaceKind
    latitude: float
    longitude: float
    gnss_sigma_metres: float
    """Typical GNSS error there: towers on both sides reflect the signal."""


PLACES: Final[tuple[Place, ...]] = (
    Place("七贤岭地铁站", "bus_stop", 38.8622, 121.5263, 9.0),
    Place("河口地铁站", "bus_stop", 38.8531, 121.5147, 6.0),
    Place("海事大学公交站", "bus_stop", 38.8716, 121.5334, 6.0),
    Place("学苑广场公交站", "bus_stop", 38.8812, 121.5419, 7.0),
    Place("黄浦路公交站", "bus_stop", 38.8668, 121.5201, 8.0),
    Place("小平岛公交站", "bus_stop", 38.8447, 121.4938, 4.0),
    Place("凌水公交站", "bus_stop", 38.8741, 121.5522, 6.0),
    Place("礼贤街人才公寓", "apartment", 38.8583, 121.5305, 7.0),
    Place("河口职工公寓", "apartment", 38.8509, 121.5089, 5.0),
    Place("小平岛社区", "apartment", 38.8462, 121.4885, 4.0),
    Place("凌水湾社区", "apartment", 38.8689, 121.5561, 5.0),
    Place("学子街公寓", "apartment", 38.8779, 121.5377, 6.0),
    Place("软件园一期", "office", 38.8836, 121.5297, 10.0),
    Place("软件园二期", "office", 38.8487, 121.5012, 9.0),
    Place("火炬路孵化器", "office", 38.8641, 121.5312, 12.0),
    Place("高能街科技大厦", "office", 38.8603, 121.5228, 14.0),
    Place("腾讯大厦", "office", 38.8552, 121.5195, 12.0),
    Place("信达街数码广场", "office", 38.8567, 121.5271, 12.0),
    Place("汇贤园", "office", 38.8597, 121.5349, 10.0),
    Place("黄泥川创新谷", "office", 38.8421, 121.4827, 5.0),
)

# Wishes to ride per hour and place kind, relative to the day's mean, from local hour 0 to 23.
_LEAVING: Final[dict[PlaceKind, tuple[float, ...]]] = {
    # 0 … 11 h, then 12 … 23 h
    "bus_stop": (
        0.1, 0, 0, 0, 0, 0.1, 0.6, 3.2, 4.4, 2.4, 0.8, 0.6,
        0.8, 0.8, 0.6, 0.5, 0.5, 1.0, 1.8, 1.4, 0.9, 0.6, 0.4, 0.2,
    ),
    "apartment": (
        0.1, 0, 0, 0, 0, 0.2, 1.2, 4.0, 4.0, 1.6, 0.6, 0.6,
        0.8, 0.6, 0.5, 0.5, 0.6, 0.8, 1.0, 1.0, 0.8, 0.5, 0.3, 0.2,
    ),
    "office": (
        0.2, 0.1, 0, 0, 0, 0, 0.1, 0.3, 0.5, 0.6, 0.7, 1.8,
        2.2, 1.2, 0.7, 0.7, 0.9, 3.4, 4.2, 2.6, 1.6, 1.2, 0.8, 0.4,
    ),
}  # fmt: skip
_RIDES_PER_BIKE_DAY: Final = 4.0


def local_hour(at_ms: int) -> float:
    """Hour of the day in the zone, 0 ≤ hour < 24."""
    return (at_ms / HOUR_MS + LOCAL_OFFSET_HOURS) % 24


def demand_per_hour(kind: PlaceKind) -> tuple[float, ...]:
    """Expected wishes to ride one bike that stands at such a place, for each local hour."""
    profile = _LEAVING[kind]
    return tuple(_RIDES_PER_BIKE_DAY * weight / sum(profile) for weight in profile)


def distance_metres(start: Coordinates, end: Coordinates) -> float:
    """Straight distance; flat-earth, right to a thousandth inside the zone."""
    north = (end[0] - start[0]) * METRES_PER_DEGREE_LATITUDE
    east = (end[1] - start[1]) * METRES_PER_DEGREE_LONGITUDE
    return math.hypot(north, east)


def shifted(start: Coordinates, north_metres: float, east_metres: float) -> Coordinates:
    """The point so many metres north and east of `start`."""
    return (
        start[0] + north_metres / METRES_PER_DEGREE_LATITUDE,
        start[1] + east_metres / METRES_PER_DEGREE_LONGITUDE,
    )


def between(start: Coordinates, end: Coordinates, share: float) -> Coordinates:
    """The point at `share` (0 … 1) of the straight line."""
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)


def destination(start: Coordinates, at_ms: int, randomness: Randomness) -> Place:
    """Where a rider who starts here at this hour wants to go: where people arrive at that hour, preferably near."""
    hour = int(local_hour(at_ms))
    weights = []
    for place in PLACES:
        metres = distance_metres(start, (place.latitude, place.longitude))
        # A place fills at the hours at which its counterpart empties: offices when stops and homes send people off.
        arriving = _LEAVING["bus_stop"][hour] if place.kind == "office" else _LEAVING["office"][hour]
        near = math.exp(-metres / 1_500) if metres > 150 else 0.0  # nobody rents a bike to cross the road
        weights.append((arriving + 0.1) * near)
    point = randomness.uniform(0, sum(weights))
    for place, weight in zip(PLACES, weights, strict=True):
        point -= weight
        if point <= 0 < weight:
            return place
    return PLACES[-1]


def nearest_place(position: Coordinates) -> Place:
    """The place whose surroundings shape the GNSS signal here."""
    return min(PLACES, key=lambda place: distance_metres(position, (place.latitude, place.longitude)))


def parked_near(place: Place, randomness: Randomness) -> Coordinates:
    """A spot in the bike stand of a place, inside the zone."""
    spot = shifted((place.latitude, place.longitude), randomness.gauss(0, 12), randomness.gauss(0, 12))
    return (
        min(max(spot[0], ZONE_SOUTH_WEST[0]), ZONE_NORTH_EAST[0]),
        min(max(spot[1], ZONE_SOUTH_WEST[1]), ZONE_NORTH_EAST[1]),
    )


def sites(count: int, randomness: Randomness) -> Sequence[Site]:
    """Where `count` bikes stand at the start: spread over all places."""
    chosen = []
    for index in range(count):
        place = PLACES[index % len(PLACES)]
        latitude, longitude = parked_near(place, randomness)
        facts = {"place_kind": place.kind, "demand_per_hour": demand_per_hour(place.kind)}
        chosen.append(Site(latitude, longitude, place.name, facts))
    return chosen
