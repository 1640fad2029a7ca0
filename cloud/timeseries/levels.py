"""The levels in which a time series is kept: as measured, by the minute, by the hour.

A level is a retention policy of the database (1.x) or a bucket that is mapped to one (2.x), so a query names it
alike on both: `FROM "minute"."bike"`.
"""

from dataclasses import dataclass
from typing import Final

DATABASE: Final = "fleet"
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
STEP_SUFFIX: Final = "_step"
"""Measurements of what happens rarely (a call, an order, a ride) end so: they are copied whole, never averaged."""


@dataclass(frozen=True, slots=True)
class Level:
    """One retention policy; `window_ms` is 0 for what was measured itself."""

    policy: str
    window_ms: int
    days: int
    shard_days: int
    """What is deleted at a time: about a thirtieth to a fiftieth of it all."""


RAW: Final = Level("raw", 0, 30, 1)
MINUTE: Final = Level("minute", MINUTE_MS, 365, 7)
HOUR: Final = Level("hour", HOUR_MS, 1825, 60)
LEVELS: Final = (RAW, MINUTE, HOUR)
ROLLED: Final = (MINUTE, HOUR)


def bucket_of(database: str, level: Level) -> str:
    """Name of the level's bucket on InfluxDB 2.x."""
    return database if level is RAW or level.policy == RAW.policy else f"{database}_{level.policy}"


def is_copied(measurement: str) -> bool:
    """Whether its points are kept as they are, in every level."""
    return measurement.endswith(STEP_SUFFIX)
