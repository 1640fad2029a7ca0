"""Where the rooms are: companies' buildings of the zone, and what a simulated room may be told about itself.

| fact | meaning | default |
|---|---|---|
| `visits_per_workday` | how often the room is used | 3 … 9 |
| `presses_per_day` | calls that happen by themselves | 1 in 120 days |
| `crew_travel_s` | help coming → long press, range | 120 … 300 |
| `bystander_after_s` | press → somebody nearby looks in, range | 900 … 2400 |
| `at_scene_s` | long press → clear key, range | 20 … 90 |
| `demand_factor` | scales the visits | 1 |
| `mishap_factor` | scales how often things break or are left open | 1 |
| `remedy_factor` | scales how long that lasts | 1 |
| `reading_interval_s` | how often it reports when nothing happens, and the step of its physics | 15 |
"""

from collections.abc import Sequence
from typing import Final

from fleet.kind import Site
from fleet.randomness import Randomness

_PARKS: Final = (
    ("大连软件园", 38.8830, 121.5330),
    ("腾飞软件园", 38.8620, 121.5270),
    ("七贤岭产业基地", 38.8680, 121.5180),
    ("河口国际软件园", 38.8560, 121.5080),
    ("凌水湾总部基地", 38.8740, 121.5500),
    ("黄泥川科技园", 38.8455, 121.4905),
    ("小平岛创业中心", 38.8480, 121.5120),
    ("高新万达写字楼", 38.8660, 121.5240),
)
SPREAD_DEGREES: Final = 0.004


def sites(count: int, randomness: Randomness) -> Sequence[Site]:
    """`count` rooms, park by park, each with its habits."""
    placed: list[Site] = []
    for number in range(count):
        park, latitude, longitude = _PARKS[number % len(_PARKS)]
        building, floor = number // len(_PARKS) + 1, randomness.randint(1, 12)
        placed.append(
            Site(
                latitude=round(latitude + randomness.uniform(-SPREAD_DEGREES, SPREAD_DEGREES), 6),
                longitude=round(longitude + randomness.uniform(-SPREAD_DEGREES, SPREAD_DEGREES), 6),
                name=f"{park}{building}号楼{floor}层母婴室",
                facts={
                    "floor": floor,
                    "visits_per_workday": round(randomness.uniform(3.0, 9.0), 2),
                    "presses_per_day": 1 / 120,
                    "crew_travel_s": (120.0, 300.0),
                    "bystander_after_s": (900.0, 2_400.0),
                    "at_scene_s": (20.0, 90.0),
                },
            )
        )
    return placed
