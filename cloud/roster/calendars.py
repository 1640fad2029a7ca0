"""Times of plans as iCalendar: made from a line of a table or taken from a file, and unrolled into occurrences.

A plan keeps its times as iCalendar text, so that rules, exceptions and moved occurrences mean here what they mean
in everybody's calendar program. All moments inside are aware; what was written without a zone has the roster's.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import recurring_ical_events  # type: ignore[import-untyped]
from icalendar import Calendar, Event
from icalendar.prop import vRecur

from cloud.roster.duty import SHIFT_MS_MAX
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.kind import Text

PRODUCT: Final = "-//gaoxin-fleet//roster//EN"
FREQUENCIES: Final = frozenset({"DAILY", "WEEKLY", "MONTHLY", "YEARLY"})
RULE_PARTS: Final = frozenset(
    {"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYSETPOS", "WKST"}
)
"""What a rule may say. Rules by the hour or minute would unroll without end, and nobody plans shifts that way."""
AROUND_MS_MAX: Final = 6 * 365 * 86_400_000
"""Times further away are slips of the pen (1970, 20226), and rules from then on cost time to unroll."""
CALENDAR_CHARACTERS_MAX: Final = 20_000


class CalendarError(ValueError):
    """Times that can't be used; `why` and `fix` are for people."""

    def __init__(self, why: Text, fix: Text) -> None:
        super().__init__(f"{why.en}: {fix.en}")
        self.why = why
        self.fix = fix


def ms_of(moment: datetime) -> int:
    """Ms since the epoch of an aware moment."""
    return round(moment.timestamp() * MILLISECONDS_PER_SECOND)


def moment_of(at_ms: int, zone: ZoneInfo) -> datetime:
    """The local moment of ms since the epoch."""
    return datetime.fromtimestamp(at_ms / MILLISECONDS_PER_SECOND, zone)


def aware(value: date | datetime, zone: ZoneInfo) -> datetime:
    """A calendar's value as a moment: days begin at midnight, times without a zone are the roster's.

    Raises:
        CalendarError: its time zone has no name of the time zone database.
    """
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    if value.tzinfo is None:
        return value.replace(tzinfo=zone)
    if value.utcoffset() == timedelta(0) and value.tzname() == "UTC":
        return value.astimezone(UTC)
    if getattr(value.tzinfo, "key", None) is None:
        raise _unknown_zone(str(value.tzname()))
    return value


def make(uid: str, begin: datetime, end: datetime, rule: str = "", exceptions: Iterable[datetime] = ()) -> str:
    """The text of one plan. Raises CalendarError."""
    event = _event(uid, begin, end)
    if rule:
        event.add("rrule", read_rule(rule, begin))
    left_out = sorted(exceptions)
    if left_out:
        event.add("exdate", left_out)
    return text_of([event])


def from_events(events: Sequence[Event], zone: ZoneInfo) -> str:
    """The text of one plan from the events of one UID in somebody's file: only what times depend on is kept.

    Raises:
        CalendarError: a value that can't be used.
    """
    found = [_normal(event, zone) for event in events]
    if sum("RECURRENCE-ID" not in event for event in found) != 1:
        raise CalendarError(
            Text("同一 UID 必须恰好有一个主事件", "a UID needs exactly one event without RECURRENCE-ID"),
            Text("请重新导出日历，或修改重复的 UID", "export the calendar again, or give each event its own UID"),
        )
    return text_of(found)


def _normal(event: Event, zone: ZoneInfo) -> Event:
    if event.get("DTSTART") is None:
        raise CalendarError(Text("没有开始时间", "it has no DTSTART"), Text("请填写 DTSTART", "add DTSTART"))
    _refuse_unknown_zones(event)
    begin = aware(event.decoded("DTSTART"), zone)
    if event.get("DTEND") is not None:
        end = aware(event.decoded("DTEND"), zone)
    elif event.get("DURATION") is not None:
        end = begin + event.decoded("DURATION")
    else:
        raise CalendarError(Text("没有结束时间", "it has no DTEND"), Text("请填写 DTEND", "add DTEND or DURATION"))
    made = _event(str(event.get("UID")), begin, end)
    if event.get("RECURRENCE-ID") is not None:
        made.add("recurrence-id", aware(event.decoded("RECURRENCE-ID"), zone))
    if event.get("RRULE") is not None:
        rules = event["RRULE"]
        if isinstance(rules, list):
            raise CalendarError(
                Text("一个事件只能有一条重复规则", "it has more than one RRULE"),
                Text("请拆分为多个事件", "make one event of each rule"),
            )
        made.add("rrule", read_rule(rule_text(event), begin))
    for name in ("EXDATE", "RDATE"):
        moments = [aware(value, zone) for value in _dates(event.get(name), name)]
        if moments:
            made.add(name.lower(), moments)
    return made


def _refuse_unknown_zones(event: Event) -> None:
    # The library reads a time in a zone it does not know as one without a zone.
    for name in ("DTSTART", "DTEND", "RECURRENCE-ID", "EXDATE", "RDATE"):
        found: Any = event.get(name)
        for value in found if isinstance(found, list) else [found]:
            zone = getattr(value, "params", {}).get("TZID")
            moments = [one.dt for one in value.dts] if hasattr(value, "dts") else [getattr(value, "dt", None)]
            if zone and any(isinstance(one, datetime) and one.tzinfo is None for one in moments):
                raise _unknown_zone(str(zone))


