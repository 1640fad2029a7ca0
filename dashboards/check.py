"""Whether boards are whole, and what their queries answer on a database. Pure: the database comes as a function.

`faults_of` looks at the JSON alone; `run_board` runs every query of a board as Grafana would and reports each one.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dashboards.queries import (
    BOARD_WIDTH,
    BoardQuery,
    Filled,
    FillError,
    Span,
    Variable,
    choose,
    fill,
    panels_in,
    queries_of,
    variable_names,
)

UID: Final = re.compile(r"^[a-z][a-z0-9-]{0,39}$")
"""Grafana allows 40 characters; lower case so that links and files have one spelling."""
PANELS_MAX: Final = 12
CORE_PANELS: Final = frozenset({
    "barchart", "bargauge", "gauge", "geomap", "heatmap", "histogram", "piechart", "stat", "state-timeline",
    "status-history", "table", "text", "timeseries", "trend", "xychart",
})  # fmt: skip
"""Panels that come with Grafana: no plug-in has to be installed."""
MACROS: Final = frozenset({
    "timeFilter", "interval", "__interval", "__interval_ms", "__from", "__to", "__range", "__range_s", "__range_ms",
})  # fmt: skip
_LINKED_BOARD: Final = re.compile(r"(?<![\w/])/?d/([A-Za-z0-9_-]+)")
_OPTION_NAMES: Final = frozenset({
    "__data", "__field", "__series", "__value", "__all_variables", "__url_time_range", "__from", "__to", "__dashboard",
    "__user", "__org", "__name", "__timezone", "__cell", "__interval",
})  # fmt: skip
"""What links and titles may use besides the board's own variables."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that people would meet in Grafana as a broken board."""

    board: str
    where: str
    words: str


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an InfluxQL answer; times in Unix milliseconds."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a database said to one query; `error` is its own words."""

    series: tuple[Series, ...] = ()
    ms: float = 0.0
    error: str | None = None

    @property
    def rows(self) -> int:
        """How many rows, over all series."""
        return sum(len(one.rows) for one in self.series)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One query of a board, run."""

    filled: Filled
    answer: Answer

    @property
    def query(self) -> BoardQuery:
        """As it stands in the board."""
        return self.filled.query


Run = Callable[[str], Answer]


def series_of(result: Mapping[str, Any]) -> tuple[Series, ...]:
    """The series of one result of InfluxDB's `/query`."""
    return tuple(
        Series(
            str(one.get("name", "")),
            tuple(one["columns"]),
            tuple(tuple(row) for row in one.get("values") or ()),
            dict(one.get("tags") or {}),
        )
        for one in result.get("series") or ()
    )


# --- the database -------------------------------------------------------------------------------------------------


def run_board(
    board: Mapping[str, Any], run: Run, span: Span, chosen: Mapping[str, Sequence[str]] | None = None
) -> list[Outcome]:
    """Every query of a board, variables first because the others need their answers; nothing is left out.

    `chosen`: variable → values, for those that shall not be as the board opens.
    """
    chosen = chosen or {}
    every = queries_of(board)
    by_name = {query.name: query for query in every if query.place == "variable"}
    variables: dict[str, Variable] = {}
    outcomes = []
    for variable in (board.get("templating") or {}).get("list") or ():
        name = str(variable["name"])
        options: list[str] = []
        if name in by_name:
            outcome = _one(by_name[name], variables, span, run)
            outcomes.append(outcome)
            options = sorted(option_values(outcome.answer))
        variables[name] = choose(variable, options, chosen.get(name))
    outcomes += [_one(query, variables, span, run) for query in every if query.place != "variable"]
    return outcomes


def option_values(answer: Answer) -> set[str]:
    """The choices that a variable's query offers: column `value` of SHOW, else the last column."""
    found = set()
    for one in answer.series:
        column = one.columns.index("value") if "value" in one.columns else len(one.columns) - 1
        found |= {str(row[column]) for row in one.rows if row[column] is not None}
    return found


def _one(query: BoardQuery, variables: Mapping[str, Variable], span: Span, run: Run) -> Outcome:
    try:
        filled = fill(query, variables, span)
    except (FillError, ValueError) as error:
        return Outcome(Filled(query, query.text, span, 0), Answer(error=str(error)))
    return Outcome(filled, run(filled.text))


# --- the JSON -----------------------------------------------------------------------------------------------------


