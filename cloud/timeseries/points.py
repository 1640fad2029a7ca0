"""Spooled envelopes become points.

A point's identity is (device, time in ns). Readings with equal times must not overwrite each other, and
the same reading again must be the same point: so the nanoseconds below the reading's millisecond are
derived from the message's key and the reading's index in it.
"""

import enum
import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypedDict, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel

from devices import UnknownKindError, kind_named
from fleet.envelope import BOOTS_PER_GENERATION, READINGS_PER_MESSAGE_MAX

NANOSECONDS_PER_MILLISECOND: Final = 1_000_000
MESSAGES_PER_MILLISECOND: Final = NANOSECONDS_PER_MILLISECOND // READINGS_PER_MESSAGE_MAX
_GENERATION_STRIDE: Final = 7_919  # a prime: generations that start at seq 1 again do not meet
SEQ_FIELD: Final = "message_seq"
"""In every point: counts are exact, and a point leads back to its message."""
_AT: Final = "at"


class Point(msgspec.Struct, gc=False):
    """One reading in the series; see `cloud.ports.SeriesPoint`."""

    kind: str
    device_id: str
    at_ns: int
    fields: dict[str, Any]
    tags: tuple[tuple[str, str], ...] = ()


class _OnlyKind(msgspec.Struct):
    kind: str


_KIND_FIRST: Final = re.compile(rb'\{"version":\d+,"kind":"([a-z0-9_]+)"')
_decode_kind = msgspec.json.Decoder(_OnlyKind).decode


class UnusableRecordError(ValueError):
    """A spooled record that makes no points; it was valid when it was accepted."""


def at_ns(at_ms: int, generation: int, seq: int, index: int) -> int:
    """Time of one reading in ns: the same for the same key, different for the readings of one millisecond."""
    message = (seq + generation * _GENERATION_STRIDE) % MESSAGES_PER_MILLISECOND
    return at_ms * NANOSECONDS_PER_MILLISECOND + message * READINGS_PER_MESSAGE_MAX + index


class ReadingPlan:
    """How one kind's readings are flattened, derived from its pydantic model.

    Numbers, booleans and texts (enums, literals) are fields; a sequence becomes `<name>_count`; a nested
    model is left to the twin. A field declared float is a float even if its JSON has no decimal point,
    because a series refuses a field that changes its type.
    """

    def __init__(self, kind: str, model: type[BaseModel]) -> None:
        columns: dict[str, Any] = {_AT: int}
        self.columns: dict[str, type] = {}
        """Type of each field; `list` where only its length is kept."""
        self._counted: list[str] = []
        for name, field in model.model_fields.items():
            column_type = _column_type(field.annotation)
            if name == _AT or column_type is None:
                continue
            columns[name] = column_type | None
            self.columns[name] = get_origin(column_type) or column_type
            if get_origin(column_type) is list:
                self._counted.append(name)
        # A TypedDict is decoded straight into the dict that becomes the point's fields; unknown keys are skipped.
        # The calls below make types at run time, which a type checker cannot follow.
        reading: Any = TypedDict("reading", columns, total=False)  # type: ignore[misc]
        payload: Any = msgspec.defstruct("payload", [("readings", list[reading])])
        header = [("kind", Literal[kind]), ("device_id", str), ("boot_epoch", int), ("seq", int)]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("message", [*header, ("payload", payload)])).decode

    def points(self, raw: bytes) -> list[Point]:
        """Points of one telemetry message; raises msgspec.DecodeError, or KeyError for a reading without time."""
        message: Any = self._decode(raw)
        kind, device_id, seq = message.kind, message.device_id, message.seq
        first_ns = at_ns(0, message.boot_epoch // BOOTS_PER_GENERATION, seq, 0)
        points = []
        for fields in message.payload.readings:
            at_ms = fields.pop(_AT)
            for name in self._counted:
                items = fields.pop(name, None)
                if items is not None:
                    fields[f"{name}_count"] = len(items)
            fields[SEQ_FIELD] = seq
            points.append(Point(kind, device_id, at_ms * NANOSECONDS_PER_MILLISECOND + first_ns, fields))
            first_ns += 1
        return points


class PointMaker:
    """Turns spooled envelopes into points; plans are made per kind on first use."""

    def __init__(self) -> None:
        self._plans: dict[str, ReadingPlan] = {}

    def points(self, raw: bytes) -> list[Point]:
        """Points of one record.

        Raises:
            UnusableRecordError: not an envelope, an unknown kind, or a payload that no longer fits.
        """
        try:
            return self._plan(_peek(raw)).points(raw)
        except UnknownKindError as error:
            raise UnusableRecordError(str(error)) from error
        except KeyError as error:
            raise UnusableRecordError(f"a reading without {error}") from error
        except ValueError as error:  # msgspec's errors are ValueErrors
            raise UnusableRecordError(str(error)) from error

    def columns(self, kind: str) -> dict[str, type]:
        """Types of a kind's fields; raises UnusableRecordError."""
        try:
            return self._plan(kind).columns
        except UnknownKindError as error:
            raise UnusableRecordError(str(error)) from error

    def _plan(self, kind: str) -> ReadingPlan:
        plan = self._plans.get(kind)
        if plan is None:
            plan = self._plans[kind] = ReadingPlan(kind, kind_named(kind).reading)
        return plan


def _peek(raw: bytes) -> str:
    """The record's kind, without decoding all of it if it stands where our own encoder puts it.

    What was peeked is checked by the decoder, whose `kind` is a literal.
    """
    found = _KIND_FIRST.match(raw)
    return found[1].decode() if found is not None else _decode_kind(raw).kind


def _column_type(annotation: Any) -> Any:
    """`float`, `int`, `bool`, `str`, `list[Raw]`, or None for what is no column."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _column_type(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return _common([_column_type(part) for part in get_args(annotation) if part is not type(None)])
    if origin is Literal:
        return _common([_column_type(type(value)) for value in get_args(annotation)])
    if origin in {tuple, list, Sequence}:
        return list[msgspec.Raw]
    return _plain_type(annotation) if isinstance(annotation, type) else None


def _plain_type(annotation: type) -> Any:
    if issubclass(annotation, enum.Enum):
        return _common([_column_type(type(member.value)) for member in annotation])
    return next((plain for plain in (bool, int, float, str) if issubclass(annotation, plain)), None)


def _common(column_types: list[Any]) -> Any:
    if set(column_types) == {int, float}:
        return float
    return column_types[0] if len(set(column_types)) == 1 else None
