"""The Grafana boards: one per kind from its `panels.py`, and an overview of all. Pure: same kinds, same JSON."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, GraphDrawStyle, StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.dashboard import Threshold as Step

import devices
from dashboards import influxql
from dashboards.influxql import DATASOURCE, Query, QueryBuilder
from dashboards.panels import Subject, build_panel
from dashboards.scales import BoardError, is_number
from fleet.kind import AlarmDefinition, Kind, Panel, Text

LANGUAGES: Final = ("zh", "en")
PANELS_MAX: Final = 12
OVERVIEW_UID: Final = "fleet-overview"
TAG: Final = "gaoxin-fleet"
BOARD_WIDTH: Final = 24
NUMBERS, MAP, GRAPHS = (4, 6), (1, 12), (2, 8)
ROWS: Final[Mapping[str, tuple[int, int]]] = {
    "stat": NUMBERS,
    "gauge": NUMBERS,
    "geomap": MAP,
    "timeseries": GRAPHS,
    "bar": GRAPHS,
    "table": GRAPHS,
}
"""Style → (panels in one row at most, height)."""
REFRESH: Final = "30s"

OVERVIEW_TITLE: Final = Text("设备总览", "Fleet overview")
REPORTING: Final = Text("在线上报的设备", "Devices reporting")
REPORTING_WORDS: Final = Text(
    "每类设备在其静默时限内有数据的数量", "Per kind: devices with data within the time after which they count as silent"
)
READINGS: Final = Text("上报数据量", "Readings")
READINGS_WORDS: Final = Text("每个时间段内收到的数据条数", "Readings received per time step")
SOURCE: Final = Text("数据源", "Data source")
DEVICE: Final = Text("设备", "Device")


def uid_of(kind_name: str) -> str:
    """Fixed identity of a kind's board, so that links and a later publish find it again."""
    return f"fleet-{kind_name.replace('_', '-')}"


def build_all(language: str) -> dict[str, dict[str, Any]]:
    """Every board by its uid, as Grafana's JSON model, with texts in `zh` or `en`.

    Raises:
        BoardError: a kind's panels ask for what its reading does not have.
    """
    kinds = list(devices.kinds().values())
    boards = {OVERVIEW_UID: _overview(kinds, language)}
    for kind in kinds:
        boards[uid_of(kind.name)] = build_kind(kind, language)
    return boards


def build_kind(kind: Kind, language: str) -> dict[str, Any]:
    """The board of one kind; raises BoardError."""
    panels = panels_of(kind)
    if not 0 < len(panels) <= PANELS_MAX:
        raise BoardError(f"{kind.name}: {len(panels)} panels; a board has 1 to {PANELS_MAX}")
    subject = Subject(kind, alarms_of(kind), language)
    board = _board(uid_of(kind.name), kind.title.in_language(language), language).tags([TAG, kind.name])
    board.with_variable(_device_choice(kind, language))
    ordered = in_reading_order(panels)
    for panel, position in zip(ordered, layout([panel.style for panel in ordered]), strict=True):
        board.with_panel(build_panel(subject, panel).grid_pos(position))
    return _json(board)


def in_reading_order(panels: Sequence[Panel]) -> list[Panel]:
    """Numbers first, then maps, then everything else; inside each as the kind wrote them."""
    return sorted(panels, key=lambda panel: (NUMBERS, MAP, GRAPHS).index(ROWS[panel.style]))


def layout(styles: Sequence[str], top: int = 0) -> list[GridPos]:
    """Positions of panels from the row `top` down: like with like in full rows, so that nothing hangs over."""
    positions: list[GridPos] = []
    for group in (list(members) for _, members in itertools.groupby(styles, key=lambda style: ROWS[style])):
        in_row_max, height = ROWS[group[0]]
        for start in range(0, len(group), in_row_max):
            in_row = len(group[start : start + in_row_max])
            width = BOARD_WIDTH // in_row
            positions += [GridPos(h=height, w=width, x=width * place, y=top) for place in range(in_row)]
            top += height
    return positions


