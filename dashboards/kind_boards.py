"""Boards of one kind: all its devices together, and one device with everything of it on a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import devices
from dashboards import common_rows, influxql
from dashboards.drawings import GAP_MS_MIN, Drawing
from dashboards.frame import RANGES_OF_MANY, Frame
from dashboards.influxql import CHOSEN, STEP, Column, Query
from dashboards.kind_rows import NO_READINGS, Subject, drawing_of
from dashboards.labels import LABELS
from dashboards.links import (
    device_uid_of,
    to_application,
    to_application_device,
    to_kind,
    uid_of,
)
from dashboards.panels import POSITION
from dashboards.scales import (
    CALM,
    COLOURS,
    IN_USE_COLOUR,
    BoardError,
    Scale,
    edge_of,
    limit_lines,
    scale_of,
    shown_as,
)
from dashboards.words import COLUMN, LINK, YES_NO
from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Flag, Kind, Panel, Text
from fleet.panel import IN_USE, Where
from fleet.series import ALARM_STEP, CALL_STEP, CALL_STEPS, COMMAND_STEP, FIRMWARE_STEP, ORDER_STEP, Measurement

KIND_TITLE: Final = Text("{title}：哪一台需要人？", "{title}: which one needs somebody?")
KIND_QUESTION: Final = Text(
    "它们能用吗，哪一台需要人，从什么时候起？", "Do they serve people, which one needs somebody, and since when?"
)
DEVICE_TITLE: Final = Text("{title}：这一台怎么样？", "{title}: how is this one?")
DEVICE_QUESTION: Final = Text(
    "这一台设备现在怎样，怎么走到这一步？竖线：报警、工单、呼叫、指令与固件",
    "How is this one device, and how did it come to this? Vertical lines: alarms, orders, calls, commands, firmware",
)
LATEST: Final = Text("最新读数", "Latest reading")
LATEST_WORDS: Final = Text("此时段内最后一次上报的各项数值", "Every value of the last reading in the time shown")
VALUES_WORDS: Final = Text("随时间的变化与报警限", "Over time, with the alarm limits")
STATES: Final = Text("状态", "States")
STATES_WORDS: Final = Text("开关量与状态随时间的变化", "Flags and states over time")
TRACK: Final = Text("位置", "Where it was")
TRACK_WORDS: Final = Text(
    "此时段内上报过的位置（每个时间段一个点）", "Positions reported in the time shown, one for every step"
)
ORDERS: Final = Text("工单", "Work orders")
ORDERS_WORDS: Final = Text("此设备工单的每一步，最新在前", "Every step of the device's work orders, newest first")
NO_ORDERS: Final = Text("此时段内没有工单", "no work order in this time")
COMMANDS: Final = Text("指令", "Commands")
COMMANDS_WORDS: Final = Text(
    "发给此设备的指令及结果，最新在前", "Commands to the device and how they went, newest first"
)
NO_COMMANDS: Final = Text("此时段内没有指令", "no command in this time")
VALUES_PER_PANEL: Final = 2
"""Left and right axis: each field keeps its own limits."""
VALUE_PANELS_MAX: Final = 5
METER_SHARE: Final = 1.25
"""How much of the dial there is, for a limit of 1."""
METER_WORDS: Final = Text("最新值与报警限", "Latest value against its limit")
TRACK_POINTS: Final = 300


def panels_of(kind: Kind) -> Sequence[Panel]:
    """The rows of the kind's board."""
    return tuple(devices.role(kind.name, "panels").PANELS)


def device_panels_of(kind: Kind) -> Sequence[Panel]:
    """Further rows of the board of one device; a kind need not have any."""
    return tuple(getattr(devices.role(kind.name, "panels"), "DEVICE_PANELS", ()))


def codes_of(kind: Kind) -> Iterable[tuple[str, Mapping[str, Text]]]:
    """Words for the codes of its reading's texts, field by field."""
    return getattr(devices.role(kind.name, "panels"), "CODES", {}).items()


def actions_of(kind: Kind) -> Mapping[str, Text]:
    """Words for its commands."""
    return dict(getattr(devices.role(kind.name, "panels"), "ACTIONS", {}))