def faults_of(boards: Mapping[str, Mapping[str, Any]]) -> list[Fault]:
    """What is wrong with these boards (uid → JSON), each by itself and with the links between them."""
    faults: list[Fault] = []
    titles: dict[str, str] = {}
    for name, board in boards.items():
        uid, title = str(board.get("uid") or ""), str(board.get("title") or "")
        if uid != name or not UID.fullmatch(uid):
            faults.append(Fault(name, "uid", f"{uid!r} is not the fixed uid (a-z, 0-9, -; at most 40)"))
        if not title:
            faults.append(Fault(name, "title", "the board has none"))
        elif title in titles:
            faults.append(Fault(name, "title", f"{title!r} is also the title of {titles[title]}"))
        titles[title] = name
        if not isinstance(board.get("schemaVersion"), int):
            faults.append(Fault(name, "schemaVersion", "missing: Grafana would migrate it as an ancient board"))
        faults += _panel_faults(name, board)
        faults += _variable_faults(name, board)
        faults += _link_faults(name, board, boards.keys())
    return faults


def _panel_faults(name: str, board: Mapping[str, Any]) -> Iterator[Fault]:
    panels = list(panels_in(board))
    if not 0 < len(panels) <= PANELS_MAX:
        yield Fault(name, "panels", f"{len(panels)} of them; a board answers one question with 1 to {PANELS_MAX}")
    ids = [panel.get("id") for panel in panels]
    if len(set(ids)) != len(ids) or None in ids:
        yield Fault(name, "panels", "two panels have one id, or one has none: links to a panel would change")
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        where = f"panel {panel.get('id')} {panel.get('title')!r}"
        if not panel.get("title"):
            yield Fault(name, where, "no title")
        if panel.get("type") not in CORE_PANELS:
            yield Fault(name, where, f"{panel.get('type')!r} is no panel that comes with Grafana")
        if panel.get("type") != "text":
            yield from _drawn_faults(name, where, panel)
        at = panel.get("gridPos") or {}
        if not {"x", "y", "w", "h"} <= at.keys() or at["x"] + at["w"] > BOARD_WIDTH or at["w"] < 1 or at["h"] < 1:
            yield Fault(name, where, f"does not stand on the grid of {BOARD_WIDTH}: {dict(at)}")
            continue
        cells = [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        if below := {taken[cell] for cell in cells if cell in taken}:
            yield Fault(name, where, f"covers {', '.join(sorted(below))}")
        taken.update(dict.fromkeys(cells, where))


def _drawn_faults(name: str, where: str, panel: Mapping[str, Any]) -> Iterator[Fault]:
    if not panel.get("description"):
        yield Fault(name, where, "no description: nobody can say what it shows")
    targets = panel.get("targets") or ()
    if not targets:
        yield Fault(name, where, "no query")
    refs = [target.get("refId") for target in targets]
    if len(set(refs)) != len(refs):
        yield Fault(name, where, "two queries have one refId: Grafana would drop one")
    for target in targets:
        source = target.get("datasource") or panel.get("datasource") or {}
        uid = source.get("uid", "") if isinstance(source, Mapping) else str(source)
        if "${" not in uid and not uid.startswith(("grafana", "--", "__")):
            yield Fault(name, where, f"its data source is {uid!r}, fixed; use the board's variable")
        if not str(target.get("query") or "").strip() and not uid.startswith(("--", "__", "grafana")):
            yield Fault(name, where, f"query {target.get('refId')} is empty")


def _variable_faults(name: str, board: Mapping[str, Any]) -> Iterator[Fault]:
    defined = [str(one.get("name")) for one in (board.get("templating") or {}).get("list") or ()]
    for twice in sorted({one for one in defined if defined.count(one) > 1}):
        yield Fault(name, f"variable {twice}", "defined twice")
    for query in queries_of(board):
        place = f"{query.place} {query.name!r} {query.ref}".rstrip()
        for unknown in sorted(variable_names(query.text) - MACROS - set(defined)):
            yield Fault(name, place, f"${unknown} is no variable of this board and no macro of Grafana's")
        if query.place == "panel" and "imeFilter" not in query.text and "time >" not in query.text:
            yield Fault(name, place, "without $timeFilter: it would read everything there is")


def _link_faults(name: str, board: Mapping[str, Any], known: Collection[str]) -> Iterator[Fault]:
    defined = {str(one.get("name")) for one in (board.get("templating") or {}).get("list") or ()}
    for where, url in _urls(board, "board"):
        for uid in _LINKED_BOARD.findall(url):
            if uid not in known:
                yield Fault(name, where, f"links to the board {uid!r}, which is none of ours")
        for unknown in sorted(variable_names(url.replace("var-", "")) - defined - _OPTION_NAMES):
            yield Fault(name, where, f"its link uses ${unknown}, which the board does not have")


def _urls(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        here = f"panel {value.get('id')} {value.get('title')!r}" if "gridPos" in value else where
        for key, inner in value.items():
            if key == "url" and isinstance(inner, str):
                yield here, inner
            else:
                yield from _urls(inner, here)
    elif isinstance(value, list):
        for inner in value:
            yield from _urls(inner, where)
