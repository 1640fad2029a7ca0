"""From a row of a kind's `panels.py` to a drawing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dashboards import influxql
from dashboards.drawings import GAP_MS_MIN, Drawing, Style
from dashboards.influxql import CHOSEN, DEVICE_TAG, IN_RANGE, STEP, Column, Query
from dashboards.links import to_device
from dashboards.panels import POSITION
from dashboards.scales import YUAN, BoardError, Scale, limit_lines, scale_of, series_scale, shown_as
from dashboards.words import CODES, COLUMN
from fleet.kind import AlarmDefinition, Kind, Panel, Text
from fleet.panel import Where
from fleet.series import GROUP_STATE, Measurement, measurement_named

ARITHMETIC: Final = frozenset({"mean", "min", "max", "sum", "spread", "p50", "p95", "p99"})
DRAWN: Final = frozenset({"timeseries", "gauge", "bar", "histogram", "ranking"})
BAR_DEVICES_MAX: Final = 20  # more bars than that cannot be read
FLEET_POINTS_MAX: Final = 100
"""Steps of a graph that reads every device of a kind: a quarter of an hour each over a day. More only cost."""
REFS: Final = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SIZES: Final[Mapping[str, tuple[int, int]]] = {
    "stat": (6, 5), "gauge": (6, 6), "ranking": (12, 9), "geomap": (12, 11), "table": (12, 10), "list": (12, 9),
}  # fmt: skip
"""Style → (width, height); all others are (12, 8)."""

LOWEST: Final = Text("最低", "lowest")
MIDDLE: Final = Text("平均", "mean")
HIGHEST: Final = Text("最高", "highest")
NO_READINGS: Final = Text("此时段内所选设备没有上报", "none of the chosen devices reported in this time")
NO_STEPS: Final = Text("此时段内没有发生", "nothing of this happened in this time")
NOT_COUNTED: Final = Text(
    "此时段内没有统计：接入服务未运行", "nothing was counted in this time: the service was not running"
)
NO_MATCH: Final = Text("没有符合的设备", "no device is so")


@dataclass(frozen=True, slots=True)
class Subject:
    """What rows are drawn for. `one_device`: the board shows a single device, so nothing leads to it."""

    kind: Kind
    alarms: Sequence[AlarmDefinition]
    language: str
    one_device: bool = False
    actions: Mapping[str, Text] = field(default_factory=dict)
    """Words for the commands of the kind."""

    def say(self, text: Text) -> str:
        """In the board's language."""
        return text.in_language(self.language)

    def words_of(self, measurement: Measurement, columns: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """Words for the columns of a measurement whose values come from a closed list."""
        own = {"key": {alarm.key: alarm.title for alarm in self.alarms}, "action": self.actions}
        found = {}
        for name in columns:
            codes = CODES.get((measurement.name, name)) or own.get(name, {})
            found[name] = {code: self.say(word) for code, word in codes.items() if code}
        return {name: codes for name, codes in found.items() if codes}


def drawing_of(subject: Subject, panel: Panel) -> Drawing:
    """The drawing of one row.

    Raises:
        BoardError: it names a field that there is not, or that cannot be drawn so.
    """
    if panel.groups:
        return _groups(subject, panel)
    row = _Row(subject, panel)
    if not panel.fields:
        raise BoardError(f"{row.name} names no field")
    return row.drawing()


def _sized(drawing: Drawing, style: str) -> Drawing:
    width, height = SIZES.get(style, (12, 8))
    return replace(drawing, width=width, height=height)


def _groups(subject: Subject, panel: Panel) -> Drawing:
    """How many devices are in each group: now, or over time."""
    for group in panel.groups:
        for where in group.where:
            scale_of(subject.kind, subject.alarms, where.name, subject.language)
    if panel.style == "timeseries":
        return _groups_over_time(subject, panel)
    queries = tuple(
        Query(ref, influxql.devices_that(subject.kind.name, group.where, subject.say(group.title)), alias="$col")
        for ref, group in zip(REFS, panel.groups, strict=False)
    )
    return Drawing(
        title=subject.say(panel.title),
        description=subject.say(panel.description),
        unit="short",
        width=12,
        style="stat",
        queries=queries,
        no_data=subject.say(panel.no_data or NO_MATCH),
        colours={subject.say(group.title): group.colour for group in panel.groups},
        height=5,
    )


def _groups_over_time(subject: Subject, panel: Panel) -> Drawing:
    """What the cloud counted: one short series for each group, however many devices there are."""
    if not all(group.key for group in panel.groups):
        raise BoardError(f"{subject.kind.name}: panel {panel.title.en!r}: groups over time need keys")
    keys = tuple(group.key for group in panel.groups)
    condition = influxql.condition_of([Where("kind", subject.kind.name), Where("group", keys)], IN_RANGE)
    column = Column("devices", "mean", "devices")
    text = influxql.select(GROUP_STATE.name, [column], condition=condition, by=[STEP, "group"])
    return Drawing(
        title=subject.say(panel.title),
        description=subject.say(panel.description),
        unit="short",
        width=12,
        style="columns",
        queries=(Query("A", text, alias="$tag_group"),),
        no_data=subject.say(panel.no_data or NOT_COUNTED),
        names={group.key: subject.say(group.title) for group in panel.groups},
        colours={group.key: group.colour for group in panel.groups},
        stacked=True,
        interval_s=GROUP_STATE.every_s or 0,
        points_max=FLEET_POINTS_MAX,
        height=8,
    )


class _Row:
    """One row with fields, of the kind's readings or of another measurement."""

    def __init__(self, subject: Subject, panel: Panel) -> None:
        self.subject, self.panel = subject, panel
        self.name = f"{subject.kind.name}: panel {panel.title.en!r}"
        self.measurement = self._measurement()
        self.source = panel.measurement or subject.kind.name
        self.sampled = self.measurement is None or not self.measurement.is_step
        self.scales = [self._scale(field) for field in panel.fields]
        self.condition = influxql.condition_of(panel.where, CHOSEN)
        self.labels = {scale.field: scale.label for scale in self.scales}

    def _measurement(self) -> Measurement | None:
        if not self.panel.measurement:
            return None
        try:
            found = measurement_named(self.panel.measurement)
        except KeyError:
            raise BoardError(f"{self.name}: no measurement {self.panel.measurement!r} in fleet.series") from None
        for tag in filter(None, [self.panel.by, *(where.name for where in self.panel.where)]):
            if tag not in found.tags and tag not in {field.name for field in found.fields}:
                raise BoardError(f"{self.name}: {found.name!r} has neither a tag nor a field {tag!r}")
        return found

    def _scale(self, field: str) -> Scale:
        panel, language = self.panel, self.subject.language
        if self.measurement is None:
            scale = scale_of(self.subject.kind, self.subject.alarms, field, language)
        else:
            scale = series_scale(self.measurement, field, language)
        if panel.aggregate == "count":
            scale = replace(scale, unit="short")
        joined = panel.style != "list" and panel.aggregate in ARITHMETIC
        if not scale.numeric and (joined or (panel.style in DRAWN and panel.aggregate != "count")):
            raise BoardError(f"{self.name}: {field!r} is no number, so it has no {panel.aggregate} to draw")
        own = panel.labels.get(field)
        return scale.named(own.in_language(language)) if own else scale

    def drawing(self) -> Drawing:
        panel = self.panel
        makers = {
            "timeseries": self._over_time, "stat": self._numbers, "gauge": self._numbers, "ranking": self._ranking,
            "table": self._table, "list": self._list, "geomap": self._map, "bar": self._bar,
            "histogram": self._histogram,
        }  # fmt: skip
        return _sized(makers[panel.style](), panel.style)

    def _base(self, style: Style, queries: Sequence[Query], scales: Sequence[Scale]) -> Drawing:
        subject, panel = self.subject, self.panel
        lines = limit_lines(self.scales, subject.language)
        words = subject.say(panel.description)
        nothing = panel.no_data or (NO_READINGS if self.sampled else NO_STEPS)
        return Drawing(
            title=subject.say(panel.title),
            description="\n".join([words, "", *lines]) if lines else words,
            style=style,
            queries=tuple(queries),
            scales=tuple(scales),
            no_data=subject.say(nothing),
        )

    def _links(self, drawing: Drawing, *, of_series: bool = False, column: str = "") -> Drawing:
        if self.subject.one_device:
            return drawing
        links = to_device(self.subject.kind.name, self.subject.language, of_series=of_series)
        return replace(drawing, links=links, link_column=column)

    def _named(self, drawing: Drawing) -> Drawing:
        """Series that are values of a tag get their words."""
        if not self.panel.by or self.measurement is None:
            return drawing
        codes = CODES.get((self.measurement.name, self.panel.by), {})
        return replace(drawing, names={code: self.subject.say(word) for code, word in codes.items() if code})

    def _over_time(self) -> Drawing:
        panel = self.panel
        step = f"time({panel.every})" if panel.every else STEP
        by = [step, *([DEVICE_TAG] if panel.per_device else []), *([panel.by] if panel.by else [])]
        tags = " ".join(f"$tag_{tag}" for tag in by[1:])
        queries, scales = [], []
        for ref, group in zip(REFS, self._columns(), strict=False):
            several = len(group) > 1 or len(self.scales) > 1 or panel.aggregate == "spread"
            alias = (f"{tags} $col" if several else tags) if tags else "$col"
            text = influxql.select(self.source, group, condition=self.condition, by=by, sampled=self.sampled)
            queries.append(Query(ref, text, alias=alias))
            scales += [self.scales[0].named(column.name) for column in group] if panel.aggregate == "spread" else []
        counted = panel.aggregate in {"count", "sum"} and not self.sampled and panel.stacked
        drawing = self._base("columns" if counted else "timeseries", queries, scales or self.scales)
        alone = panel.aggregate == "spread" and len(self.scales) == 1
        drawing = replace(
            drawing,
            scales=(self.scales[0],) if alone else drawing.scales,
            stacked=counted,
            colours=self._spread_colours(),
            points_max=0 if self.subject.one_device else FLEET_POINTS_MAX,
            crowded=panel.per_device,
            interval_s=self._interval_s(),
            gap_ms=max(GAP_MS_MIN, self.subject.kind.silent_after_s * 1000) if self.measurement is None else 0,
        )
        drawing = self._named(drawing)
        return self._links(drawing, of_series=True) if panel.per_device else drawing

    def _spread_colours(self) -> dict[str, str]:
        """Lowest, mean and highest of one field, told apart at a glance."""
        if self.panel.aggregate != "spread" or len(self.scales) > 1:
            return {}
        return {self.subject.say(LOWEST): "blue", self.subject.say(MIDDLE): "green", self.subject.say(HIGHEST): "red"}

    def _interval_s(self) -> float:
        if self.measurement is None:
            return self.subject.kind.reading_interval_s
        return self.measurement.every_s or (3_600 if self.panel.every else 60)

    def _columns(self) -> list[list[Column]]:
        """Columns per query: an alias can name the device or the column, not choose between them."""
        panel, say = self.panel, self.subject.say
        if panel.aggregate == "spread":
            prefix = [f"{scale.label} " if len(self.scales) > 1 else "" for scale in self.scales]
            # One query each: a database runs a subquery anew for every column around it.
            return [
                [Column(scale.field, aggregate, f"{start}{say(name)}")]
                for scale, start in zip(self.scales, prefix, strict=True)
                for aggregate, name in (("min", LOWEST), ("mean", MIDDLE), ("max", HIGHEST))
            ]
        columns = [Column(scale.field, self._aggregate(scale), scale.label) for scale in self.scales]
        return [[column] for column in columns] if panel.per_device or panel.by else [columns]

    def _aggregate(self, scale: Scale) -> str:
        return shown_as(self.panel.aggregate, scale)

    def _numbers(self) -> Drawing:
        panel = self.panel
        queries = []
        for ref, scale in zip(REFS, self.scales, strict=False):
            if panel.per_device:
                column = Column(scale.field, panel.aggregate, scale.label)
                text = influxql.select(
                    self.source, [column], condition=self.condition, by=[DEVICE_TAG], sampled=self.sampled
                )
                queries.append(Query(ref, text, alias=f"$tag_{DEVICE_TAG}"))
                continue
            if self.sampled:
                column = Column(scale.field, "mean" if panel.aggregate == "last" else panel.aggregate, scale.label)
                text = influxql.totals(self.source, [column], latest_by=DEVICE_TAG, condition=self.condition)
            else:
                column = Column(scale.field, self._aggregate(scale), scale.label)
                text = influxql.select(self.source, [column], condition=self.condition)
            queries.append(Query(ref, text, alias="$col"))
        drawing = self._base("gauge" if panel.style == "gauge" else "stat", queries, self.scales)
        texts = any(not scale.numeric for scale in self.scales) and panel.aggregate != "count"
        drawing = replace(drawing, whole_fields=texts)
        return self._links(drawing, of_series=True) if panel.per_device else drawing

    def _ranking(self) -> Drawing:
        """One bar for every value of a tag, or for every device."""
        tag = self.panel.by or DEVICE_TAG
        scale = self._only("a ranking shows")
        column = Column(scale.field, self._aggregate(scale), scale.label)
        text = influxql.select(self.source, [column], condition=self.condition, by=[tag], sampled=self.sampled)
        drawing = self._named(self._base("ranking", [Query("A", text, alias=f"$tag_{tag}")], self.scales))
        return drawing if self.panel.by else self._links(drawing, of_series=True)

    def _table(self) -> Drawing:
        columns = [Column(scale.field, self._aggregate(scale), scale.label) for scale in self.scales]
        text = influxql.select(self.source, columns, condition=self.condition, by=[DEVICE_TAG], sampled=self.sampled)
        return self._rows("table", text, hidden=("Time",))

    def _list(self) -> Drawing:
        """The newest points of a measurement as they are."""
        if self.measurement is None:
            raise BoardError(f"{self.name}: a list shows points of a measurement; readings have a table")
        tags = [tag for tag in self.measurement.tags if not (self.subject.one_device and tag == DEVICE_TAG)]
        names = [tag for tag in tags if tag != "kind"]
        money = {scale.field for scale in self.scales if scale.unit == YUAN}
        text = influxql.recent(self.source, [*names, *self.panel.fields], condition=self.condition, in_yuan=money)
        drawing = self._rows("table", text, hidden=())
        say = self.subject.say
        codes = self.subject.words_of(self.measurement, [*names, *self.panel.fields])
        headings = {**{tag: say(COLUMN[tag]) for tag in names}, **self.labels, "Time": say(COLUMN["time"])}
        return replace(drawing, codes=codes, headings=headings)

    def _rows(self, style: Style, text: str, hidden: tuple[str, ...]) -> Drawing:
        drawing = self._base(style, [Query("A", text, result_format="table")], self.scales)
        drawing = replace(drawing, headings={DEVICE_TAG: self.subject.say(COLUMN[DEVICE_TAG])}, hidden=hidden)
        return self._links(drawing, column=DEVICE_TAG)

    def _bar(self) -> Drawing:
        scale = self._only("bars show")
        lowest = self.panel.lowest_first or self.panel.aggregate == "min" or _is_bad_below(scale)
        text = influxql.extreme_devices(
            self.source,
            Column(scale.field, self.panel.aggregate, scale.label),
            count=BAR_DEVICES_MAX,
            condition=self.condition,
            lowest=lowest,
            sampled=self.sampled,
        )
        return replace(self._rows("bar", text, hidden=("Time",)), lowest_first=lowest)

    def _only(self, what: str) -> Scale:
        if len(self.scales) != 1:
            raise BoardError(f"{self.name}: {what} one field, not {len(self.scales)}")
        return self.scales[0]

    def _histogram(self) -> Drawing:
        """How the devices' latest values are spread."""
        scale = self._only("a histogram shows")
        column = Column(scale.field, "last", scale.label)
        text = influxql.select(self.source, [column], condition=self.condition, by=[DEVICE_TAG])
        return self._base("histogram", [Query("A", text, result_format="table")], self.scales)

    def _map(self) -> Drawing:
        if not set(POSITION) <= set(self.panel.fields):
            raise BoardError(f"{self.name}: a map needs latitude and longitude")
        columns = [
            Column(scale.field, "last", scale.field if scale.field in POSITION else scale.label)
            for scale in self.scales
        ]
        text = influxql.select(self.source, columns, condition=self.condition, by=[DEVICE_TAG])
        drawing = self._rows("geomap", text, hidden=("Time",))
        return replace(drawing, scales=tuple(scale for scale in self.scales if scale.field not in POSITION))


def _is_bad_below(scale: Scale) -> bool:
    """Whether low values are the ones to worry about."""
    return bool(scale.limits) and all(limit.below is not None for limit in scale.limits)