def looks_of(kind: Kind) -> Mapping[str, Mapping[str, str]]:
    """Field → code → colour of every state that is worth a look.

    Raises:
        BoardError: `LOOKS` names an alarm that the kind does not have.
    """
    priorities = {alarm.key: alarm.priority for alarm in alarms_of(kind)} | {str(one): one for one in Priority}
    found: dict[str, dict[str, str]] = {}
    for alarm in alarms_of(kind):
        if isinstance(alarm.condition, Flag):
            value = alarm.condition.value
            code = str(value).lower() if isinstance(value, bool) else str(value)
            found.setdefault(alarm.condition.field, {})[code] = COLOURS[alarm.priority]
    for name, codes in getattr(devices.role(kind.name, "panels"), "LOOKS", {}).items():
        for code, look in codes.items():
            if look != IN_USE and look not in priorities:
                raise BoardError(f"{kind.name}: LOOKS of {name!r} names no alarm {look!r}")
            found.setdefault(name, {})[code] = IN_USE_COLOUR if look == IN_USE else COLOURS[priorities[look]]
    return found


def alarms_of(kind: Kind) -> Sequence[AlarmDefinition]:
    """The kind's alarms: boards draw the limits that the rules use."""
    return tuple(devices.role(kind.name, "rules").ALARMS)


def build_kind(kind: Kind, language: str) -> dict[str, Any]:
    """The board of all devices of a kind; raises BoardError."""
    subject = Subject(kind, alarms_of(kind), language)
    title = subject.say(KIND_TITLE).format(title=kind.title.in_language(language))
    question = subject.say(KIND_QUESTION)
    frame = Frame(uid_of(kind.name), title, question, language, time_from="now-24h", ranges=RANGES_OF_MANY)
    frame.devices(kind.name, many=True)
    frame.link(to_application("alarms", language))
    frame.add(common_rows.how_it_fares(subject))
    frame.add(*(drawing_of(subject, panel) for panel in panels_of(kind)))
    frame.add(common_rows.open_alarms(subject), common_rows.alarms_by_name(subject))
    return frame.json()


def build_device(kind: Kind, language: str) -> dict[str, Any]:
    """The board of one device of a kind; raises BoardError."""
    subject = Subject(kind, alarms_of(kind), language, one_device=True, actions=actions_of(kind))
    title = kind.title.in_language(language)
    frame = Frame(
        device_uid_of(kind.name), subject.say(DEVICE_TITLE).format(title=title), subject.say(DEVICE_QUESTION), language
    )
    frame.devices(kind.name, many=False)
    frame.link(to_kind(kind.name, LINK["kind"].in_language(language)))
    frame.link(to_application_device(language, "${device}"))
    _annotate(frame, kind, language)
    scales = [scale_of(kind, subject.alarms, name, language) for name in drawn_fields(kind)]
    frame.add(_latest(subject, scales))
    own = [drawing_of(subject, panel) for panel in device_panels_of(kind)]
    frame.add(*_values(subject, [scale for scale in scales if scale.numeric and scale.field not in POSITION]))
    if not_numbers := [scale for scale in scales if not scale.numeric]:
        frame.add(_states(subject, not_numbers))
    if set(POSITION) <= {scale.field for scale in scales}:
        frame.add(_track(subject))
    frame.add(*own, replace(common_rows.open_alarms(subject), width=8), _orders(subject), _commands(subject))
    return frame.json()


def drawn_fields(kind: Kind) -> list[str]:
    """Fields of the kind's reading that the series hold: numbers, flags, texts of a closed list."""
    return [name for name, field in kind.reading.model_fields.items() if name != "at" and _is_drawn(field)]


def _is_drawn(field: FieldInfo) -> bool:
    """Sequences are counted in the series, nested models left to the twin."""
    plain = get_origin(field.annotation) or field.annotation
    return not (isinstance(plain, type) and issubclass(plain, (tuple, list, BaseModel)))


def _latest(subject: Subject, scales: Sequence[Scale]) -> Drawing:
    columns = [
        Column(scale.field, shown_as("last", scale), scale.label) for scale in scales if scale.field not in POSITION
    ]
    text = influxql.select(subject.kind.name, columns, condition=CHOSEN)
    words = subject.say(LATEST_WORDS)
    return Drawing(
        title=subject.say(LATEST),
        description="\n".join([words, "", *limit_lines(scales, subject.language)]),
        style="stat",
        queries=(Query("A", text, alias="$col"),),
        scales=tuple(scale for scale in scales if scale.field not in POSITION),
        codes=_words(subject, scales),
        code_colours=_colours(subject, scales),
        no_data=subject.say(NO_READINGS),
        whole_fields=True,
        width=24,
        height=7,
    )


