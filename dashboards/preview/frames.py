"""From InfluxQL's answers to the tables that Grafana makes of them: columns, and the names of series. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dashboards.check import Outcome, Series

TIME: Final = "Time"
_ALIAS: Final = re.compile(r"\$\{?(tag_[\w]+|col|m|measurement|field)\}?|\[\[(tag_\w+|col|m|measurement)\]\]")


@dataclass(slots=True)
class Frame:
    """Columns of equal length. `labels` are the tags of a series, `name` what a legend calls it, `time` its time."""

    name: str
    columns: dict[str, list[Any]]
    labels: Mapping[str, str] = field(default_factory=dict)
    ref: str = ""
    time: str = TIME

    @property
    def length(self) -> int:
        """How many rows."""
        return len(next(iter(self.columns.values()), ()))

    @property
    def values(self) -> dict[str, list[Any]]:
        """The columns besides time."""
        return {name: column for name, column in self.columns.items() if name != self.time}


def frames_of(outcomes: Sequence[Outcome]) -> list[Frame]:
    """The answers of a panel's targets as Grafana's InfluxDB source gives them.

    With the format `time_series` one frame per series and column, with `table` one frame per target.
    """
    frames: list[Frame] = []
    for outcome in outcomes:
        query = outcome.query
        if query.result_format == "table":
            if outcome.answer.series:
                frames.append(_table(outcome.answer.series, query.ref))
            continue
        for one in outcome.answer.series:
            times = [row[0] for row in one.rows]
            for index, column in enumerate(one.columns[1:], 1):
                name = series_name(query.alias, one, column)
                frames.append(Frame(name, {TIME: times, name: [row[index] for row in one.rows]}, one.tags, query.ref))
    return frames


def series_name(alias: str, series: Series, column: str) -> str:
    """What Grafana calls a series: its alias filled in, else measurement, column and tags."""
    if not alias:
        tags = ", ".join(f"{name}: {value}" for name, value in series.tags.items())
        return f"{series.name}.{column}" + (f" {{{tags}}}" if tags else "")

    def put(found: re.Match[str]) -> str:
        word = found[1] or found[2]
        if word.startswith("tag_"):
            return series.tags.get(word.removeprefix("tag_"), "")
        return column if word in {"col", "field"} else series.name

    return _ALIAS.sub(put, alias)


def _table(series: Sequence[Series], ref: str) -> Frame:
    names: list[str] = []
    for one in series:
        names += [name for name in (TIME, *one.tags, *one.columns[1:]) if name not in names]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for one in series:
        for row in one.rows:
            cells = {TIME: row[0], **one.tags, **dict(zip(one.columns[1:], row[1:], strict=True))}
            for name in names:
                columns[name].append(cells.get(name))
    return Frame(series[0].name, columns, ref=ref)
