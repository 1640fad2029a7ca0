"""The roster as files: what `imports` takes back without a change."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, select

from cloud.roster import calendar_file, calendars, rows, table_file
from cloud.tables import crew, person


def as_calendar(tx: Connection) -> bytes:
    """Every plan, with rules and exceptions."""
    who = _who(tx)
    return calendar_file.write(
        (
            calendar_file.summary(plan.tier, who[plan.person_id or plan.crew_id], is_crew=bool(plan.crew_id)),
            plan.calendar,
        )
        for plan in rows.plans(tx)
    )


def as_table(tx: Connection, zone: ZoneInfo, now_ms: int) -> bytes:
    """Every plan as a line. Moved occurrences don't fit into a line: such a plan is written shift by shift."""
    who = _who(tx)
    lines: list[dict[str, Any]] = []
    for plan in rows.plans(tx):
        fixed = {
            "tier": plan.tier,
            "person": who[plan.person_id] if plan.person_id else "",
            "crew": who[plan.crew_id] if plan.crew_id else "",
        }
        lines += [{**fixed, **times} for times in _lines(plan, zone, now_ms)]
    return table_file.write(lines)


def _who(tx: Connection) -> dict[str, str]:
    people = {row.id: row.login for row in tx.execute(select(person.c.id, person.c.login))}
    return people | {row.id: row.id for row in tx.execute(select(crew.c.id))}


def _lines(plan: Row[Any], zone: ZoneInfo, now_ms: int) -> list[dict[str, str]]:
    events = calendars.events_of(plan.calendar)
    event = events[0]
    begin = event.decoded("DTSTART")
    simple = len(events) == 1 and event.get("RDATE") is None
    if event.get("RRULE") is not None:
        simple = simple and getattr(begin.tzinfo, "key", None) == zone.key  # days of a rule are days of its own zone
    if not simple:
        times = calendars.occurrences(plan.calendar, now_ms, now_ms + rows.AHEAD_MS)
        return [
            {"id": f"{plan.id}@{one[0]}", "from": _moment(one[0], zone), "until": _moment(one[1], zone)}
            for one in times
        ]
    left_out = calendars.left_out(event)
    return [
        {
            "id": plan.id,
            "from": _moment(calendars.ms_of(begin), zone),
            "until": _moment(calendars.ms_of(event.decoded("DTEND")), zone),
            "repeat": calendars.rule_text(event),
            "except": ";".join(_day(one, zone) for one in left_out),
        }
    ]


def _moment(at_ms: int, zone: ZoneInfo) -> str:
    return f"{calendars.moment_of(at_ms, zone):%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def _day(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d}"
