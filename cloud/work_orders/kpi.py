"""How well work is done, by time: figures over the orders that were made in a span of time."""

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, select

from cloud.tables import work_order
from cloud.work_orders.schemas import KpiAnswer, KpiLine, StageFigures
from fleet.incident import OrderState

ZONE: Final = ZoneInfo("Asia/Shanghai")
ROWS_MAX: Final = 200_000
ALL: Final = "all"
_MINUTE_MS: Final = 60_000


def figures(tx: Connection, from_ms: int, until_ms: int) -> KpiAnswer:
    """By week, skill and kind, the oldest week first; cancelled orders are left out. At most `ROWS_MAX` orders."""
    columns = work_order.c
    rows = tx.execute(
        select(work_order)
        .where(
            columns.created_at >= from_ms,
            columns.created_at < until_ms,
            columns.state != OrderState.CANCELLED.value,
        )
        .order_by(columns.created_at)
        .limit(ROWS_MAX)
    ).all()
    groups: defaultdict[tuple[str, str, str], list[Row[Any]]] = defaultdict(list)
    for row in rows:
        groups[week_of(row.created_at), row.skill, row.kind].append(row)
    lines = [_line(*key, groups[key]) for key in sorted(groups)]
    return KpiAnswer(from_ms=from_ms, until_ms=until_ms, lines=lines, total=_line(ALL, ALL, ALL, rows))


def week_of(at_ms: int) -> str:
    """The Monday of its week in the zone's time, as YYYY-MM-DD."""
    day = datetime.fromtimestamp(at_ms / 1000, tz=UTC).astimezone(ZONE).date()
    return (day - timedelta(days=day.weekday())).isoformat()


def _line(week: str, skill: str, kind: str, rows: Sequence[Row[Any]]) -> KpiLine:
    done = [row for row in rows if row.state == OrderState.DONE.value and row.done_at is not None]
    at_once = sum(1 for row in done if not row.reopened)
    kept = sum(1 for row in done if row.done_at <= row.due_at)
    return KpiLine(
        week=week,
        skill=skill,
        kind=kind,
        made=len(rows),
        done=len(done),
        acknowledged=_stage(rows, "acknowledged_at"),
        on_site=_stage(rows, "on_site_at"),
        fixed=_stage(done, "done_at"),
        first_time_fix=round(at_once / len(done), 4) if done else None,
        repeat_faults=sum(1 for row in rows if row.repeat_of),
        sla_kept=round(kept / len(done), 4) if done else None,
    )


def _stage(rows: Sequence[Row[Any]], column: str) -> StageFigures:
    """Minutes since the clock began, without the time it stood still."""
    reached = [(row, getattr(row, column)) for row in rows]
    minutes = sorted(
        max(0, at - (row.clock_from or row.created_at) - (row.paused_ms if column == "done_at" else 0)) / _MINUTE_MS
        for row, at in reached
        if at is not None
    )
    if not minutes:
        return StageFigures(median_minutes=None, p90_minutes=None)
    ninety = minutes[math.ceil(0.9 * len(minutes)) - 1]
    return StageFigures(median_minutes=round(median(minutes), 2), p90_minutes=round(ninety, 2))
