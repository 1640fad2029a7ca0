"""The first board: is anything wrong, where, and since when."""

from collections.abc import Sequence
from typing import Any, Final

from dashboards import influxql
from dashboards.common_rows import (
    ALARM_TAGS,
    ENDED,
    NO_ALARMS,
    OPEN_SINCE,
    alarm_codes,
    alarm_headings,
    alarm_titles,
)
from dashboards.drawings import Drawing
from dashboards.frame import PANELS_MAX, Frame
from dashboards.influxql import IN_RANGE, STEP, Column, Query
from dashboards.kind_boards import alarms_of
from dashboards.kind_rows import NOT_COUNTED, REFS, Subject
from dashboards.links import OVERVIEW_UID, to_application, to_application_device, to_kind, to_operations
from dashboards.scales import Scale, limit_lines, series_scale
from dashboards.words import CALL_PURPOSES, CALL_STATES, COLUMN, PRIORITIES, PRIORITY_COLOURS
from fleet.kind import Kind, Text
from fleet.panel import Where
from fleet.series import ALARM_STEP, CALL_STEP, FLEET_STATE, PLATFORM

TITLE: Final = Text("设备总览：有什么不对？", "Fleet overview: is anything wrong?")
QUESTION: Final = Text("有什么不对，在哪里，从什么时候起？", "Is anything wrong, where, and since when?")
NOW_FIELDS: Final = ("calls_open", "alarms_unacknowledged", "alarms_open", "silent", "orders_overdue")
NOW: Final = Text("全部设备现状", "The whole fleet now")
NOW_WORDS: Final = Text("各类设备之和，所示时段末", "Sum over all kinds, at the end of the time shown")
KIND_WORDS: Final = Text("点击打开此类设备的看板", "A click leads to the board of the kind")
AVAILABILITY: Final = Text("各类设备可用率", "Availability of each kind")
AVAILABILITY_WORDS: Final = Text(
    "正常上报且无高优先级报警的设备占比；时间步内取最低",
    "Share of devices that report and have no open high alarm; the lowest of each step",
)
LINKS_DOWN: Final = Text("失联的设备", "Links that are down")
LINKS_DOWN_WORDS: Final = Text(
    "每类设备中已静默过久的数量；同时上升说明共同原因",
    "Devices of each kind that have been silent for too long; if all rise together, look for one cause",
)
ALARMS_OPEN: Final = Text("未结束的报警数", "Alarms whose condition holds")
ALARMS_OPEN_WORDS: Final = Text("每类设备的报警数随时间的变化", "Of each kind, over time")
BEGAN: Final = Text("每小时新报警", "Alarms that began, per hour")
BEGAN_WORDS: Final = Text(
    "按优先级；每人每 10 分钟应不超过一条，每天不超过 120 条",
    "By priority; the goal is at most one per person and 10 minutes, and at most 120 a day",
)
CALLS: Final = Text("紧急呼叫", "Emergency calls")
CALLS_WORDS: Final = Text(
    "最近 30 天内尚未在现场解除的呼叫及其最后一步；点击在应用中处理",
    "Calls of the last 30 days that are not cleared on site, with their latest step; a click leads to the application",
)
NO_CALLS: Final = Text("没有未解除的呼叫", "no call is open")
OPEN_ALARMS: Final = Text("未结束的高优先级报警", "High alarms that are not over")
OPEN_ALARMS_WORDS: Final = Text(
    "最近 30 天内有变化、尚未结束的高优先级报警；设备可在应用中打开，更多见各类看板",
    "High alarms of the last 30 days that are not over; a device opens in the application, more on the kinds' boards",
)
NO_HIGH: Final = Text("没有高优先级报警", "no high alarm")
INGEST: Final = Text("设备消息", "Messages from devices")
INGEST_WORDS: Final = Text(
    "每秒接受、重复和隔离的消息；接受为零说明接入中断",
    "Accepted, repeated and set aside, per second; if nothing is accepted, the way in is broken",
)
HEALTH_FIELDS: Final = ("synthetic_age_ms", "outbox_oldest_ms", "history_lag_ms", "spool_fill_percent")
HEALTH: Final = Text("系统本身", "The service itself")
HEALTH_WORDS: Final = Text(
    "各进程中最差的值；点击打开系统运行看板", "The worst of all processes; a click leads to Operations"
)
NO_PLATFORM: Final = Text("没有任何进程在报告：系统未运行", "no process reports: the service is not running")
FIXED_PANELS: Final = 9
KIND_FIELDS: Final = ("availability_percent", "reporting", "devices", "alarms_unacknowledged")


