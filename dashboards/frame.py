"""The frame that all boards share: variables, links, layout, and the JSON of it."""

import json
from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards import influxql
from dashboards.drawings import Drawing, Link
from dashboards.influxql import DATASOURCE
from dashboards.panels import draw
from dashboards.scales import BoardError
from fleet.text import Text

PANELS_MAX: Final = 12
TAG: Final = "gaoxin-fleet"
BOARD_WIDTH: Final = 24
REFRESH: Final = "30s"
INTERVAL_ONLY: Final = ("auto", "auto_count", "auto_min")
"""Properties that Grafana knows of variables of the type `interval` alone."""
RESOLUTIONS: Final = ("raw", "minute", "hour")
"""Retention policies, from the finest: the values of the variable `resolution`."""
Ranges = tuple[tuple[int, str], ...]
RANGES: Final[Ranges] = ((24, "raw"), (7 * 24, "minute"), (30 * 24, "hour"))
"""(hours shown, resolution that fits): links at the top of every board, so that nobody asks for a month of raw data.
The first is how the board opens."""
RANGES_OF_MANY: Final[Ranges] = ((24, "minute"), (7 * 24, "hour"), (30 * 24, "hour"))
"""The same where every graph reads all devices of a kind; a day of them as measured is a million points."""
RANGE_TITLE: Final = Text("{days} 天", "{days} d")

SOURCE: Final = Text("数据源", "Data source")
DEVICE: Final = Text("设备", "Device")
RESOLUTION: Final = Text("数据粒度", "Resolution")
RESOLUTION_WORDS: Final = Text(
    "raw：原始数据，保留 30 天；minute：按分钟，1 年；hour：按小时，5 年。"
    "呼叫、报警、工单、骑行与订单的每一步在三者中都完整。看得越久选得越粗",
    "raw: as measured, 30 days; minute: 1 year; hour: 5 years. Every step of calls, alarms, orders, rides and "
    "purchases is whole in all three. The longer the time shown, the coarser",
)
APPLICATION: Final = Text("应用地址", "Application")
APPLICATION_WORDS: Final = Text(
    "应用的网址（FLEET_PUBLIC_URL），发布看板时填入",
    "Address of the application (FLEET_PUBLIC_URL), filled in when published",
)


