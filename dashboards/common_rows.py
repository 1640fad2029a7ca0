"""Rows that the boards of every kind have, whatever the kind says of itself: how it fares, and its alarms."""

from collections.abc import Mapping
from typing import Final

from dashboards import influxql
from dashboards.drawings import Drawing
from dashboards.influxql import CHOSEN, IN_RANGE, Column, Query
from dashboards.kind_rows import NOT_COUNTED, Subject
from dashboards.links import to_application, to_device
from dashboards.scales import limit_lines, series_scale
from dashboards.words import (
    ALARM_STATES,
    ALARM_VIEWS,
    COLUMN,
    EMERGENCY_ALARMS,
    EVERY_KIND_ALARMS,
    PRIORITIES,
    PRIORITY_COLOURS,
)
from fleet.kind import Text
from fleet.panel import Where
from fleet.series import ALARM_STEP, FLEET_STATE

OPEN_SINCE: Final = "30d"
"""How far back what is still open is looked for: as long as raw data is kept."""
ENDED: Final = ("normal",)
ALARM_TAGS: Final = ("device_id", "kind", "key", "priority")
STATE_FIELDS: Final = (
    "reporting", "silent", "availability_percent", "alarms_unacknowledged", "orders_open", "orders_overdue",
)  # fmt: skip
"""Six fit on a line; calls, where there are any, come first and open orders give way."""

HOW_IT_FARES: Final = Text("现状", "How it fares")
HOW_IT_FARES_WORDS: Final = Text(
    "所示时段末的数量（每分钟统计一次），不受设备选择影响",
    "Numbers at the end of the time shown (counted every minute); the choice of devices does not change them",
)
ALARMS: Final = Text("各报警发生次数", "Alarms, by name")
ALARMS_WORDS: Final = Text(
    "所示时段内每种报警发生的次数，含被隐藏的", "How often each alarm began in the time shown, also hidden ones"
)
OPEN_ALARMS: Final = Text("未结束的报警", "Alarms that are not over")
OPEN_ALARMS_WORDS: Final = Text(
    "最近 30 天内有变化且尚未结束的报警及其最后一步的时间；点设备查看详情",
    "Alarms of the last 30 days that are not over, with the time of their latest step; a device leads to its board",
)
NO_ALARMS: Final = Text("没有报警", "no alarm")


def alarm_titles(subject: Subject) -> dict[str, str]:
    """Key → title of every alarm that the kind can have, its own and those of every kind."""
    common: dict[str, Text] = {**EVERY_KIND_ALARMS, **(EMERGENCY_ALARMS if subject.kind.emergency else {})}
    titles: Mapping[str, Text] = {**{alarm.key: alarm.title for alarm in subject.alarms}, **common}
    return {key: subject.say(title) for key, title in titles.items()}


def how_it_fares(subject: Subject) -> Drawing:
    """The kind's numbers of now, with their limits."""
    fields = list(STATE_FIELDS)
    if subject.kind.emergency:
        fields = ["calls_open", *(name for name in STATE_FIELDS if name != "orders_open")]
    scales = tuple(series_scale(FLEET_STATE, field, subject.language) for field in fields)
    condition = influxql.condition_of([Where("kind", subject.kind.name)], IN_RANGE)
    columns = [Column(scale.field, "last", scale.label) for scale in scales]
    words = subject.say(HOW_IT_FARES_WORDS)
    return Drawing(
        title=subject.say(HOW_IT_FARES),
        description="\n".join([words, "", *limit_lines(scales, subject.language)]),
        style="stat",
        queries=(Query("A", influxql.select(FLEET_STATE.name, columns, condition=condition), alias="$col"),),
        scales=scales,
        no_data=subject.say(NOT_COUNTED),
        width=24,
        height=4,
    )


def alarms_by_name(subject: Subject) -> Drawing:
    """How often each alarm of the kind began; every alarm it can have is named here."""
    condition = influxql.condition_of([Where("kind", subject.kind.name), Where("step", "activate")], CHOSEN)
    text = influxql.select(ALARM_STEP.name, [Column("alarm_id", "count", "count")], condition=condition, by=["key"])
    return Drawing(
        title=subject.say(ALARMS),
        description=subject.say(ALARMS_WORDS),
        style="ranking",
        queries=(Query("A", text, alias="$tag_key"),),
        no_data=subject.say(NO_ALARMS),
        unit="short",
        names=alarm_titles(subject),
        links=(to_application("alarms", subject.language),),
        height=10,
    )


def open_alarms(subject: Subject) -> Drawing:
    """The alarms of the chosen devices that are not over."""
    condition = influxql.condition_of([Where("kind", subject.kind.name)], CHOSEN)
    text = influxql.still(ALARM_STEP.name, "state", ["view"], ALARM_TAGS, ended=ENDED, condition=condition)
    return Drawing(
        title=subject.say(OPEN_ALARMS),
        description=subject.say(OPEN_ALARMS_WORDS),
        style="table",
        queries=(Query("A", text, result_format="table"),),
        no_data=subject.say(NO_ALARMS),
        codes=alarm_codes(subject.language, alarm_titles(subject)),
        colours=PRIORITY_COLOURS,
        headings=alarm_headings(subject.language),
        hidden=("kind",),
        links=() if subject.one_device else to_device(subject.kind.name, subject.language),
        link_column="device_id",
        time_from=OPEN_SINCE,
        height=10,
    )


def alarm_codes(language: str, titles: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """Words for the columns of a list of alarms."""
    return {
        "key": titles,
        "state": {code: word.in_language(language) for code, word in ALARM_STATES.items()},
        "priority": {code: word.in_language(language) for code, word in PRIORITIES.items()},
        "view": {code: word.in_language(language) for code, word in ALARM_VIEWS.items()},
    }


def alarm_headings(language: str) -> dict[str, str]:
    """Names of those columns."""
    tags = {tag: COLUMN[tag].in_language(language) for tag in ALARM_TAGS}
    columns = {name: COLUMN[name].in_language(language) for name in ("state", "view")}
    return {"Time": COLUMN["time"].in_language(language), **tags, **columns}