def _values(subject: Subject, scales: Sequence[Scale]) -> list[Drawing]:
    """Graphs of all numbers, like things together: as the kind says, all others by their unit.

    With more graphs than the board has room for, the last ones share one.
    """
    own = devices.role(subject.kind.name, "panels")
    by_field = {scale.field: scale for scale in scales}
    meters = [name for name in getattr(own, "METERS", ()) if name in by_field]
    groups = [[by_field[name] for name in names] for names in getattr(own, "TOGETHER", ())]
    taken = {scale.field for group in groups for scale in group} | set(meters)
    by_unit: dict[str, list[Scale]] = {}
    for scale in scales:
        if scale.field not in taken:
            by_unit.setdefault(scale.unit, []).append(scale)
    for alike in by_unit.values():
        groups += [alike[start : start + VALUES_PER_PANEL] for start in range(0, len(alike), VALUES_PER_PANEL)]
    room = VALUE_PANELS_MAX - len(meters)
    if len(groups) > room:
        groups[room - 1 :] = [[scale for group in groups[room - 1 :] for scale in group]]
    return [*(_graph(subject, group) for group in groups), *(_meter(subject, by_field[name]) for name in meters)]


def _meter(subject: Subject, scale: Scale) -> Drawing:
    """One value that only grows: how near it is to its limit says more than a line."""
    text = influxql.select(
        subject.kind.name, [Column(scale.field, shown_as("last", scale), scale.label)], condition=CHOSEN
    )
    edges = [edge_of(limit) for limit in scale.limits]
    return Drawing(
        title=scale.label,
        description="\n".join([subject.say(METER_WORDS), "", *limit_lines([scale], subject.language)]),
        style="gauge",
        queries=(Query("A", text, alias="$col"),),
        scales=(replace(scale, high=METER_SHARE * max(edges)) if edges else scale,),
        no_data=subject.say(NO_READINGS),
        width=8,
    )


def _graph(subject: Subject, scales: Sequence[Scale]) -> Drawing:
    columns = [Column(scale.field, shown_as("mean", scale), scale.label) for scale in scales]
    text = influxql.select(subject.kind.name, columns, condition=CHOSEN, by=[STEP])
    words = subject.say(VALUES_WORDS)
    lines = limit_lines(scales, subject.language)
    separator = "、" if subject.language == "zh" else ", "
    return Drawing(
        title=separator.join(scale.label for scale in scales),
        description="\n".join([words, "", *lines]) if lines else words,
        style="timeseries",
        queries=(Query("A", text, alias="$col"),),
        scales=tuple(scales),
        no_data=subject.say(NO_READINGS),
        interval_s=subject.kind.reading_interval_s,
        gap_ms=max(GAP_MS_MIN, subject.kind.silent_after_s * 1000),
        right=tuple(scale.label for scale in scales[1:] if not scale.unit == scales[0].unit == "percent"),
        width=8,
    )


def _words(subject: Subject, scales: Sequence[Scale]) -> dict[str, Mapping[str, str]]:
    """Words for the codes and flags among these fields."""
    yes_no = {code: subject.say(word) for code, word in YES_NO.items()}
    own = {field: {code: subject.say(word) for code, word in words.items()} for field, words in codes_of(subject.kind)}
    return {scale.label: own.get(scale.field, yes_no) for scale in scales if not scale.numeric}


def _colours(subject: Subject, scales: Sequence[Scale]) -> dict[str, Mapping[str, str]]:
    """What of these flags and states is worth a look, and how much."""
    looks, codes = looks_of(subject.kind), _words(subject, scales)
    return {
        scale.label: {code: looks.get(scale.field, {}).get(code, CALM) for code in codes[scale.label]}
        for scale in scales
        if not scale.numeric
    }