def build_overview(kinds: Sequence[Kind], language: str) -> dict[str, Any]:
    """The overview of all kinds; raises BoardError."""
    frame = Frame(
        OVERVIEW_UID, TITLE.in_language(language), QUESTION.in_language(language), language, time_from="now-24h"
    )
    for page in ("calls", "alarms", "orders"):
        frame.link(to_application(page, language))
    frame.add(_now(language))
    frame.add(*(_kinds(group, language) for group in _grouped(kinds)))
    subjects = [Subject(kind, alarms_of(kind), language) for kind in kinds]
    frame.add(_calls(language), _open_alarms(subjects, language))
    names = {kind.name: kind.title.in_language(language) for kind in kinds}
    for title, words, field, aggregate in (
        (AVAILABILITY, AVAILABILITY_WORDS, "availability_percent", "min"),
        (LINKS_DOWN, LINKS_DOWN_WORDS, "silent", "max"),
        (ALARMS_OPEN, ALARMS_OPEN_WORDS, "alarms_open", "max"),
    ):
        frame.add(_by_kind(title, words, field, aggregate, names, language))
    frame.add(_began(language), _ingest(language), _health(language))
    return frame.json()


def _now(language: str) -> Drawing:
    scales = tuple(series_scale(FLEET_STATE, field, language) for field in NOW_FIELDS)
    columns = [Column(scale.field, "sum", scale.label) for scale in scales]
    words = NOW_WORDS.in_language(language)
    return Drawing(
        title=NOW.in_language(language),
        description="\n".join([words, "", *limit_lines(scales, language)]),
        style="stat",
        queries=(
            Query("A", influxql.totals(FLEET_STATE.name, columns, latest_by="kind", condition=IN_RANGE), alias="$col"),
        ),
        scales=scales,
        no_data=NOT_COUNTED.in_language(language),
        width=24,
        height=4,
    )


