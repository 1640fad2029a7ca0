"""A panel before it is Grafana's: what it says, what it asks, how it looks. Pure data, one language."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from dashboards.influxql import Query
from dashboards.scales import Scale

GAP_MS_MIN: Final = 3 * 3_600_000
"""The widest step of a graph over 30 days: a shorter gap would tear every line of such a graph into points."""

Style = Literal["timeseries", "columns", "stat", "gauge", "ranking", "table", "geomap", "bar", "histogram", "states"]


@dataclass(frozen=True, slots=True)
class Link:
    """Where a click on a value leads; `url` may use Grafana's variables."""

    title: str
    url: str
    blank: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One panel. Texts are in the board's language.

    `scales` belong to series or columns by their `label`; a panel of a single scale is drawn with it altogether.
    `names` are shown in place of series' names, `codes` in place of a column's values, `headings` in place of columns'
    names; `colours` are of shown names. `no_data` says what it means that nothing is there.
    """

    title: str
    description: str
    style: Style
    queries: tuple[Query, ...]
    no_data: str
    scales: tuple[Scale, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    code_colours: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column → code → colour, where columns differ in what is worth a look."""
    headings: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    link_column: str = ""
    """Column of a table that carries the links; empty: every value does."""
    unit: str = ""
    interval_s: float = 0
    points_max: int = 0
    time_from: str = ""
    gap_ms: float = 0
    """A longer stretch without values is shown as one; 0: every missing step is."""
    right: tuple[str, ...] = ()
    """Labels that are drawn against an axis of their own, on the right."""
    stacked: bool = False
    crowded: bool = False
    """So many lines that the area below them stays empty."""
    lowest_first: bool = False
    """Bars begin with the lowest value."""
    whole_fields: bool = False
    """Texts and flags are shown too, not numbers alone."""
    width: int = 12
    height: int = 8
