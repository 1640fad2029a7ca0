"""Rosters as iCalendar: every event says in its summary which tier and who, `on_call: li` or `当班：班组 北区`.

Files of calendar programs are read as they are: folded lines, time zones by their names, rules, exceptions, moved
occurrences, whole days. An event with STATUS:CANCELLED ends its plan.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final
from zoneinfo import ZoneInfo

from icalendar import Calendar, Event

from cloud.roster import calendars
from cloud.roster.calendars import CALENDAR_CHARACTERS_MAX, CalendarError
from cloud.roster.drafts import PLANS_MAX, TIER_TEXTS, UNKNOWN_TIER_FIX, Draft, Reading, tier_of
from fleet.kind import Text

_SUMMARY: Final = re.compile(
    r"\s*(?P<tier>[^:\uff1a]+?)\s*[:\uff1a]\s*(?P<crew>(?:crew|班组)\s+)?(?P<who>.+?)\s*", re.IGNORECASE
)
_BEGIN: Final = re.compile(r"BEGIN:VEVENT\s*", re.IGNORECASE)
_BROKEN_FIX: Final = Text("请从日历程序重新导出为 .ics", "export it again as .ics")
_SUMMARY_FIX: Final = Text(
    "标题写成“当班：登录名”或“当班：班组 名称”", "write the summary as “on_call: login” or “on_call: crew name”"
)


def read(raw: bytes, zone: ZoneInfo) -> Reading:
    """Every UID as a draft, or named by the line of its first event with what is wrong with it."""
    reading = Reading()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        reading.refuse(1, Text("不是 UTF-8 编码", "it is not UTF-8"), _BROKEN_FIX)
        return reading
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _BEGIN.fullmatch(line)]
    try:
        parts = [part for one in Calendar.from_ical(text, multiple=True) for part in one.walk("VEVENT")]
        found = [part for part in parts if isinstance(part, Event)]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0][:120]
        reading.refuse(1, Text(f"不是有效的日历：{reason}", f"it is no calendar: {reason}"), _BROKEN_FIX)
        return reading
    if len(found) != len(lines):
        reading.refuse(1, Text("日历不完整", "the calendar is cut off"), _BROKEN_FIX)
        return reading
    by_uid: dict[str, list[tuple[int, Event]]] = defaultdict(list)
    for line, event in zip(lines, found, strict=True):
        by_uid[str(event.get("UID", "")).strip()].append((line, event))
    if len(by_uid) > PLANS_MAX:
        reading.refuse(
            lines[PLANS_MAX], Text(f"超过 {PLANS_MAX} 个事件", f"more than {PLANS_MAX} events"),
            Text("请分多个文件导入", "use several files"),
        )  # fmt: skip
        return reading
    for uid, events in by_uid.items():
        _read_events(uid, events, zone, reading)
    return reading


def _read_events(uid: str, events: list[tuple[int, Event]], zone: ZoneInfo, reading: Reading) -> None:
    line = events[0][0]
    if not uid:
        reading.refuse(line, Text("没有 UID", "it has no UID"), _BROKEN_FIX)
        return
    titles = {str(event.get("SUMMARY", "")).strip() for _, event in events}
    found = _SUMMARY.fullmatch(titles.copy().pop())
    if len(titles) != 1 or found is None:
        shown = " / ".join(sorted(titles))[:80]
        reading.refuse(
            line, Text(f"标题看不出谁值班：{shown}", f"the summary {shown!r} does not say who is on duty"), _SUMMARY_FIX
        )
        return
    tier = tier_of(found["tier"])
    if tier is None:
        reading.refuse(line, Text(f"未知梯队：{found['tier']}", f"unknown tier {found['tier']!r}"), UNKNOWN_TIER_FIX)
        return
    cancelled = {str(event.get("STATUS", "")).upper() for _, event in events if "RECURRENCE-ID" not in event}
    try:
        text = calendars.from_events([event for _, event in _without_cancelled(events)], zone)
    except CalendarError as error:
        reading.refuse(line, error.why, error.fix)
        return
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # values the library can't decode
        reason = str(error)[:120]
        reading.refuse(line, Text(f"时间无法识别：{reason}", f"a time can't be read: {reason}"), _BROKEN_FIX)
        return
    if len(text) > CALENDAR_CHARACTERS_MAX:
        reading.refuse(
            line,
            Text("例外过多", "it has too many exceptions"),
            Text("请拆分为多个事件", "split it into several events"),
        )
        return
    who = {"crew": found["who"], "person": ""} if found["crew"] else {"person": found["who"], "crew": ""}
    reading.drafts.append(Draft(line, uid, tier, calendar=text, cancelled="CANCELLED" in cancelled, **who))


def _without_cancelled(events: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """A cancelled single occurrence becomes an exception of its rule."""
    kept: list[tuple[int, Event]] = []
    gone: list[Event] = []
    for line, event in events:
        if "RECURRENCE-ID" in event and str(event.get("STATUS", "")).upper() == "CANCELLED":
            gone.append(event)
        else:
            kept.append((line, event))
    for _, event in kept:
        if "RECURRENCE-ID" not in event:
            for one in gone:
                event.add("exdate", one.decoded("RECURRENCE-ID"))
    return kept


def summary(tier: str, who: str, *, is_crew: bool) -> str:
    """The title by which `read` knows tier and person again."""
    return f"{tier}: {'crew ' if is_crew else ''}{who}"


def write(plans: Iterable[tuple[str, str]]) -> bytes:
    """A calendar of plans, given as (summary, the plan's own calendar)."""
    events = []
    for title, calendar in plans:
        for event in calendars.events_of(calendar):
            event.add("summary", title)
            events.append(event)
    return calendars.text_of(events, name="Roster").encode()


def feed(shifts: Iterable[tuple[str, str, int, int]], zone: ZoneInfo, language: str) -> bytes:
    """One person's shifts for a calendar program, given as (id, tier, from, until): titles for people."""
    events = []
    for identity, tier, from_ms, until_ms in shifts:
        event = Event()
        event.add("uid", identity)
        begin = calendars.moment_of(from_ms, zone)
        event.add("dtstamp", begin.astimezone(ZoneInfo("UTC")))
        event.add("dtstart", begin)
        event.add("dtend", calendars.moment_of(until_ms, zone))
        title = TIER_TEXTS[tier]
        event.add("summary", title.zh if language.startswith("zh") else title.en)
        events.append(event)
    return calendars.text_of(events, name="值班" if language.startswith("zh") else "Duty").encode()
