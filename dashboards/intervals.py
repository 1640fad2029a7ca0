"""Times and intervals as Grafana computes them: `now-6h`, `now/d`, `$__interval`."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

UNITS_MS: Final = {"ms": 1, "s": 1000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_MONTH_DAYS, _YEAR_DAYS = 30, 365
"""Grafana goes by the calendar here; a query's range does not turn on the difference."""

ROUNDED_MS: Final = (
    (10, 1), (15, 10), (35, 20), (75, 50), (150, 100), (350, 200), (750, 500), (1500, 1000), (3500, 2000),
    (7500, 5000), (12_500, 10_000), (17_500, 15_000), (25_000, 20_000), (45_000, 30_000), (90_000, MINUTE_MS),
    (210_000, 2 * MINUTE_MS), (450_000, 5 * MINUTE_MS), (750_000, 10 * MINUTE_MS), (1_050_000, 15 * MINUTE_MS),
    (1_500_000, 20 * MINUTE_MS), (2_700_000, 30 * MINUTE_MS), (5_400_000, HOUR_MS), (9_000_000, 2 * HOUR_MS),
    (16_200_000, 3 * HOUR_MS), (32_400_000, 6 * HOUR_MS), (86_400_000, 12 * HOUR_MS), (604_800_000, DAY_MS),
    (1_814_400_000, 7 * DAY_MS), (3_628_800_000, 30 * DAY_MS),
)  # fmt: skip
"""(below this, this): Grafana's `roundInterval`."""

_SPAN = re.compile(r"(\d+)(ms|[smhdw])")
_MOMENT = re.compile(r"now(?:([+-])(\d+)([smhdwMy]))?(?:/([smhdwMy]))?")


def span_ms(text: str) -> int:
    """`30s`, `1h`, `>10s` in milliseconds.

    Raises:
        ValueError: not a span.
    """
    found = _SPAN.fullmatch(text.strip().removeprefix(">").strip())
    if found is None:
        raise ValueError(f"{text!r} is no span of time; write for example 30s, 10m, 6h or 7d")
    return int(found[1]) * UNITS_MS[found[2]]


def as_interval(ms: int) -> str:
    """Milliseconds as InfluxQL and Grafana write them: `10s`, `1m`, `1d`."""
    for unit in ("d", "h", "m", "s"):
        if ms % UNITS_MS[unit] == 0:
            return f"{ms // UNITS_MS[unit]}{unit}"
    return f"{ms}ms"


def interval_ms(range_ms: int, points_max: int, least_ms: int = 0) -> int:
    """Grafana's `$__interval` for a panel of so many points over so long, never below the panel's own least."""
    wanted = range_ms / max(1, points_max)
    rounded = next((step for below, step in ROUNDED_MS if wanted < below), 365 * DAY_MS)
    return max(rounded, least_ms, 1)


def moment_ms(text: str, now_ms: int, zone: tzinfo = UTC, *, end: bool = False) -> int:
    """`now`, `now-6h`, `now/d`, `now-1d/d` or an ISO date in Unix milliseconds; `end` rounds `/d` up to the day's end.

    Raises:
        ValueError: not a moment.
    """
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no moment; write for example now-6h, now/d or 2026-05-01T00:00:00") from None
        return round((at if at.tzinfo else at.replace(tzinfo=zone)).timestamp() * 1000)
    sign, count, unit, rounding = found.groups()
    at = datetime.fromtimestamp(now_ms / 1000, zone)
    if sign:
        days = {"M": _MONTH_DAYS, "y": _YEAR_DAYS}.get(unit)
        moved = timedelta(days=days) if days else timedelta(milliseconds=UNITS_MS[unit])
        at = at + moved * int(count) if sign == "+" else at - moved * int(count)
    if rounding:
        at = _rounded(at, rounding, end=end)
    return round(at.timestamp() * 1000)


def _rounded(at: datetime, unit: str, *, end: bool) -> datetime:
    minute = at.replace(second=0, microsecond=0)
    hour = minute.replace(minute=0)
    day = hour.replace(hour=0)
    start = {
        "s": at.replace(microsecond=0),
        "m": minute,
        "h": hour,
        "d": day,
        "w": day - timedelta(days=at.weekday()),
        "M": day.replace(day=1),
        "y": day.replace(day=1, month=1),
    }[unit]
    if not end:
        return start
    if unit == "M":
        following = (start + timedelta(days=_MONTH_DAYS + 1)).replace(day=1)
    elif unit == "y":
        following = (start + timedelta(days=_YEAR_DAYS + 1)).replace(day=1, month=1)
    else:
        following = start + timedelta(milliseconds=UNITS_MS[unit])
    return following - timedelta(milliseconds=1)
