"""From a drawing to a Grafana panel: one function per style. Panels that come with Grafana only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    common,
    dashboard,
    gauge,
    geomap,
    histogram,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models.common import (
    AxisPlacement,
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    FrameGeometrySourceMode,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    SortOrder,
    StackingMode,
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
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.dashboard import Threshold as Step

from dashboards.drawings import Drawing
from dashboards.influxql import DATASOURCE, DEVICE_TAG, QueryBuilder
from dashboards.scales import CALM, CALM_WORD, PLAIN, Scale

POSITION: Final = ("latitude", "longitude")
GRAPHS: Final = frozenset({"timeseries", "columns", "bar"})
OVER_TIME: Final = frozenset({"timeseries", "columns", "states"})
POINTS_MAX: Final = 300
"""Steps of a graph: five minutes each over a day. A screen could show more, and nobody would see it."""
EVERY_FIELD_BUT_TIME: Final = "/^(?!Time$).*$/"
EMPTY_CELL: Final = "–"

PanelBuilder = (
    timeseries.Panel | stat.Panel | gauge.Panel | bargauge.Panel | table.Panel | barchart.Panel | geomap.Panel
    | histogram.Panel | statetimeline.Panel
)  # fmt: skip


def draw(drawing: Drawing) -> PanelBuilder:
    """Grafana's panel of a drawing."""
    builder = _STYLES[drawing.style](drawing)
    builder.title(drawing.title).description(drawing.description).datasource(DATASOURCE).no_value(drawing.no_data)
    for query in drawing.queries:
        builder.with_target(QueryBuilder(query))
    if drawing.interval_s:
        builder.interval(_span(drawing.interval_s))
    if drawing.points_max or drawing.style in OVER_TIME:
        builder.max_data_points(drawing.points_max or POINTS_MAX)
    if drawing.time_from:
        builder.time_from(drawing.time_from)
    _dress(builder, drawing)
    return builder


def _span(seconds: float) -> str:
    """As Grafana's interval reads it; the widest unit that fits."""
    whole = max(1, round(seconds))
    for width, unit in ((3_600, "h"), (60, "m")):
        if whole % width == 0:
            return f"{whole // width}{unit}"
    return f"{whole}s"


def _dress(builder: Any, drawing: Drawing) -> None:
    """Units, limits and names: of the whole panel for one scale, else by column; links by column or everywhere."""
    _scale(builder, drawing)
    for raw, shown in drawing.names.items():
        found = [DynamicConfigValue(id_val="displayName", value=shown)]
        if raw in drawing.colours:
            found.append(_fixed(drawing.colours[raw]))
        builder.override_by_name(raw, found)
    for label, colour in drawing.colours.items():
        if label not in drawing.names:
            builder.override_by_name(label, [_fixed(colour)])
    _translate(builder, drawing)
    _link(builder, drawing)


def _scale(builder: Any, drawing: Drawing) -> None:
    """Units, limits, and where axes begin: at 0 for all that cannot be less."""
    if drawing.style in {"table", "geomap"} or len(drawing.scales) != 1:
        if drawing.unit:
            builder.unit(drawing.unit)
        if drawing.style != "states":
            builder.thresholds(_thresholds((Step(value=None, color=PLAIN),)))
        for scale in drawing.scales:
            builder.override_by_name(scale.label, _properties(drawing, scale))
    else:
        (scale,) = drawing.scales
        builder.unit(drawing.unit or scale.unit).thresholds(_thresholds(scale.steps))
    if drawing.style in GRAPHS and all(scale.low == 0 for scale in drawing.scales):
        builder.min(0)


def _translate(builder: Any, drawing: Drawing) -> None:
    """Words in place of codes: by column, or in the whole panel where series are called after their tags as well."""
    if drawing.style == "states" and not drawing.code_colours:
        merged = {code: word for codes in drawing.codes.values() for code, word in codes.items()}
        builder.mappings([_mapping(merged, drawing)])
        return
    for column, codes in drawing.codes.items():
        shown = drawing.headings.get(column, column)
        builder.override_by_name(
            shown, [DynamicConfigValue(id_val="mappings", value=[_mapping(codes, drawing, column)])]
        )