def panels_of(kind: Kind) -> Sequence[Panel]:
    """The rows of a kind's board."""
    return tuple(devices.role(kind.name, "panels").PANELS)


def alarms_of(kind: Kind) -> Sequence[AlarmDefinition]:
    """The kind's alarms: boards draw the limits that the rules use."""
    return tuple(devices.role(kind.name, "rules").ALARMS)


def _overview(kinds: Sequence[Kind], language: str) -> dict[str, Any]:
    board = _board(OVERVIEW_UID, OVERVIEW_TITLE.in_language(language), language).tags([TAG])
    reporting = stat.Panel().title(REPORTING.in_language(language)).description(REPORTING_WORDS.in_language(language))
    reporting.datasource(DATASOURCE).grid_pos(GridPos(h=6, w=BOARD_WIDTH, x=0, y=0)).unit("short").no_value("0")
    reporting.color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    reporting.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(""))
    reporting.thresholds(
        dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Step(value=None, color="blue")])
    )
    readings = (
        timeseries.Panel().title(READINGS.in_language(language)).description(READINGS_WORDS.in_language(language))
    )
    readings.datasource(DATASOURCE).grid_pos(GridPos(h=8, w=BOARD_WIDTH, x=0, y=6)).unit("short").interval("1m")
    readings.draw_style(GraphDrawStyle.BARS).fill_opacity(60)
    readings.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, kind in enumerate(kinds):
        name, field = kind.title.in_language(language), counted_field(kind)
        recent = f"time > now() - {round(kind.silent_after_s)}s"
        texts = (
            influxql.now_of_all(kind.name, field, name, "count", recent),
            influxql.readings_over_time(kind.name, field, name),
        )
        now, over_time = (QueryBuilder(Query(ref_id=f"K{number}", text=text, alias=name)) for text in texts)
        reporting.with_target(now)
        readings.with_target(over_time)
    board.with_panel(reporting).with_panel(readings)
    numbers = [
        (kind, next(panel for panel in panels_of(kind) if panel.style in {"gauge", "stat"}))
        for kind in kinds
        if any(panel.style in {"gauge", "stat"} for panel in panels_of(kind))
    ][: PANELS_MAX - 2]
    for (kind, panel), position in zip(numbers, layout(["stat"] * len(numbers), top=14), strict=True):
        subject = Subject(kind, alarms_of(kind), language, condition=influxql.IN_RANGE)
        board.with_panel(build_panel(subject, panel).grid_pos(position))
    return _json(board)


def counted_field(kind: Kind) -> str:
    """A field that every reading of the kind has, so that counting it counts readings."""
    for name, field in kind.reading.model_fields.items():
        if (
            name != "at"
            and field.is_required()
            and is_number(field.annotation)
            and type(None) not in _members(field.annotation)
        ):
            return name
    raise BoardError(f"{kind.name}: its reading has no number that is always present")


def _members(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def _board(uid: str, title: str, language: str) -> dashboard.Dashboard:
    source = dashboard.DatasourceVariable("datasource").type("influxdb").label(SOURCE.in_language(language))
    boards = dashboard.DashboardLink("").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True)
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .time("now-6h", "now")
        .timezone("browser")
        .refresh(REFRESH)
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(boards)
        .with_variable(source)
    )


def _device_choice(kind: Kind, language: str) -> dashboard.QueryVariable:
    choice = dashboard.QueryVariable("device").label(DEVICE.in_language(language)).datasource(DATASOURCE)
    choice.query(influxql.devices_of(kind.name)).multi(True).include_all(True).all_value(".*")
    choice.refresh(VariableRefresh.ON_DASHBOARD_LOAD).sort(VariableSort.ALPHABETICAL_ASC)
    return choice.current(VariableOption(selected=True, text="All", value="$__all"))


def _json(board: dashboard.Dashboard) -> dict[str, Any]:
    model = board.build()
    for number, panel in enumerate(model.panels or [], 1):
        panel.id_val = number  # Grafana numbers them at import otherwise, and links to a panel would change
    loaded: dict[str, Any] = json.loads(json.dumps(model, cls=JSONEncoder))
    return loaded