def _unknown_zone(name: str) -> CalendarError:
    return CalendarError(
        Text(f"时区无法识别：{name}", f"the time zone {name!r} is not known"),
        Text("请使用 IANA 时区名，例如 Asia/Shanghai", "use a name like Asia/Shanghai"),
    )


def _dates(found: Any, name: str) -> list[date | datetime]:
    lists = found if isinstance(found, list) else [] if found is None else [found]
    values = [one.dt for item in lists for one in item.dts]
    if not all(isinstance(value, date) for value in values):
        raise CalendarError(
            Text(f"{name} 不能是时间段", f"{name} holds a period"), Text("请写具体时间", "write moments instead")
        )
    return values


def _event(uid: str, begin: datetime, end: datetime) -> Event:
    _refuse_odd_times(begin, end)
    event = Event()
    event.add("uid", uid)
    event.add("dtstamp", begin.astimezone(UTC))  # not the moment of writing: the same plan is the same text
    event.add("dtstart", begin)
    event.add("dtend", end)
    return event


def _refuse_odd_times(begin: datetime, end: datetime) -> None:
    if ms_of(end) <= ms_of(begin):
        raise CalendarError(
            Text("结束时间不晚于开始时间", "it ends before it begins"),
            Text("请更正开始或结束时间", "correct one of the two times"),
        )
    if ms_of(end) - ms_of(begin) > SHIFT_MS_MAX:
        raise CalendarError(
            Text("班次超过 8 天", "it is longer than 8 days"),
            Text("请拆分为较短的班次，或使用重复规则", "split it, or repeat a shorter one"),
        )


def read_rule(text: str, begin: datetime) -> vRecur:
    """An RRULE that is safe to unroll. Raises CalendarError."""
    try:
        rule: vRecur = vRecur.from_ical(text.strip().removeprefix("RRULE:"))
    except (ValueError, TypeError, KeyError, IndexError):
        raise _unreadable(text) from None
    if set(rule) - RULE_PARTS or not set(rule.get("FREQ", [])) or set(rule["FREQ"]) - FREQUENCIES:
        raise _unreadable(text)
    if any(int(value) < 1 for name in ("INTERVAL", "COUNT") for value in rule.get(name, [])):
        raise _unreadable(text)
    if "UNTIL" in rule and "COUNT" in rule:
        raise _unreadable(text)
    if "UNTIL" in rule:
        rule["UNTIL"] = [_last_moment(rule["UNTIL"][0], begin)]
    return rule


def _last_moment(value: date | datetime, begin: datetime) -> datetime:
    # A day means all of it, on the plan's own clock; the standard wants UTC here.
    zone = begin.tzinfo
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, 23, 59, 59, tzinfo=zone).astimezone(UTC)
    return (value if value.tzinfo else value.replace(tzinfo=zone)).astimezone(UTC)


def _unreadable(text: str) -> CalendarError:
    return CalendarError(
        Text(f"重复规则无法使用：{text[:80]}", f"the rule {text[:80]!r} can't be used"),
        Text(
            "写 每天、每周、周一,周三 或 FREQ=WEEKLY;BYDAY=MO,WE（只支持天、周、月、年）",
            "write daily, weekly, MO,WE or FREQ=WEEKLY;BYDAY=MO,WE (days, weeks, months and years only)",
        ),
    )


def text_of(events: Iterable[Event], name: str = "") -> str:
    """A calendar with these events."""
    calendar = Calendar()
    calendar.add("prodid", PRODUCT)
    calendar.add("version", "2.0")
    if name:
        calendar.add("x-wr-calname", name)
    for event in events:
        calendar.add_component(event)
    return bytes(calendar.to_ical()).decode()


def events_of(calendar: str) -> list[Event]:
    """The events of a plan's text."""
    return [event for event in Calendar.from_ical(calendar).walk("VEVENT") if isinstance(event, Event)]


def refuse_far(calendar: str, now_ms: int) -> None:
    """Raises CalendarError for a plan that begins years away."""
    for event in events_of(calendar):
        if abs(ms_of(event.decoded("DTSTART")) - now_ms) > AROUND_MS_MAX:
            raise CalendarError(
                Text("时间太久远", "the time is too far away"), Text("请核对年份", "look at the year again")
            )


def rule_text(event: Event) -> str:
    """The rule of an event as text; empty without one."""
    rule: Any = event.get("RRULE")
    return "" if rule is None else str(rule.to_ical().decode())


def left_out(event: Event) -> list[datetime]:
    """The exceptions of a rule, in order."""
    return sorted(value for value in _dates(event.get("EXDATE"), "EXDATE") if isinstance(value, datetime))


def occurrences(calendar: str, from_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """When the plan takes place: (from, until) of all that touch the time from `from_ms` to `until_ms`, in order.

    Raises:
        CalendarError: the library can't unroll it.
    """
    try:
        found = recurring_ical_events.of(Calendar.from_ical(calendar)).between(
            moment_of(from_ms, _UTC), moment_of(until_ms, _UTC)
        )
    except Exception as error:  # two libraries' worth of errors, about what somebody wrote into a file
        reason = str(error).partition("\n")[0][:120]
        raise CalendarError(
            Text(f"时间无法展开：{reason}", f"its times can't be unrolled: {reason}"),
            Text("请简化重复规则", "write a simpler rule"),
        ) from error
    pairs = ((ms_of(event["DTSTART"].dt), ms_of(event["DTEND"].dt)) for event in found)
    return sorted({(begin, end) for begin, end in pairs if begin < until_ms and end > from_ms})


_UTC: Final = ZoneInfo("UTC")
