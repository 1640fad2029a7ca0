"""Units of measured fields, and the helpers that attach them to pydantic models.

A unit's name is also the last part of a field's name (`speed_metres_per_second`, `battery_percent`).
"""

from typing import Any, Final, Literal, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

Unit = Literal[
    "percent",
    "volts",
    "celsius",
    "degrees",
    "metres",
    "kilometres",
    "metres_per_second",
    "dbm",
    "seconds",
    "minutes",
    "hours",
    "milliseconds",
    "fen",
    "count",
    "watts",
    "relative_humidity_percent",
    "none",
]
UNITS: Final[frozenset[str]] = frozenset(get_args(Unit))

FEN_PER_YUAN: Final = 100


def measured(unit: Unit, low: float, high: float, *, zh: str, en: str, **extra: Any) -> Any:
    """A bounded, finite number with its unit and its name in both languages.

    Args:
        unit: what one step means.
        low: smallest believable value, inclusive.
        high: largest believable value, inclusive; anything outside is quarantined, not clipped.
        zh: label for people, Chinese.
        en: label for people, English.
        extra: further arguments of `pydantic.Field` (`default`, …).
    """
    return Field(ge=low, le=high, allow_inf_nan=False, title=en, json_schema_extra={"unit": unit, "zh": zh}, **extra)


def labelled(*, zh: str, en: str, **extra: Any) -> Any:
    """A field that is not a measured number (a state, a flag, an identifier), with its labels."""
    return Field(title=en, json_schema_extra={"unit": "none", "zh": zh}, **extra)


def unit_of(field: FieldInfo) -> str:
    """The unit attached to a field, `none` without one."""
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) and "unit" in extra else "none"


def label_of(field: FieldInfo, language: str) -> str:
    """The field's name for people in `zh` or `en`; empty if it has none."""
    extra = field.json_schema_extra
    if language == "zh" and isinstance(extra, dict) and "zh" in extra:
        return str(extra["zh"])
    return field.title or ""
