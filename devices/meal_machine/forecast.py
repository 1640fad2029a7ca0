"""How much a machine will sell: by hour of a workday and of a weekend day, learnt from its own sales.

Every hour that ends moves its expectation by `LEARNING` towards what was sold in it, so that the last few workdays
count. An hour in which the machine could not sell (empty, locked, broken) is left out. A new machine begins
with `PRIOR_PER_HOUR`, the day of a canteen; meals share the machine's sales by how often each was taken lately.
"""

from typing import Final

import msgspec

MS_PER_HOUR: Final = 3_600_000
HOURS_PER_DAY: Final = 24
LOCAL_OFFSET_MS: Final = 8 * MS_PER_HOUR
"""Local time of the zone; there is no daylight saving time."""
LEARNING: Final = 0.25
FORECAST_HOURS_MAX: Final = 96
_THURSDAY: Final = 3
"""Weekday of the epoch's first day; Monday is 0."""
_SATURDAY: Final = 5
_GAP_HOURS_MAX: Final = 7 * HOURS_PER_DAY

_WORKDAY: Final = (
    0.2, 0.2, 0.1, 0.1, 0.1, 0.2, 0.5, 1.2, 1.2, 0.8, 1.5, 5.0, 7.5, 4.0, 1.5, 0.8, 0.8, 2.0, 3.0, 2.2, 1.5, 1.0, 0.6,
    0.3,
)  # fmt: skip
_WEEKEND_SHARE: Final = 0.25
PRIOR_PER_HOUR: Final = (*_WORKDAY, *(sales * _WEEKEND_SHARE for sales in _WORKDAY))
"""Boxes per hour: 24 of a workday, 24 of a weekend day."""


class Habit(msgspec.Struct, frozen=True):
    """What is expected by hour, and the hour that is being counted (local hours since the epoch; -1: none yet)."""

    per_hour: tuple[float, ...] = PRIOR_PER_HOUR
    hour: int = -1
    count: int = 0
    judged: bool = True
    """Whether everything that was wanted in this hour could be sold."""

    def at(self, now_ms: int, *, sold: int = 0, can_sell: bool = True) -> "Habit":
        """With the hours that ended before `now_ms` learnt, and what was just sold counted."""
        hour = local_hour_number(now_ms)
        if hour < self.hour - HOURS_PER_DAY:  # the machine's clock was set back: nothing waits until it is there again
            return msgspec.structs.replace(self, hour=hour, count=sold, judged=False)
        if hour <= self.hour:  # the same hour, or one that was learnt already
            return msgspec.structs.replace(self, count=self.count + sold, judged=self.judged and can_sell)
        if self.hour < 0:
            return msgspec.structs.replace(self, hour=hour, count=sold, judged=False)  # it began before we looked
        per_hour = list(self.per_hour)
        if self.judged:
            _learn(per_hour, self.hour, self.count)
        if can_sell or sold:
            for quiet in range(max(self.hour + 1, hour - _GAP_HOURS_MAX), hour):
                _learn(per_hour, quiet, 0)
        return Habit(tuple(per_hour), hour, sold, can_sell)

    def expected(self, from_ms: int, hours: float) -> float:
        """Boxes that are wanted in the `hours` after `from_ms`."""
        begin = (from_ms + LOCAL_OFFSET_MS) / MS_PER_HOUR
        end = begin + min(hours, FORECAST_HOURS_MAX)
        total = 0.0
        hour = int(begin)
        while hour < end:
            total += self.per_hour[cell_of(hour)] * (min(end, hour + 1) - max(begin, hour))
            hour += 1
        return total


def local_hour_number(now_ms: int) -> int:
    """Local hours since the epoch."""
    return (now_ms + LOCAL_OFFSET_MS) // MS_PER_HOUR


def cell_of(hour: int) -> int:
    """Index of `Habit.per_hour` for a local hour since the epoch."""
    day, hour_of_day = divmod(hour, HOURS_PER_DAY)
    is_weekend = (day + _THURSDAY) % 7 >= _SATURDAY
    return hour_of_day + HOURS_PER_DAY * is_weekend


def _learn(per_hour: list[float], hour: int, count: int) -> None:
    cell = cell_of(hour)
    per_hour[cell] += LEARNING * (count - per_hour[cell])
