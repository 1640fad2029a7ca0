"""Every query of a board, taken from its JSON, with its variables filled in exactly as Grafana would.

Pure: whoever runs them brings the database. See docs/boards.md.
"""

import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from typing import Any, Final, Literal

from dashboards.intervals import as_interval, interval_ms, moment_ms, span_ms

ALL: Final = "$__all"
POINTS_MAX: Final = 1000
"""Grafana asks for as many points as the panel has pixels; so many are a wide panel."""
SCREEN_PIXELS: Final = 1600
BOARD_WIDTH: Final = 24
OWN_SOURCES: Final = frozenset({"grafana", "-- Grafana --", "-- Dashboard --", "__expr__"})
"""Data sources that are Grafana itself: their targets ask no database."""

Place = Literal["panel", "variable", "annotation"]
_VARIABLE: Final = re.compile(r"\$(\w+)|\[\[(\w+)(?::(\w+))?\]\]|\$\{(\w+)(?:\.[^:}]+)?(?::([^}]+))?\}")
_REGEX_SPECIAL: Final = re.compile(r"[\\^$*+?.()|\[\]{}/]")
_IN_REGEX: Final = re.compile(r"[!=]~\s*/((?:\\.|[^/\\])*)/")


class FillError(ValueError):
    """A query names a variable that the board does not have, or a format that Grafana does not know."""


@dataclass(frozen=True, slots=True)
class BoardQuery:
    """One query of a board as it stands in the JSON."""

    board: str
    place: Place
    name: str
    """Title of the panel, name of the variable or annotation."""
    text: str
    ref: str = ""
    panel_id: int | None = None
    panel_type: str = ""
    alias: str = ""
    result_format: str = "time_series"
    least_interval: str = ""
    points_max: int = POINTS_MAX
    time_from: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """A board's variable with what is chosen: `values` are the texts that a query gets; `multi` as Grafana means it."""

    name: str
    values: tuple[str, ...]
    multi: bool = False
    raw: str | None = None
    """Stands in the query as it is: the variable's own "all" value."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time shown: Unix milliseconds, and the zone that `now/d` is meant in."""

    from_ms: int
    to_ms: int
    zone: tzinfo = UTC

    @property
    def length_ms(self) -> int:
        """How long."""
        return self.to_ms - self.from_ms


@dataclass(frozen=True, slots=True)
class Filled:
    """A query that a database can run, with what Grafana computed for it."""

    query: BoardQuery
    text: str
    span: Span
    interval_ms: int
    variables: Mapping[str, Variable] = field(default_factory=dict, compare=False)


