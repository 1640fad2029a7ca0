"""Points as InfluxDB line protocol.

    <kind>,device_id=<id> <field>=<value>,… <at_ns>

Columns are faster than rows: points of one shape (kind, field names, value types) are turned into columns,
every number column becomes text in one `msgspec.json.encode`, and rows are joined in C. A JSON number or
boolean is a valid line protocol value; integers get their `i`, strings their quotes.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, NamedTuple

import msgspec

from cloud.ports import SeriesPoint

_SUFFIX_BY_TYPE: Final[dict[type, str]] = {float: "", int: "i", bool: "", str: '"'}
_encode = msgspec.json.Encoder().encode


class _Shape(NamedTuple):
    """How points of one shape are joined: (text before the value, column, type) per field that is written."""

    prefix: str
    fields: tuple[tuple[str, int, type], ...]


def encode_lines(points: Sequence[SeriesPoint]) -> bytes:
    """Lines of all points, grouped by shape; a field that is None is left out.

    Raises:
        TypeError: a value is neither float, int, bool, str nor None.
    """
    groups: dict[tuple[Any, ...], list[SeriesPoint]] = {}
    for point in points:
        fields = point.fields
        groups.setdefault((point.kind, len(fields), *fields, *map(type, fields.values())), []).append(point)
    return "\n".join(line for shape, group in groups.items() for line in _lines(_shape_of(shape), group)).encode()


@lru_cache(maxsize=1024)
def _shape_of(key: tuple[Any, ...]) -> _Shape:
    kind, count = key[0], key[1]
    names, types = key[2 : 2 + count], key[2 + count :]
    fields = []
    before = " "
    for column, (name, value_type) in enumerate(zip(names, types, strict=True)):
        if value_type is type(None):
            continue
        if value_type not in _SUFFIX_BY_TYPE:
            raise TypeError(f"{kind}.{name}: a series takes no {value_type.__name__}")
        fields.append((f"{before}{_escape_key(name)}=", column, value_type))
        before = ","
    return _Shape(f"{_escape_measurement(kind)},device_id=", tuple(fields))


def _lines(shape: _Shape, points: Sequence[SeriesPoint]) -> Iterator[str]:
    if not shape.fields:
        return iter(())  # a point without any value is no point
    columns = list(zip(*[point.fields.values() for point in points], strict=True))
    parts: list[Iterable[str]] = [repeat(shape.prefix), map(_escape_key, [point.device_id for point in points])]
    after = ""
    for before, column, value_type in shape.fields:
        quote = '"' if value_type is str else ""
        parts += [repeat(f"{after}{before}{quote}"), _texts(columns[column], value_type)]
        after = _SUFFIX_BY_TYPE[value_type]
    parts += [repeat(f"{after} "), _texts([point.at_ns for point in points], int)]
    return map("".join, zip(*parts, strict=False))


def _texts(values: Sequence[Any], value_type: type) -> Iterable[str]:
    if value_type is str:
        return map(_escape_string, values)
    return _encode(values)[1:-1].decode().split(",")


@lru_cache(maxsize=200_000)
def _escape_key(text: str) -> str:
    """A tag value, tag key or field key."""
    return text.replace("\\", "\\\\").replace(",", r"\,").replace("=", r"\=").replace(" ", r"\ ").replace("\n", r"\n")


def _escape_measurement(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", r"\,").replace(" ", r"\ ").replace("\n", r"\n")


@lru_cache(maxsize=4096)
def _escape_string(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', r"\"")