def _states(subject: Subject, scales: Sequence[Scale]) -> Drawing:
    columns = [Column(scale.field, "last", scale.label) for scale in scales]
    text = influxql.select(subject.kind.name, columns, condition=CHOSEN, by=[STEP])
    return Drawing(
        title=subject.say(STATES),
        description=subject.say(STATES_WORDS),
        style="states",
        queries=(Query("A", text, alias="$col"),),
        scales=tuple(scales),
        codes=_words(subject, scales),
        code_colours=_colours(subject, scales),
        no_data=subject.say(NO_READINGS),
        interval_s=subject.kind.reading_interval_s,
        width=16,
    )


def _track(subject: Subject) -> Drawing:
    columns = [Column(field, "last", field) for field in POSITION]
    text = influxql.select(subject.kind.name, columns, condition=CHOSEN, by=[STEP])
    return Drawing(
        title=subject.say(TRACK),
        description=subject.say(TRACK_WORDS),
        style="geomap",
        queries=(Query("A", text, result_format="table"),),
        no_data=subject.say(NO_READINGS),
        unit="degree",
        points_max=TRACK_POINTS,
        interval_s=subject.kind.reading_interval_s,
        width=8,
        height=9,
    )


def _orders(subject: Subject) -> Drawing:
    return _steps(subject, ORDER_STEP, ("skill", "priority", "step", "state"), (ORDERS, ORDERS_WORDS, NO_ORDERS))


def _commands(subject: Subject) -> Drawing:
    return _steps(subject, COMMAND_STEP, ("action", "step", "duration_ms"), (COMMANDS, COMMANDS_WORDS, NO_COMMANDS))


def _steps(subject: Subject, measurement: Measurement, names: Sequence[str], words: tuple[Text, Text, Text]) -> Drawing:
    """The newest steps of one measurement, as a list."""
    title, description, nothing = words
    say = subject.say
    codes = subject.words_of(measurement, names)
    headings = {name: say(COLUMN.get(name) or LABELS[measurement.name, name]) for name in names}
    return Drawing(
        title=say(title),
        description=say(description),
        style="table",
        queries=(Query("A", influxql.recent(measurement.name, names, condition=CHOSEN), result_format="table"),),
        no_data=say(nothing),
        codes=codes,
        headings={"Time": say(COLUMN["time"]), **headings},
        unit="ms" if "duration_ms" in names else "",
        width=8,
        height=9,
    )


@dataclass(frozen=True, slots=True)
class _Mark:
    """Steps of one measurement that are drawn as vertical lines."""

    name: Text
    colour: str
    measurement: Measurement
    text: str
    """Column that is the mark's words."""
    tags: tuple[str, ...]
    field: str
    """A field of every point: InfluxQL answers nothing to a query that names tags alone."""
    steps: tuple[str, ...] = ()
    enabled: bool = True


MARKS: Final = (
    _Mark(
        Text("报警", "Alarms"), "red", ALARM_STEP, "key", ("priority", "step"), "alarm_id",
        ("activate", "return", "return_latched"),
    ),
    _Mark(
        ORDERS, "blue", ORDER_STEP, "skill", ("step",), "order_id",
        ("assign", "start", "complete", "give_up", "reopen"),
    ),
    _Mark(
        COMMANDS, "purple", COMMAND_STEP, "action", ("step",), "command_id",
        ("succeeded", "failed", "refused", "expired"),
        enabled=False,
    ),
    _Mark(Text("固件", "Firmware"), "green", FIRMWARE_STEP, "firmware", ("firmware_before",), "firmware"),
)  # fmt: skip
CALLS: Final = _Mark(Text("呼叫", "Calls"), "dark-red", CALL_STEP, "step", ("purpose",), "call_id", CALL_STEPS)


def _annotate(frame: Frame, kind: Kind, language: str) -> None:
    """What happened to the device, as vertical lines."""
    for mark in (*MARKS, *([CALLS] if kind.emergency else [])):
        condition = influxql.condition_of([Where("step", mark.steps)] if mark.steps else [], CHOSEN)
        columns = dict.fromkeys([mark.text, *mark.tags, mark.field])
        query = influxql.recent(mark.measurement.name, list(columns), condition=condition)
        frame.annotate(
            mark.name.in_language(language), mark.colour, query, text=mark.text, tags=mark.tags, enabled=mark.enabled
        )
