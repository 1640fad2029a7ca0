"""What a field looks like on a board: its unit, its range, its limits as colours, its name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, Final, Protocol, get_args

import annotated_types
from grafana_foundation_sdk.models.dashboard import Threshold as Step
from pydantic.fields import FieldInfo

from dashboards.labels import LABELS
from dashboards.limits import limits_of
from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Kind, Threshold
from fleet.series import Measurement
from fleet.text import Text
from fleet.units import FEN_PER_YUAN, label_of, unit_of

YUAN: Final = "currency:¥"
"""Money is counted in fen and shown in yuan: whoever asks for a field of this unit divides (`shown_as`)."""
GRAFANA_UNITS: Final[Mapping[str, str]] = {
    "percent": "percent",
    "relative_humidity_percent": "percent",
    "volts": "volt",
    "watts": "watt",
    "celsius": "celsius",
    "degrees": "degree",
    "metres": "lengthm",
    "kilometres": "lengthkm",
    "metres_per_second": "velocityms",
    "dbm": "dBm",
    "milliseconds": "ms",
    "seconds": "s",
    "minutes": "m",
    "hours": "suffix: h",
    "fen": YUAN,
    "count": "short",
    "none": "none",
}
"""Unit of `fleet.units` → Grafana's name of it."""
SERIES_UNITS: Final[Mapping[str, str]] = {
    "ms": "ms",
    "s": "s",
    "hours": "h",
    "fen": YUAN,
    "count": "short",
    "bytes": "bytes",
    "percent": "percent",
    "per_hour": "suffix: /h",
    "text": "none",
    "bool": "none",
}
"""Unit of `fleet.series` → Grafana's name of it."""

GOOD: Final = "green"
PLAIN: Final = "blue"
"""Of numbers that are neither good nor bad."""
CALM: Final = "#B7C3D3"
"""Of states that nobody need look at: pale, so that all others stand out."""
CALM_WORD: Final = "#5F7085"
"""The same where the state is written, not painted."""
IN_USE_COLOUR: Final = "blue"
COLOURS: Final[Mapping[Priority, str]] = {
    Priority.LOW: "yellow",
    Priority.MEDIUM: "orange",
    Priority.HIGH: "red",
    Priority.EMERGENCY: "dark-red",
}


class BoardError(ValueError):
    """A panel asks for what its kind does not offer; the message names both."""


class Limit(Protocol):
    """One side of a number, and how urgent it is beyond it."""

    @property
    def above(self) -> float | None: ...
    @property
    def below(self) -> float | None: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def title(self) -> Text: ...
    @property
    def action(self) -> Text: ...


@dataclass(frozen=True, slots=True)
class AlarmLimit:
    """The threshold of an alarm, with the alarm's words."""

    above: float | None
    below: float | None
    priority: Priority
    title: Text
    action: Text


@dataclass(frozen=True, slots=True)
class Scale:
    """How one field of a reading or of a measurement is drawn."""

    field: str
    label: str
    unit: str
    low: float | None
    high: float | None
    numeric: bool
    steps: tuple[Step, ...]
    limits: tuple[Limit, ...]

    def named(self, label: str) -> "Scale":
        """The same under another name."""
        return replace(self, label=label)


def scale_of(kind: Kind, alarms: Sequence[AlarmDefinition], field_name: str, language: str) -> Scale:
    """The scale of one field of a kind's reading.

    Raises:
        BoardError: the reading has no such field.
    """
    field = kind.reading.model_fields.get(field_name)
    if field is None:
        raise BoardError(f"{kind.name}: no field {field_name!r} in {kind.reading.__name__}")
    limits = limits_of_field(alarms, field_name)
    low, high = _bounds(field)
    return Scale(
        field=field_name,
        label=label_of(field, language) or field_name,
        unit=GRAFANA_UNITS[unit_of(field)],
        low=low,
        high=high,
        numeric=is_number(field.annotation),
        steps=steps_of(limits),
        limits=limits,
    )


