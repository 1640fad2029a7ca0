"""How the drain goes about it, and what it says of itself."""

from dataclasses import dataclass
from enum import StrEnum


class DrainState(StrEnum):
    """What the series is worth right now; anything but `flowing` is an alarm for the IT team."""

    FLOWING = "flowing"
    WAITING = "waiting"
    """The store is down or slow; the spool grows."""
    NO_ACCESS = "no_access"
    """The store refuses our token or bucket; a person must act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOptions:
    """Pace and patience, in real seconds. `interval_s` lets a batch gather after a short one."""

    batch_bytes_max: int = 2 << 20
    """Of spool in one body: some 5,000 messages."""
    lines_max: int = 10_000
    """Of one body; a store that finds bodies too large is sent smaller ones from then on."""
    bodies_at_once: int = 2
    """In a backlog, beside one of live data; the next one is made meanwhile."""
    bodies_per_save: int = 8
    """In a backlog: a crash repeats so many."""
    bodies_per_step: int = 32
    """In a backlog."""
    backlog_bytes_min: int = 12 << 20
    """From this lag on live data is drained beside the backlog."""
    interval_s: float = 0.5
    retry_base_s: float = 0.5
    retry_s_max: float = 60.0


@dataclass(slots=True)
class DrainStatistics:
    """Counters since the start, for metrics."""

    records: int = 0
    points_written: int = 0
    points_quarantined: int = 0
    records_quarantined: int = 0
    skipped_bytes: int = 0
    """Damaged stretches of the spool."""
    retries: int = 0
    bodies: int = 0
    """Writes that the store took."""