def _link(builder: Any, drawing: Drawing) -> None:
    if not drawing.links:
        return
    if not drawing.link_column:
        links = [dashboard.DashboardLink(one.title).url(one.url).target_blank(one.blank) for one in drawing.links]
        builder.data_links(links)
        return
    values = [{"title": one.title, "url": one.url, "targetBlank": one.blank} for one in drawing.links]
    shown = drawing.headings.get(drawing.link_column, drawing.link_column)
    builder.override_by_name(shown, [DynamicConfigValue(id_val="links", value=values)])


def _properties(drawing: Drawing, scale: Scale) -> list[DynamicConfigValue]:
    steps = {"mode": ThresholdsMode.ABSOLUTE, "steps": list(scale.steps)}
    found = [
        DynamicConfigValue(id_val="unit", value=scale.unit),
        DynamicConfigValue(id_val="thresholds", value=steps),
    ]
    if drawing.style in GRAPHS and scale.low == 0:
        found.append(DynamicConfigValue(id_val="min", value=0))
    if scale.label in drawing.right:
        found.append(DynamicConfigValue(id_val="custom.axisPlacement", value=AxisPlacement.RIGHT))
    if drawing.style == "timeseries" and scale.limits:
        found.append(
            DynamicConfigValue(id_val="custom.thresholdsStyle", value={"mode": GraphThresholdsStyleMode.DASHED})
        )
    if drawing.style == "table" and scale.limits:
        background = TableColoredBackgroundCellOptions(mode=TableCellBackgroundDisplayMode.BASIC)
        found.append(DynamicConfigValue(id_val="custom.cellOptions", value=background))
    return found


def _fixed(colour: str) -> DynamicConfigValue:
    return DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


def _mapping(codes: Mapping[str, str], drawing: Drawing, column: str = "") -> ValueMap:
    colours = dict(drawing.code_colours.get(column, drawing.colours))
    if drawing.style == "stat":
        colours = {code: CALM_WORD if colour == CALM else colour for code, colour in colours.items()}
    return ValueMap(
        options={
            code: ValueMappingResult(text=word, color=colours.get(code), index=index)
            for index, (code, word) in enumerate(codes.items())
        }
    )


def _thresholds(steps: Sequence[Step]) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(steps))


def _timeseries(drawing: Drawing) -> PanelBuilder:
    builder = timeseries.Panel().line_width(1).show_points(VisibilityMode.AUTO)
    builder.fill_opacity(0 if drawing.crowded else 10)
    if drawing.gap_ms:
        builder.span_nulls(drawing.gap_ms)
    if len(drawing.scales) == 1 and drawing.scales[0].limits:
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return _over_time(builder, drawing)


def _columns(drawing: Drawing) -> PanelBuilder:
    """Counts per time step, one column on another."""
    return _over_time(timeseries.Panel().draw_style(GraphDrawStyle.BARS).fill_opacity(70).line_width(0), drawing)


def _over_time(builder: timeseries.Panel, drawing: Drawing) -> timeseries.Panel:
    if drawing.stacked:
        builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    builder.legend(_legend(shown=not drawing.crowded))
    return builder.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))


def _reduced(builder: stat.Panel | gauge.Panel | bargauge.Panel, drawing: Drawing) -> None:
    fields = EVERY_FIELD_BUT_TIME if drawing.whole_fields else ""
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields))
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))


def _stat(drawing: Drawing) -> PanelBuilder:
    builder = stat.Panel().color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    builder.text_mode(BigValueTextMode.VALUE_AND_NAME).orientation(VizOrientation.AUTO)
    _reduced(builder, drawing)
    return builder


