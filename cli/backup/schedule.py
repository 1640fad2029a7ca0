"""When the next backup is due, and which ones go."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from cli.backup.archive import archives

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """By the clocks on the wall there."""

    hour: int
    minute: int
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: str) -> "TimeOfDay":
        """`03:15`. Raises ValueError."""
        hour, colon, minute = text.partition(":")
        if not (colon and hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60):
            raise ValueError(f"--at {text!r} is no time of day; write for example 03:15")
        return cls(int(hour), int(minute), ZoneInfo(zone))

    def next_after(self, now: datetime) -> datetime:
        """Later than `now`."""
        there = now.astimezone(self.zone)
        day = there.replace(hour=self.hour, minute=self.minute, second=0, microsecond=0)
        return day if day > there else day + timedelta(days=1)


def next_run_s(directory: Path, now_ms: int, at: TimeOfDay) -> float:
    """Seconds until the next one is due; 0 without one of the last day, so that a machine that slept catches up."""
    found = archives(directory) if directory.is_dir() else []
    if not found or now_ms - found[-1].made_at_ms > DAY_S * 1000:
        return 0.0
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return max(0.0, (at.next_after(now).astimezone(UTC) - now).total_seconds())


def prune(directory: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep`; what was removed. Call it after a newer one was read back."""
    gone = [one.path for one in archives(directory)[:-keep]]
    for path in gone:
        path.unlink()
    return gone
