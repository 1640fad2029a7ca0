"""What a field looks like on a board: its unit, its range, its alarm limits as colours, its name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final, get_args

import annotated_types
from grafana_foundation_sdk.models.dashboard import Threshold as Step
from pydantic.fields import FieldInfo

from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Kind, Threshold
from fleet.units import label_of, unit_of

GRAFANA_UNITS: Final[Mapping[str, str]] = {
    "percent": "percent",
    "relative_humidity_percent": "humidity",
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
    "hours": "h",
    "fen": "suffix: 分",
    "count": "short",
    "none": "none",
}
"""Unit of `fleet.units` → Grafana's name of it."""

GOOD: Final = "green"
COLOURS: Final[Mapping[Priority, str]] = {
    Priority.LOW: "yellow",
    Priority.MEDIUM: "orange",
    Priority.HIGH: "red",
    Priority.EMERGENCY: "dark-red",
}


class BoardError(ValueError):
    """A panel asks for what its kind does not offer; the message names both."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How one field of a reading is drawn."""

    field: str
    label: str
    unit: str
    low: float | None
    high: float | None
    numeric: bool
    steps: tuple[Step, ...]
    limits: tuple[AlarmDefinition, ...]


def scale_of(kind: Kind, alarms: Sequence[AlarmDefinition], field_name: str, language: str) -> Scale:
    """The scale of one field of a kind's reading.

    Raises:
        BoardError: the reading has no such field.
    """
    field = kind.reading.model_fields.get(field_name)
    if field is None:
        raise BoardError(f"{kind.name}: no field {field_name!r} in {kind.reading.__name__}")
    limits = tuple(
        alarm for alarm in alarms if isinstance(alarm.condition, Threshold) and alarm.condition.field == field_name
    )
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


def is_number(annotation: Any) -> bool:
    """Whether InfluxDB can calculate with such a field: int or float (or None), but no bool."""
    members = [member for member in (get_args(annotation) or (annotation,)) if member is not NoneType]
    return bool(members) and all(member in (int, float) for member in members)


def steps_of(limits: Sequence[AlarmDefinition]) -> tuple[Step, ...]:
    """Colours between the alarm limits: each stretch shows the most urgent alarm that is true in it."""
    edges = sorted({_limit(alarm) for alarm in limits})
    starts = [-math.inf, *edges]
    steps: list[Step] = []
    for start, end in zip(starts, [*edges, math.inf], strict=True):
        true = [alarm.priority for alarm in limits if _is_true_between(alarm, start, end)]
        colour = COLOURS[max(true, key=lambda priority: -list(Priority).index(priority))] if true else GOOD
        if not steps or steps[-1].color != colour:
            steps.append(Step(value=None if start == -math.inf else start, color=colour))
    return tuple(steps)


def _condition(alarm: AlarmDefinition) -> Threshold:
    assert isinstance(alarm.condition, Threshold)
    return alarm.condition


def _limit(alarm: AlarmDefinition) -> float:
    condition = _condition(alarm)
    limit = condition.above if condition.above is not None else condition.below
    if limit is None:
        raise BoardError(f"alarm {alarm.key!r}: its threshold on {condition.field!r} sets neither above nor below")
    return float(limit)


def _is_true_between(alarm: AlarmDefinition, start: float, end: float) -> bool:
    condition = _condition(alarm)
    return start >= condition.above if condition.above is not None else end <= _limit(alarm)


def _bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    low = high = None
    for constraint in field.metadata:
        if isinstance(constraint, annotated_types.Ge):
            low = float(constraint.ge)  # type: ignore[arg-type]  # a number wherever fleet.units.measured made it
        elif isinstance(constraint, annotated_types.Le):
            high = float(constraint.le)  # type: ignore[arg-type]
    return low, high


def limit_text(alarm: AlarmDefinition) -> str:
    """The limit as people write it: `> 8`, `< 25`."""
    return f"{'>' if _condition(alarm).above is not None else '<'} {_limit(alarm):g}"