def series_scale(measurement: Measurement, field_name: str, language: str) -> Scale:
    """The scale of one field of a measurement beside the readings.

    Raises:
        BoardError: the measurement has no such field.
    """
    try:
        field = measurement.field_named(field_name)
    except KeyError:
        raise BoardError(f"no field {field_name!r} in the measurement {measurement.name!r}") from None
    limits = limits_of(measurement.name, field_name)
    percent = field.unit == "percent"
    return Scale(
        field=field_name,
        label=LABELS.get((measurement.name, field_name), field.description).in_language(language),
        unit=SERIES_UNITS[field.unit],
        low=0,
        high=100 if percent else None,
        numeric=field.is_number,
        steps=steps_of(limits, whole=field.unit == "count") if limits else (Step(value=None, color=PLAIN),),
        limits=limits,
    )


def is_number(annotation: Any) -> bool:
    """Whether a field's values can be drawn: int or float, perhaps None, but not bool."""
    members = [member for member in get_args(annotation) or (annotation,) if member is not NoneType]
    return bool(members) and all(member in (int, float) for member in members)


def limits_of_field(alarms: Sequence[AlarmDefinition], field_name: str) -> tuple[AlarmLimit, ...]:
    """The thresholds that alarms have on one field; raises BoardError for one without a limit."""
    found = []
    for alarm in alarms:
        condition = alarm.condition
        if isinstance(condition, Threshold) and condition.field == field_name:
            if condition.above is None and condition.below is None:
                raise BoardError(f"alarm {alarm.key!r}: its threshold on {field_name!r} sets neither above nor below")
            found.append(AlarmLimit(condition.above, condition.below, alarm.priority, alarm.title, alarm.action))
    return tuple(found)


def steps_of(limits: Sequence[Limit], *, whole: bool = False) -> tuple[Step, ...]:
    """Colours between the limits: each stretch shows the most urgent one that is passed in it.

    Grafana counts a number as part of the stretch that begins with it; `whole` numbers that must not be above a
    limit are therefore coloured from the next one on.
    """
    edges = sorted({edge_of(limit) for limit in limits})
    starts = [-math.inf, *edges]
    steps: list[Step] = []
    for start, end in zip(starts, [*edges, math.inf], strict=True):
        true = [limit.priority for limit in limits if _is_true_between(limit, start, end)]
        colour = COLOURS[max(true, key=lambda priority: -list(Priority).index(priority))] if true else GOOD
        if not steps or steps[-1].color != colour:
            shown = start + 1 if whole and any(limit.above == start for limit in limits) else start
            steps.append(Step(value=None if start == -math.inf else shown, color=colour))
    return tuple(steps)


def edge_of(limit: Limit) -> float:
    """The number itself, whichever side is bad."""
    edge = limit.above if limit.above is not None else limit.below
    assert edge is not None
    return float(edge)


def _is_true_between(limit: Limit, start: float, end: float) -> bool:
    return start >= limit.above if limit.above is not None else end <= edge_of(limit)


def _bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    low = high = None
    for constraint in field.metadata:
        if isinstance(constraint, annotated_types.Ge):
            low = float(constraint.ge)  # type: ignore[arg-type]  # a number wherever fleet.units.measured made it
        elif isinstance(constraint, annotated_types.Le):
            high = float(constraint.le)  # type: ignore[arg-type]
    return low, high


def shown_as(aggregate: str, scale: Scale) -> str:
    """The aggregate that gives a field in the unit of its scale: fen become yuan."""
    return f"{aggregate}/{FEN_PER_YUAN}" if scale.unit == YUAN else aggregate


def limit_text(limit: Limit) -> str:
    """The limit as people write it: `> 8`, `< 25`."""
    return f"{'>' if limit.above is not None else '<'} {edge_of(limit):g}"


def limit_lines(scales: Sequence[Scale], language: str) -> list[str]:
    """Every limit of the fields as a line of Markdown: its name, the number, and what to do."""
    return [
        f"- **{limit.title.in_language(language)}** ({limit_text(limit)}): {limit.action.in_language(language)}"
        for scale in scales
        for limit in scale.limits
    ]
