"""From `fleet.kind.Panel` to a Grafana panel: one function per style."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import barchart, common, dashboard, gauge, geomap, stat, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    FrameGeometrySourceMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    SortOrder,
    TableCellBackgroundDisplayMode,
    TableColoredBackgroundCellOptions,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    ThresholdsMode,
)

from dashboards import influxql
from dashboards.influxql import DATASOURCE, DEVICE_TAG, Query, QueryBuilder
from dashboards.scales import BoardError, Scale, limit_text, scale_of
from fleet.kind import AlarmDefinition, Kind, Panel, Text

ARITHMETIC: Final = frozenset({"mean", "min", "max", "sum"})
BAR_DEVICES_MAX: Final = 20  # more bars than that cannot be read
POSITION: Final = ("latitude", "longitude")

DEVICE: Final = Text("设备", "Device")
NO_DATA: Final = Text("无数据", "no data")

PanelBuilder = (
    timeseries.Panel | stat.Panel | gauge.Panel | table.Panel | barchart.Panel | geomap.Panel
)  # what dashboard.with_panel takes


@dataclass(frozen=True, slots=True)
class Subject:
    """What a panel is made from, besides itself. `condition` says which points of the kind it shows."""

    kind: Kind
    alarms: Sequence[AlarmDefinition]
    language: str
    condition: str = influxql.CHOSEN

    def scales(self, panel: Panel) -> list[Scale]:
        """The scales of a panel's fields, which are checked against its style and its way of joining."""
        scales = [scale_of(self.kind, self.alarms, field, self.language) for field in panel.fields]
        name = f"{self.kind.name}: panel {panel.title.en!r}"
        if not scales:
            raise BoardError(f"{name} names no field")
        for scale in scales:
            drawn = panel.style in {"timeseries", "gauge", "bar", "geomap"}
            if not scale.numeric and (panel.aggregate in ARITHMETIC or (drawn and panel.aggregate != "count")):
                raise BoardError(f"{name}: {scale.field!r} is no number, so it has no {panel.aggregate} to draw")
        return scales


def build_panel(subject: Subject, panel: Panel) -> PanelBuilder:
    """The Grafana panel of one row of a kind's `panels.py`.

    Raises:
        BoardError: it names a field that the reading does not have, or that cannot be drawn so.
    """
    return _STYLES[panel.style](subject, panel, subject.scales(panel))


def _timeseries(subject: Subject, panel: Panel, scales: Sequence[Scale]) -> PanelBuilder:
    builder = timeseries.Panel()
    _dress(builder, subject, panel, scales)
    builder.interval(f"{max(1, round(subject.kind.reading_interval_s))}s")
    fields = [(scale.field, scale.label) for scale in scales]
    if panel.per_device:  # one query per field: an alias can name the device or the column, not choose between them
        for ref_id, pair in zip("ABCDEFGH", fields, strict=False):
            alias = f"$tag_{DEVICE_TAG}" if len(fields) == 1 else f"$tag_{DEVICE_TAG} $col"
            _ask(
                builder,
                ref_id,
                influxql.over_time(
                    subject.kind.name, [pair], panel.aggregate, per_device=True, condition=subject.condition
                ),
                alias=alias,
            )
    else:
        _ask(
            builder,
            "A",
            influxql.over_time(
                subject.kind.name, fields, panel.aggregate, per_device=False, condition=subject.condition
            ),
            alias="$col",
        )
    builder.fill_opacity(0 if panel.per_device else 10).line_width(1).show_points(VisibilityMode.AUTO)
    builder.span_nulls(subject.kind.silent_after_s * 1000)  # a longer gap is silence and is shown as one
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    builder.legend(_legend(shown=not panel.per_device and len(scales) > 1))
    builder.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    if len(scales) == 1 and scales[0].limits:
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return builder


def _one_number(builder: stat.Panel | gauge.Panel, subject: Subject, panel: Panel, scales: Sequence[Scale]) -> None:
    _dress(builder, subject, panel, scales)
    for ref_id, scale in zip("ABCDEFGH", scales, strict=False):
        pair = (scale.field, scale.label)
        if panel.per_device:
            _ask(
                builder,
                ref_id,
                influxql.now_per_device(subject.kind.name, [pair], panel.aggregate, subject.condition),
                alias=f"$tag_{DEVICE_TAG}",
            )
        else:
            _ask(
                builder,
                ref_id,
                influxql.now_of_all(subject.kind.name, *pair, panel.aggregate, subject.condition),
                alias="$col",
            )
    fields = "" if all(scale.numeric or panel.aggregate == "count" for scale in scales) else "/.*/"
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields))
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    builder.no_value(NO_DATA.in_language(subject.language))


def _stat(subject: Subject, panel: Panel, scales: Sequence[Scale]) -> PanelBuilder:
    builder = stat.Panel()
    _one_number(builder, subject, panel, scales)
    return builder.color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)


def _gauge(subject: Subject, panel: Panel, scales: Sequence[Scale]) -> PanelBuilder:
    builder = gauge.Panel()
    _one_number(builder, subject, panel, scales)
    if len(scales) == 1:
        if scales[0].low is not None:
            builder.min(scales[0].low)
        if scales[0].high is not None:
            builder.max(scales[0].high)
    return builder.show_threshold_markers(True)