class Frame:
    """One board while it is put together."""

    def __init__(
        self, uid: str, title: str, question: str, language: str, *, time_from: str = "now-6h", ranges: Ranges = RANGES
    ) -> None:
        self._uid, self._language, self._ranges_offered = uid, language, ranges
        self._carried = ["datasource", "application"]
        self._drawings: list[Drawing] = []
        self._annotations: list[dict[str, Any]] = []
        self._board = (
            dashboard.Dashboard(title)
            .uid(uid)
            .description(question)
            .tags([TAG])
            .time(time_from, "now")
            .timezone("browser")
            .refresh(REFRESH)
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .readonly()
            .link(
                dashboard.DashboardLink("")
                .type(DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .keep_time(True)
                .as_dropdown(True)
            )
        )
        source = dashboard.DatasourceVariable("datasource").type("influxdb").label(self._say(SOURCE))
        self._board.with_variable(source).with_variable(self._resolution()).with_variable(self._application())

    def _say(self, text: Text) -> str:
        return text.in_language(self._language)

    def _resolution(self) -> dashboard.CustomVariable:
        choice = dashboard.CustomVariable("resolution").label(self._say(RESOLUTION))
        opens_with = self._ranges_offered[0][1]
        options = [VariableOption(selected=name == opens_with, text=name, value=name) for name in RESOLUTIONS]
        choice.values(",".join(RESOLUTIONS)).options(options).current(options[RESOLUTIONS.index(opens_with)])
        return choice.description(self._say(RESOLUTION_WORDS))

    def _application(self) -> dashboard.TextBoxVariable:
        address = dashboard.TextBoxVariable("application").label(self._say(APPLICATION)).default_value("")
        return address.description(self._say(APPLICATION_WORDS)).current(
            VariableOption(selected=True, text="", value="")
        )

    def _ranges(self) -> None:
        """Longer times at coarser resolution, everything else as it is."""
        carried = "".join(f"&${{{name}:queryparam}}" for name in self._carried)
        for hours, resolution in self._ranges_offered:
            url = f"/d/{self._uid}?from=now-{hours}h&to=now&var-resolution={resolution}{carried}"
            title = self._say(RANGE_TITLE).format(days=hours // 24)
            self._board.link(dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url))

    def devices(self, kind_name: str, *, many: bool) -> None:
        """The choice of the kind's devices: `many` of them, all at first, or one."""
        choice = dashboard.QueryVariable("device").label(self._say(DEVICE)).datasource(DATASOURCE)
        choice.query(influxql.devices_of(kind_name)).sort(VariableSort.ALPHABETICAL_ASC)
        choice.refresh(VariableRefresh.ON_DASHBOARD_LOAD).multi(many).include_all(many)
        if many:  # no pattern for all: measurements that all kinds share are told apart by their devices alone
            choice.current(VariableOption(selected=True, text="All", value="$__all"))
        self._board.with_variable(choice)
        self._carried.append("device")

    def link(self, link: Link) -> None:
        """A link at the top of the board."""
        found = dashboard.DashboardLink(link.title).type(DashboardLinkType.LINK).url(link.url).target_blank(link.blank)
        self._board.link(found)

    def add(self, *drawings: Drawing) -> None:
        """Panels in reading order."""
        self._drawings += drawings

    def annotate(
        self, name: str, colour: str, query: str, *, text: str, tags: Sequence[str], enabled: bool = True
    ) -> None:
        """Marks on every graph. `text` and `tags` are columns of the query."""
        self._annotations.append(
            {
                "name": name,
                "datasource": DATASOURCE,
                "enable": enabled,
                "hide": False,
                "iconColor": colour,
                "query": query,
                "textColumn": text,
                "titleColumn": "",
                "tagsColumn": ",".join(tags),
                "timeEndColumn": "",
                "fromAnnotations": True,
            }
        )

    def json(self) -> dict[str, Any]:
        """Grafana's model of the board.

        Raises:
            BoardError: it has no panel, or more than one can take in.
        """
        if not 0 < len(self._drawings) <= PANELS_MAX:
            raise BoardError(f"{self._uid}: {len(self._drawings)} panels; a board has 1 to {PANELS_MAX}")
        self._ranges()
        for drawing, position in zip(self._drawings, layout(self._drawings), strict=True):
            self._board.with_panel(draw(drawing).grid_pos(position))
        model = self._board.build()
        for number, panel in enumerate(model.panels or [], 1):
            panel.id_val = number  # Grafana numbers them at import otherwise, and links to a panel would change
        loaded: dict[str, Any] = json.loads(json.dumps(model, cls=JSONEncoder))
        for variable in loaded["templating"]["list"]:
            for name in INTERVAL_ONLY:  # the SDK writes them into every variable
                variable.pop(name, None)
        if self._annotations:
            # The SDK's model has no columns of an InfluxQL annotation, so these are added as Grafana stores them.
            loaded["annotations"] = {"list": json.loads(json.dumps(self._annotations, cls=JSONEncoder))}
        return loaded


def layout(drawings: Sequence[Drawing]) -> list[GridPos]:
    """Positions in reading order: rows as full as they get, of one height each, without a ragged edge."""
    rows: list[list[Drawing]] = []
    room = 0
    for drawing in drawings:
        if drawing.width > room:
            rows.append([])
            room = BOARD_WIDTH
        rows[-1].append(drawing)
        room -= drawing.width
    positions: list[GridPos] = []
    top = 0
    for row in rows:
        height = max(drawing.height for drawing in row)
        left = 0
        for place, drawing in enumerate(row):
            wanted = sum(one.width for one in row)
            last = place == len(row) - 1
            width = BOARD_WIDTH - left if last else drawing.width * BOARD_WIDTH // wanted
            positions.append(GridPos(h=height, w=width, x=left, y=top))
            left += width
        top += height
    return positions
