"""Rows as a query answers them, as line protocol again: for roll-ups, copies and backups."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloud.timeseries.lines import escape_key, escape_measurement, escape_string

INTEGER: Final = "integer"
FLOAT: Final = "float"
STRING: Final = "string"
BOOLEAN: Final = "boolean"
NUMBERS: Final = frozenset({INTEGER, FLOAT})


def lines_of(
    measurement: str,
    tags: Mapping[str, str],
    columns: Sequence[str],
    values: Sequence[Sequence[Any]],
    types: Mapping[str, str],
) -> list[str]:
    """One line per row that has a value; `columns[0]` is the time in ns, `types` the types of the others.

    A JSON answer writes 5.0 as 5, so a number's type is not in it: `types` decides, and is `float` by default.
    """
    filled = [f"{escape_key(tag)}={escape_key(value)}" for tag, value in sorted(tags.items()) if value]
    head = ",".join([escape_measurement(measurement), *filled])
    names = [f"{escape_key(column)}=" for column in columns[1:]]
    kinds = [types.get(column, FLOAT) for column in columns[1:]]
    lines = []
    for at_ns, *row in values:
        fields = ",".join(
            name + field_text(value, kind)
            for name, value, kind in zip(names, row, kinds, strict=True)
            if value is not None
        )
        if fields:
            lines.append(f"{head} {fields} {at_ns}")
    return lines


def field_text(value: Any, field_type: str) -> str:
    """A field's value in a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{escape_string(value)}"'
    return f"{value}i" if field_type == INTEGER and isinstance(value, int) else repr(value)