def _grouped(kinds: Sequence[Kind]) -> list[Sequence[Kind]]:
    """A panel for each kind; with more kinds than there is room for, some share one."""
    size = -(-len(kinds) // (PANELS_MAX - FIXED_PANELS))
    return [kinds[start : start + size] for start in range(0, len(kinds), max(1, size))]


def _kinds(kinds: Sequence[Kind], language: str) -> Drawing:
    """How a kind (or a few) fares, with the way to its board."""
    titles = [kind.title.in_language(language) for kind in kinds]
    queries: list[Query] = []
    scales: list[Scale] = []
    for ref, kind, title in zip(REFS, kinds, titles, strict=False):
        own = [series_scale(FLEET_STATE, field, language) for field in KIND_FIELDS]
        if len(kinds) > 1:
            own = [scale.named(f"{title} {scale.label}") for scale in own]
        columns = [Column(scale.field, "last", scale.label) for scale in own]
        condition = influxql.condition_of([Where("kind", kind.name)], IN_RANGE)
        queries.append(Query(ref, influxql.select(FLEET_STATE.name, columns, condition=condition), alias="$col"))
        scales += own
    words = KIND_WORDS.in_language(language)
    return Drawing(
        title=("、" if language == "zh" else ", ").join(titles),
        description="\n".join([words, "", *limit_lines(scales[: len(KIND_FIELDS)], language)]),
        style="stat",
        queries=tuple(queries),
        scales=tuple(scales),
        no_data=NOT_COUNTED.in_language(language),
        links=tuple(to_kind(kind.name, title) for kind, title in zip(kinds, titles, strict=True)),
        width=8,
        height=5,
    )


def _calls(language: str) -> Drawing:
    tags = ("device_id", "purpose")
    text = influxql.still(
        CALL_STEP.name, "state", ["since_press_ms", "escalation"], tags, ended=("cleared",), condition=IN_RANGE
    )
    scales = tuple(series_scale(CALL_STEP, field, language) for field in ("since_press_ms", "escalation"))
    return Drawing(
        title=CALLS.in_language(language),
        description=CALLS_WORDS.in_language(language),
        style="table",
        queries=(Query("A", text, result_format="table"),),
        no_data=NO_CALLS.in_language(language),
        scales=scales,
        codes={
            "state": {code: word.in_language(language) for code, word in CALL_STATES.items()},
            "purpose": {code: word.in_language(language) for code, word in CALL_PURPOSES.items()},
        },
        headings={
            "Time": COLUMN["time"].in_language(language),
            **{tag: COLUMN[tag].in_language(language) for tag in tags},
            "state": COLUMN["state"].in_language(language),
            **{scale.field: scale.label for scale in scales},
        },
        links=(to_application_device(language), to_application("calls", language)),
        link_column="device_id",
        time_from=OPEN_SINCE,
        height=6,
    )


def _open_alarms(subjects: Sequence[Subject], language: str) -> Drawing:
    condition = influxql.condition_of([Where("priority", "high")], IN_RANGE)
    text = influxql.still(
        ALARM_STEP.name, "state", ["view"], ALARM_TAGS, ended=ENDED, condition=condition, also=[Where("view", "shown")]
    )
    titles = {key: title for subject in subjects for key, title in alarm_titles(subject).items()}
    kinds = {subject.kind.name: subject.say(subject.kind.title) for subject in subjects}
    return Drawing(
        title=OPEN_ALARMS.in_language(language),
        description=OPEN_ALARMS_WORDS.in_language(language),
        style="table",
        queries=(Query("A", text, result_format="table"),),
        no_data=NO_HIGH.in_language(language),
        codes={**alarm_codes(language, titles), "kind": kinds},
        colours=PRIORITY_COLOURS,
        headings=alarm_headings(language),
        hidden=("view", "priority"),
        links=(to_application_device(language), to_application("alarms", language)),
        link_column="device_id",
        time_from=OPEN_SINCE,
        height=6,
    )


def _by_kind(title: Text, words: Text, field: str, aggregate: str, names: dict[str, str], language: str) -> Drawing:
    scale = series_scale(FLEET_STATE, field, language)
    column = Column(field, aggregate, scale.label)
    text = influxql.select(FLEET_STATE.name, [column], condition=IN_RANGE, by=[STEP, "kind"], sampled=True)
    lines = limit_lines([scale], language)
    said = words.in_language(language)
    return Drawing(
        title=title.in_language(language),
        description="\n".join([said, "", *lines]) if lines else said,
        style="timeseries",
        queries=(Query("A", text, alias="$tag_kind"),),
        scales=(scale,),
        names=names,
        no_data=NOT_COUNTED.in_language(language),
        interval_s=FLEET_STATE.every_s or 0,
        width=8,
    )


def _began(language: str) -> Drawing:
    condition = influxql.condition_of([Where("step", "activate")], IN_RANGE)
    column = Column("alarm_id", "count", BEGAN.in_language(language))
    text = influxql.select(ALARM_STEP.name, [column], condition=condition, by=["time(1h)", "priority"])
    return Drawing(
        title=BEGAN.in_language(language),
        description=BEGAN_WORDS.in_language(language),
        style="columns",
        queries=(Query("A", text, alias="$tag_priority"),),
        no_data=NO_ALARMS.in_language(language),
        unit="short",
        names={code: word.in_language(language) for code, word in PRIORITIES.items()},
        colours=PRIORITY_COLOURS,
        stacked=True,
        interval_s=3_600,
        width=8,
    )


def _ingest(language: str) -> Drawing:
    fields = ("accepted_total", "duplicates_total", "quarantined_total")
    columns = [Column(field, "sum", series_scale(PLATFORM, field, language).label) for field in fields]
    return Drawing(
        title=INGEST.in_language(language),
        description=INGEST_WORDS.in_language(language),
        style="timeseries",
        queries=tuple(
            Query(ref, influxql.rates(PLATFORM.name, [column], tag="process"), alias="$col")
            for ref, column in zip(REFS, columns, strict=False)
        ),
        no_data=NO_PLATFORM.in_language(language),
        unit="cps",
        links=(to_operations(language),),
        interval_s=60,
        width=8,
    )


def _health(language: str) -> Drawing:
    scales = tuple(series_scale(PLATFORM, field, language) for field in HEALTH_FIELDS)
    columns = [Column(scale.field, "max", scale.label) for scale in scales]
    words = HEALTH_WORDS.in_language(language)
    return Drawing(
        title=HEALTH.in_language(language),
        description="\n".join([words, "", *limit_lines(scales, language)]),
        style="stat",
        queries=(
            Query("A", influxql.totals(PLATFORM.name, columns, latest_by="process", condition=IN_RANGE), alias="$col"),
        ),
        scales=scales,
        no_data=NO_PLATFORM.in_language(language),
        links=(to_operations(language),),
        width=8,
    )
