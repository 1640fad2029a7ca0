"""Points as InfluxDB line protocol.

    <kind>,<tag>=<value>,…,device_id=<id> <field>=<value>,… <at_ns>

Columns are faster than rows: points of one shape (kind, tags, field names, value types) are turned into columns,
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
    """How points of one shape are joined: (text before the value, column, type) per field that is written.

    `prefix` ends before the device id, or before the fields where there is none (`of_devices`).
    """

    prefix: str
    of_devices: bool
    fields: tuple[tuple[str, int, type], ...]


def encode_lines(points: Sequence[SeriesPoint]) -> bytes:
    """Lines of all points, in their order; a field that is None is left out.

    Raises:
        TypeError: a value is neither float, int, bool, str nor None.
    """
    return b"\n".join(filter(None, encode_each(points)))


def encode_each(points: Sequence[SeriesPoint]) -> list[bytes]:
    """The line of each point, in their order; empty for a point without a value. Raises TypeError as above."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, point in enumerate(points):
        fields = point.fields
        about = (point.kind, point.tags, point.device_id != "", len(fields))
        groups.setdefault((*about, *fields, *map(type, fields.values())), []).append(number)
    lines = [b""] * len(points)
    for shape, numbers in groups.items():
        for number, line in zip(numbers, _lines(_shape_of(shape), [points[one] for one in numbers]), strict=False):
            lines[number] = line.encode()
    return lines


@lru_cache(maxsize=1024)
def _shape_of(key: tuple[Any, ...]) -> _Shape:
    kind, tags, of_devices, count = key[:4]
    names, types = key[4 : 4 + count], key[4 + count :]
    fields = []
    before = " "
    for column, (name, value_type) in enumerate(zip(names, types, strict=True)):
        if value_type is type(None):
            continue
        if value_type not in _SUFFIX_BY_TYPE:
            raise TypeError(f"{kind}.{name}: a series takes no {value_type.__name__}")
        fields.append((f"{before}{escape_key(name)}=", column, value_type))
        before = ","
    prefix = ",".join([escape_measurement(kind), *(f"{escape_key(tag)}={escape_key(value)}" for tag, value in tags)])
    return _Shape(f"{prefix},device_id=" if of_devices else prefix, of_devices, tuple(fields))


def _lines(shape: _Shape, points: Sequence[SeriesPoint]) -> Iterator[str]:
    if not shape.fields:
        return iter(())  # a point without any value is no point
    columns = list(zip(*[point.fields.values() for point in points], strict=True))
    parts: list[Iterable[str]] = [repeat(shape.prefix, len(points))]
    if shape.of_devices:
        parts.append(map(escape_key, [point.device_id for point in points]))
    after = ""
    for before, column, value_type in shape.fields:
        quote = '"' if value_type is str else ""
        parts += [repeat(f"{after}{before}{quote}"), _texts(columns[column], value_type)]
        after = _SUFFIX_BY_TYPE[value_type]
    parts += [repeat(f"{after} "), _texts([point.at_ns for point in points], int)]
    return map("".join, zip(*parts, strict=False))


def _texts(values: Sequence[Any], value_type: type) -> Iterable[str]:
    if value_type is str:
        return map(escape_string, values)
    return _encode(values)[1:-1].decode().split(",")


@lru_cache(maxsize=200_000)
def escape_key(text: str) -> str:
    """A tag value, tag key or field key."""
    return text.replace("\\", "\\\\").replace(",", r"\,").replace("=", r"\=").replace(" ", r"\ ").replace("\n", r"\n")


def escape_measurement(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", r"\,").replace(" ", r"\ ").replace("\n", r"\n")


@lru_cache(maxsize=4096)
def escape_string(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', r"\"")
