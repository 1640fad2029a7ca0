"""What a kind may ask of its boards: `panels.py` of a kind exports `PANELS`, and `DEVICE_PANELS` if it wants to."""

from dataclasses import dataclass, field
from typing import Literal

from fleet.text import Text

Style = Literal["timeseries", "stat", "gauge", "ranking", "table", "geomap", "bar", "histogram", "list"]
Value = str | float | bool
IN_USE = "in use"
"""What `LOOKS` of a kind's `panels.py` says of a state in which somebody is served; a state that is an alarm is named
there by the alarm's key, and an emergency by its priority. States that are not named are nothing to look at."""
Aggregate = Literal["mean", "min", "max", "last", "sum", "count", "spread", "p50", "p95", "p99"]


@dataclass(frozen=True, slots=True)
class Where:
    """Only points (for `Group`: devices) whose tag or field `name` compares so with `value`; several values: any."""

    name: str
    value: Value | tuple[str, ...]
    operator: Literal["=", "!=", "<", "<=", ">", ">="] = "="


@dataclass(frozen=True, slots=True)
class Group:
    """Devices whose latest reading meets every condition."""

    title: Text
    where: tuple[Where, ...]
    colour: Literal["green", "blue", "yellow", "orange", "red", "purple"] = "blue"
    key: str = ""
    """Names it in the series, for a panel over time: the cloud counts such groups every minute. One of each in a kind,
    and for good; groups that are only shown as they are now need none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel of the kind's boards.

    `fields` are fields of the reading, or of `measurement` (one of `fleet.series`) if that is set; `aggregate` joins
    values inside one time step, `spread` draws lowest, mean and highest; thresholds of the alarms on these fields are
    drawn from `rules.ALARMS`. `groups` in place of fields counts devices by what their latest reading says.
    """

    title: Text
    description: Text
    fields: tuple[str, ...] = ()
    style: Style = "timeseries"
    aggregate: Aggregate = "mean"
    per_device: bool = False
    measurement: str = ""
    where: tuple[Where, ...] = ()
    by: str = ""
    """One series (or row) for every value of this tag of the measurement."""
    every: str = ""
    """Width of a time step, such as `1h`; empty: as wide as the time shown asks for."""
    lowest_first: bool = False
    """Bars begin with the lowest value; without it where an alarm says that low is bad, else with the highest."""
    stacked: bool = True
    """Counts and sums are parts of a whole, drawn on one another; else each is a line of its own."""
    groups: tuple[Group, ...] = ()
    no_data: Text | None = None
    """What an empty panel means; without it the board says what it means for this sort of panel."""
    labels: dict[str, Text] = field(default_factory=dict)
    """Field → its name here, where the field's own would not be understood."""