def panels_in(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every panel, also those inside rows that are folded; rows themselves are left out."""
    for panel in board.get("panels") or ():
        if panel.get("type") == "row":
            yield from panel.get("panels") or ()
        else:
            yield panel


def queries_of(board: Mapping[str, Any]) -> list[BoardQuery]:
    """All queries of a board: of panels in reading order, then variables, then annotations; hidden ones are none."""
    uid = str(board.get("uid", ""))
    found: list[BoardQuery] = []
    for panel in panels_in(board):
        if panel.get("type") == "text":
            continue
        width = panel.get("gridPos", {}).get("w", BOARD_WIDTH)
        pixels = round(SCREEN_PIXELS * width / BOARD_WIDTH)
        for target in panel.get("targets") or ():
            source = target.get("datasource") or panel.get("datasource") or {}
            if target.get("hide") or (isinstance(source, Mapping) and source.get("uid") in OWN_SOURCES):
                continue
            found.append(
                BoardQuery(
                    uid, "panel", str(panel.get("title", "")), str(target.get("query", "")),
                    str(target.get("refId", "")),
                    panel.get("id"), str(panel.get("type", "")), str(target.get("alias", "")),
                    str(target.get("resultFormat", "time_series")), str(panel.get("interval") or ""),
                    int(panel.get("maxDataPoints") or pixels), str(panel.get("timeFrom") or ""),
                )
            )  # fmt: skip
    found += [
        BoardQuery(uid, "variable", str(variable.get("name", "")), text, result_format="table")
        for variable in (board.get("templating") or {}).get("list") or ()
        if variable.get("type") == "query" and (text := _text_of(variable.get("query")))
    ]
    for annotation in (board.get("annotations") or {}).get("list") or ():
        source = annotation.get("datasource") or {}
        if isinstance(source, Mapping) and source.get("uid") in OWN_SOURCES:
            continue
        if text := _text_of(annotation.get("target")) or _text_of(annotation.get("query")):
            found.append(BoardQuery(uid, "annotation", str(annotation.get("name", "")), text, result_format="table"))
    return found


def _text_of(query: Any) -> str:
    if isinstance(query, str):
        return query
    return str(query.get("query") or "") if isinstance(query, Mapping) else ""


def span_of(board: Mapping[str, Any], now_ms: int, zone: tzinfo = UTC) -> Span:
    """The time that the board shows when it is opened."""
    shown = board.get("time") or {}
    start = moment_ms(str(shown.get("from", "now-6h")), now_ms, zone)
    return Span(start, moment_ms(str(shown.get("to", "now")), now_ms, zone, end=True), zone)


def variable_names(text: str) -> set[str]:
    """Names of all variables and macros in a text."""
    return {next(name for name in (one[1], one[2], one[4]) if name) for one in _VARIABLE.finditer(text)}


def fill(query: BoardQuery, variables: Mapping[str, Variable], span: Span) -> Filled:
    """The text that reaches the database.

    Raises:
        FillError: see there.
    """
    if query.time_from:
        start = query.time_from if query.time_from.startswith("now") else f"now-{query.time_from}"
        if re.fullmatch(r"now/[smhdwMy]", start):
            end = moment_ms(start, span.to_ms, span.zone, end=True)
            span = replace(span, from_ms=moment_ms(start, span.to_ms, span.zone), to_ms=end)
        else:
            span = replace(span, from_ms=moment_ms(start, span.to_ms, span.zone))
    least = query.least_interval
    if "$" in least:
        least = _replaced(least, variables, {})
    step_ms = interval_ms(span.length_ms, query.points_max, span_ms(least) if least else 0)
    macros = {
        "timeFilter": f"time >= {span.from_ms}ms and time <= {span.to_ms}ms",
        "__interval": as_interval(step_ms),
        "interval": as_interval(step_ms),
        "__interval_ms": str(step_ms),
        "__from": str(span.from_ms),
        "__to": str(span.to_ms),
        "__range": f"{round(span.length_ms / 1000)}s",
        "__range_s": str(round(span.length_ms / 1000)),
        "__range_ms": str(span.length_ms),
    }
    return Filled(query, _replaced(query.text, variables, macros), span, step_ms, variables)


def _replaced(text: str, variables: Mapping[str, Variable], macros: Mapping[str, str]) -> str:
    inside = [(found.start(1), found.end(1)) for found in _IN_REGEX.finditer(text)]

    def put(found: re.Match[str]) -> str:
        name = found[1] or found[2] or found[4]
        form = found[3] or found[5] or ""
        if name in macros:
            return macros[name]
        if name not in variables:
            raise FillError(f"${name} is no variable of this board and no macro of Grafana's")
        in_regex = any(start <= found.start() < end for start, end in inside)
        return written(variables[name], form, in_regex=in_regex)

    return _VARIABLE.sub(put, text)


def written(variable: Variable, form: str, *, in_regex: bool = False) -> str:
    """What is chosen, in one of Grafana's formats; without one as its InfluxDB source does it.

    Raises:
        FillError: Grafana does not know the format.
    """
    if variable.raw is not None:
        return variable.raw
    values = variable.values
    if form == "regex" or (not form and (variable.multi or in_regex)):
        escaped = [_REGEX_SPECIAL.sub(lambda special: "\\" + special[0], value) for value in values]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
    simple = {
        "": ",".join(values),
        "raw": ",".join(values),
        "csv": ",".join(values),
        "text": " + ".join(values),
        "pipe": "|".join(values),
        "singlequote": ",".join("'" + value.replace("'", "\\'") + "'" for value in values),
        "doublequote": ",".join('"' + value.replace('"', '\\"') + '"' for value in values),
        "percentencode": urllib.parse.quote(",".join(values), safe=""),
        "queryparam": "&".join(f"var-{variable.name}={urllib.parse.quote(value, safe='')}" for value in values),
    }
    if form not in simple:
        raise FillError(f"${{{variable.name}:{form}}}: Grafana knows no format {form!r}")
    return simple[form]


def choose(variable: Mapping[str, Any], options: Iterable[str], chosen: Sequence[str] | None = None) -> Variable:
    """What a variable stands for: `chosen` by the caller, else what the board opens with.

    `options`: what its query answers; for the other types the board itself says it.
    """
    name, kind = str(variable["name"]), str(variable.get("type", ""))
    multi = bool(variable.get("multi") or variable.get("includeAll"))
    if kind != "query":
        options = _own_options(variable)
    options = list(options)
    if chosen is not None:
        return Variable(name, tuple(chosen), multi)
    current = (variable.get("current") or {}).get("value")
    values = [str(value) for value in current] if isinstance(current, list) else [str(current)] if current else []
    if ALL in values or (not values and variable.get("includeAll")):
        if (all_value := variable.get("allValue")) is not None:
            return Variable(name, tuple(options), multi, raw=str(all_value))
        return Variable(name, tuple(options), multi)
    if not values and kind in {"constant", "textbox"}:
        return Variable(name, (str(variable.get("query") or ""),), multi)
    return Variable(name, tuple(values or options[:1]), multi)


def _own_options(variable: Mapping[str, Any]) -> list[str]:
    kind = variable.get("type")
    if kind in {"custom", "interval"}:
        parts = re.split(r"(?<!\\),", str(variable.get("query") or ""))
        return [part.rpartition(" : ")[2].strip() for part in parts if part.strip()]
    if kind in {"constant", "textbox"}:
        return [str(variable.get("query") or "")]
    return []
