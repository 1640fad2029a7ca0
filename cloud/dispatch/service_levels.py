"""How soon work must be acknowledged, be reached and be done, by priority; and how long a proof may take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import Priority

_MINUTE_MS: Final = 60 * MILLISECONDS_PER_SECOND
_HOUR_MS: Final = 60 * _MINUTE_MS


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Business ms from when the clock began to count."""

    acknowledge_ms: int
    on_site_ms: int
    fixed_ms: int


LEVELS: Final[Mapping[Priority, ServiceLevel]] = {
    Priority.EMERGENCY: ServiceLevel(5 * _MINUTE_MS, 30 * _MINUTE_MS, 2 * _HOUR_MS),
    Priority.HIGH: ServiceLevel(15 * _MINUTE_MS, _HOUR_MS, 4 * _HOUR_MS),
    Priority.MEDIUM: ServiceLevel(_HOUR_MS, 4 * _HOUR_MS, 24 * _HOUR_MS),
    Priority.LOW: ServiceLevel(8 * _HOUR_MS, 24 * _HOUR_MS, 72 * _HOUR_MS),
}

NORMAL_WITHIN_MS: Final[Mapping[str, int]] = {
    "repair": 15 * _MINUTE_MS,
    "restock": 15 * _MINUTE_MS,
    "battery": 35 * _MINUTE_MS,  # a parked bike reports every 15 minutes
    "rebalance": 35 * _MINUTE_MS,
    "inspection": 30 * _MINUTE_MS,
}
"""After it was done: until when the device itself must say that it is back to normal, by skill."""

REPEAT_WITHIN_MS: Final = 24 * _HOUR_MS
"""The same fault again so soon after it was fixed is a repeat fault."""

STAGES: Final = ("acknowledge", "on_site", "fixed")
"""Bit n of `work_order.told_overdue` belongs to the n-th."""


def limits(priority: Priority, own_ms: int = 0) -> ServiceLevel:
    """The level of a priority; where the cause has a limit of its own for the end, the stages before shrink with it."""
    level = LEVELS[priority]
    if not own_ms:
        return level
    return ServiceLevel(min(level.acknowledge_ms, own_ms // 4), min(level.on_site_ms, own_ms * 3 // 4), own_ms)


def deadlines(priority: str, own_ms: int, clock_from: int, paused_ms: int) -> dict[str, int]:
    """Columns of `work_order`: business ms at which each stage must be reached."""
    level, start = limits(Priority(priority), own_ms), clock_from + paused_ms
    return {
        "acknowledge_by": start + level.acknowledge_ms,
        "on_site_by": start + level.on_site_ms,
        "due_at": start + level.fixed_ms,
    }