def _gauge(drawing: Drawing) -> PanelBuilder:
    builder = gauge.Panel().show_threshold_markers(True)
    _reduced(builder, drawing)
    low = [scale.low for scale in drawing.scales if scale.low is not None]
    high = [scale.high for scale in drawing.scales if scale.high is not None]
    if low:
        builder.min(min(low))
    if high:
        builder.max(max(high))
    return builder


def _ranking(drawing: Drawing) -> PanelBuilder:
    """One horizontal bar per series, with room for its name."""
    builder = bargauge.Panel().display_mode(BarGaugeDisplayMode.BASIC).orientation(VizOrientation.HORIZONTAL).min(0)
    _reduced(builder, drawing)
    return builder


def _table(drawing: Drawing) -> PanelBuilder:
    builder = table.Panel().filterable(True)
    builder.override_by_regexp(".*", [DynamicConfigValue(id_val="noValue", value=EMPTY_CELL)])
    _organize(builder, drawing)
    return builder


def _bar(drawing: Drawing) -> PanelBuilder:
    """One bar per row of a table: the worst devices, the commonest alarms."""
    builder = barchart.Panel().legend(_legend(shown=False)).x_tick_label_rotation(-45)
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    _organize(builder, drawing)
    if drawing.scales:  # the database answers in no order of value
        order = [{"field": drawing.scales[0].label, "desc": not drawing.lowest_first}]
        builder.with_transformation(DataTransformerConfig(id_val="sortBy", options={"fields": {}, "sort": order}))
    shown = drawing.headings.get(drawing.link_column or DEVICE_TAG, drawing.link_column or DEVICE_TAG)
    return builder.x_field(shown).orientation(VizOrientation.AUTO).show_value(VisibilityMode.AUTO)


def _histogram(_drawing: Drawing) -> PanelBuilder:
    builder = histogram.Panel().bucket_count(10).combine(True).fill_opacity(70)
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return builder.legend(_legend(shown=False))


def _states(_drawing: Drawing) -> PanelBuilder:
    builder = statetimeline.Panel().merge_values(True).show_value(VisibilityMode.AUTO).fill_opacity(70)
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    return builder.legend(_legend(shown=False))


def _geomap(drawing: Drawing) -> PanelBuilder:
    builder = geomap.Panel()
    location = common.FrameGeometrySource().mode(FrameGeometrySourceMode.COORDS)
    location.latitude("latitude").longitude("longitude")
    coloured = next((scale for scale in drawing.scales if scale.numeric and scale.field not in POSITION), None)
    config: dict[str, Any] = {"showLegend": coloured is not None}
    if coloured is not None:
        config["style"] = {
            "color": {"field": coloured.label, "fixed": PLAIN},
            "size": {"fixed": 6, "min": 2, "max": 15},
        }
    markers = common.MapLayerOptions().type("markers").name(drawing.title).config(config)
    builder.layers([markers.location(location).tooltip(True)])
    # `default` is what the server names as its base layer, so that one setting serves every map.
    builder.basemap(common.MapLayerOptions().type("default").name("base"))
    builder.view(geomap.MapViewConfig().id("fit").all_layers(True).zoom(14))
    _organize(builder, drawing)
    return builder


def _organize(builder: Any, drawing: Drawing) -> None:
    """Columns under the names people use, without the ones that say nothing."""
    options = {
        "excludeByName": dict.fromkeys(drawing.hidden, True),
        "renameByName": {raw: shown for raw, shown in drawing.headings.items() if raw not in drawing.hidden},
    }
    builder.with_transformation(DataTransformerConfig(id_val="organize", options=options))


_STYLES: Final[Mapping[str, Callable[[Drawing], PanelBuilder]]] = {
    "timeseries": _timeseries,
    "columns": _columns,
    "stat": _stat,
    "gauge": _gauge,
    "ranking": _ranking,
    "table": _table,
    "bar": _bar,
    "geomap": _geomap,
    "histogram": _histogram,
    "states": _states,
}


def _legend(*, shown: bool) -> common.VizLegendOptions:
    return common.VizLegendOptions().show_legend(shown).display_mode(LegendDisplayMode.LIST)
