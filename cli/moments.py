"""Moments as people write them on the command line."""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

MILLISECONDS_PER_SECOND: Final = 1000


class MomentError(ValueError):
    """One line for people."""


def moment_ms(option: str, text: str, zone: ZoneInfo) -> int:
    """`2026-11-21`, `2026-11-21T08:00` (in `zone`) or with an offset of its own, in ms. Raises MomentError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MomentError(
            f"{option} {text!r} is no moment; write for example 2026-11-21 or 2026-11-21T08:00+08:00"
        ) from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    return int(aware.timestamp() * MILLISECONDS_PER_SECOND)


def span_ms(from_text: str, until_text: str, zone: ZoneInfo, now_ms: int) -> tuple[int, int]:
    """[from, until): an empty `until` is now, an empty `from` a day before it. Raises MomentError."""
    until_ms = moment_ms("--until", until_text, zone) if until_text else now_ms
    day_ms = int(timedelta(days=1).total_seconds()) * MILLISECONDS_PER_SECOND
    from_ms = moment_ms("--from", from_text, zone) if from_text else until_ms - day_ms
    if from_ms >= until_ms:
        raise MomentError(f"--from {from_text or 'a day before'} is not before --until {until_text or 'now'}")
    return from_ms, until_ms