def _table(subject: Subject, panel: Panel, scales: Sequence[Scale]) -> PanelBuilder:
    builder = table.Panel()
    _dress(builder, subject, panel, scales, overrides=True)
    fields = [(scale.field, scale.label) for scale in scales]
    _ask(
        builder,
        "A",
        influxql.now_per_device(subject.kind.name, fields, panel.aggregate, subject.condition),
        result_format="table",
    )
    for scale in scales:
        if scale.limits:
            background = TableColoredBackgroundCellOptions(mode=TableCellBackgroundDisplayMode.BASIC)
            builder.override_by_name(scale.label, [DynamicConfigValue(id_val="custom.cellOptions", value=background)])
    _rows_per_device(builder, subject)
    return builder.filterable(True)


def _bar(subject: Subject, panel: Panel, scales: Sequence[Scale]) -> PanelBuilder:
    if len(scales) != 1:
        raise BoardError(f"{subject.kind.name}: panel {panel.title.en!r}: bars show one field, not {len(scales)}")
    builder = barchart.Panel()
    _dress(builder, subject, panel, scales)
    device = DEVICE.in_language(subject.language)
    text = influxql.extreme_devices(
        subject.kind.name,
        scales[0].field,
        scales[0].label,
        panel.aggregate,
        count=BAR_DEVICES_MAX,
        condition=subject.condition,
    )
    _ask(builder, "A", text, result_format="table")
    _rows_per_device(builder, subject)
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    builder.legend(_legend(shown=False)).x_tick_label_rotation(-45)
    return builder.x_field(device).orientation(VizOrientation.AUTO).show_value(VisibilityMode.NEVER)


def _geomap(subject: Subject, panel: Panel, scales: Sequence[Scale]) -> PanelBuilder:
    if not set(POSITION) <= {scale.field for scale in scales}:
        raise BoardError(f"{subject.kind.name}: panel {panel.title.en!r}: a map needs latitude and longitude")
    builder = geomap.Panel()
    _dress(builder, subject, panel, scales, overrides=True)
    fields = [(scale.field, scale.field if scale.field in POSITION else scale.label) for scale in scales]
    _ask(
        builder,
        "A",
        influxql.now_per_device(subject.kind.name, fields, "last", subject.condition),
        result_format="table",
    )
    location = common.FrameGeometrySource().mode(FrameGeometrySourceMode.COORDS)
    location.latitude("latitude").longitude("longitude")
    markers = common.MapLayerOptions().type("markers").name(subject.kind.title.in_language(subject.language))
    builder.layers([markers.location(location).tooltip(True)])
    builder.basemap(common.MapLayerOptions().type("default").name("map"))
    builder.view(geomap.MapViewConfig().id("fit").all_layers(True).zoom(14))
    _rows_per_device(builder, subject)
    return builder


_STYLES: Final[Mapping[str, Callable[[Subject, Panel, Sequence[Scale]], PanelBuilder]]] = {
    "timeseries": _timeseries,
    "stat": _stat,
    "gauge": _gauge,
    "table": _table,
    "bar": _bar,
    "geomap": _geomap,
}


def _dress(builder: Any, subject: Subject, panel: Panel, scales: Sequence[Scale], *, overrides: bool = False) -> None:
    """Title, size, source, and the units and limits: of the whole panel for one field, else by column name."""
    builder.title(panel.title.in_language(subject.language)).description(describe(subject, panel, scales))
    builder.datasource(DATASOURCE)
    if len(scales) == 1 and not overrides:
        builder.unit("short" if panel.aggregate == "count" else scales[0].unit)
        builder.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(scales[0].steps)))
        return
    for scale in (scale for scale in scales if scale.field not in POSITION):
        steps = {"mode": ThresholdsMode.ABSOLUTE, "steps": list(scale.steps)}
        properties = [
            DynamicConfigValue(id_val="unit", value=scale.unit),
            DynamicConfigValue(id_val="thresholds", value=steps),
        ]
        builder.override_by_name(scale.label, properties)


def describe(subject: Subject, panel: Panel, scales: Sequence[Scale]) -> str:
    """The panel's own words, then every alarm on its fields: limit, name, and what to do."""
    words = panel.description.in_language(subject.language)
    lines = []
    for alarm in (alarm for scale in scales for alarm in scale.limits):
        title, action = alarm.title.in_language(subject.language), alarm.action.in_language(subject.language)
        lines.append(f"- **{title}** ({limit_text(alarm)}): {action}")
    return "\n".join([words, "", *lines]) if lines else words


def _ask(
    builder: Any, ref_id: str, text: str, *, alias: str = "", result_format: influxql.ResultFormat = "time_series"
) -> None:
    builder.with_target(QueryBuilder(Query(ref_id=ref_id, text=text, alias=alias, result_format=result_format)))


def _rows_per_device(builder: PanelBuilder, subject: Subject) -> None:
    """Rows without the query's meaningless time, the tag under the name people use."""
    options = {"excludeByName": {"Time": True}, "renameByName": {DEVICE_TAG: DEVICE.in_language(subject.language)}}
    builder.with_transformation(DataTransformerConfig(id_val="organize", options=options))


def _legend(*, shown: bool) -> common.VizLegendOptions:
    return common.VizLegendOptions().show_legend(shown).display_mode(LegendDisplayMode.LIST)
