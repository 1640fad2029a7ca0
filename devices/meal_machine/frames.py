"""The bytes between the controller of a meal machine and the edge, as tables of fields.

A frame's type says what its body holds; every layout is a tuple of (field, codec) and gives both the
writer and the reader, so driver and simulator can't disagree. Integers are big-endian. Temperatures
travel as hundredths of a degree, expiry times as whole seconds, ids as 16 bytes, slots as one byte.

    to the hardware     QUERY · COMMAND (id, action, arguments) · EVENT_ACK (event id)
    from the hardware   READING · EVENT (event id, at, type, facts) · PROGRESS (command id, status, reason)

An EVENT is repeated until its EVENT_ACK comes. A COMMAND may be repeated: the hardware keeps the ids it
has seen and answers a repeat with the PROGRESS it has, so repeating can't vend twice.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from devices.meal_machine import messages
from fleet.framing import encode_frame
from fleet.kind import Progress, literal_of
from fleet.messages import Command, Event, Reason, ReplyStatus


class FrameType(IntEnum):
    """First byte of a frame."""

    QUERY = 0x01
    COMMAND = 0x10
    EVENT_ACK = 0x1F
    READING = 0x80
    PROGRESS = 0x81
    EVENT = 0x90


class FrameError(ValueError):
    """A frame with a good checksum whose body is not what its type promises."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One field on the wire: `unpack(body, position)` returns the value and the next position."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes, int], tuple[Any, int]]


Layout = tuple[tuple[str, Codec], ...]


def _number(code: str, scale: int = 1) -> Codec:
    layout = struct.Struct(">" + code)

    def unpack(body: bytes, position: int) -> tuple[Any, int]:
        (value,) = layout.unpack_from(body, position)
        return (value / scale if scale != 1 else value), position + layout.size

    return Codec(lambda value: layout.pack(round(value * scale)), unpack)


def _mapped(codec: Codec, pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> Codec:
    def read(body: bytes, position: int) -> tuple[Any, int]:
        value, position = codec.unpack(body, position)
        return unpack(value), position

    return Codec(lambda value: codec.pack(pack(value)), read)


def _choice(values: tuple[str, ...]) -> Codec:
    def name_of(index: int) -> str:
        if index >= len(values):
            raise FrameError(f"choice {index} of {len(values)}")
        return values[index]

    return _mapped(_U8, values.index, name_of)


def _take(body: bytes, position: int, length: int) -> tuple[bytes, int]:
    if position + length > len(body):
        raise FrameError("body too short")
    return body[position : position + length], position + length


def _unpack_text(body: bytes, position: int) -> tuple[str, int]:
    length, position = _U8.unpack(body, position)
    raw, position = _take(body, position, length)
    return raw.decode("ascii"), position


def _unpack_id(body: bytes, position: int) -> tuple[str, int]:
    raw, position = _take(body, position, 16)
    return raw.hex(), position


def _slot_name(code: int) -> str | None:
    return None if code == 0 else "ABCDEFGH"[(code - 1) // 8 % 8] + str((code - 1) % 8 + 1)


def _slot_code(name: str | None) -> int:
    return 0 if name is None else ("ABCDEFGH".index(name[0]) * 8) + int(name[1])


_U8: Final = _number("B")
_U16: Final = _number("H")
_U64: Final = _number("Q")
_CELSIUS: Final = _number("h", scale=100)
_NO_VALUE: Final = -(1 << 15)
"""A temperature that its probe does not give, as sent by common converters with an open circuit."""
_PROBE: Final = Codec(
    lambda value: struct.pack(">h", _NO_VALUE) if value is None else _CELSIUS.pack(value),
    lambda body, position: (
        (None, position + 2) if body[position : position + 2] == b"\x80\x00" else _CELSIUS.unpack(body, position)
    ),
)
_BOOL: Final = _mapped(_U8, int, bool)
_ID: Final = Codec(bytes.fromhex, _unpack_id)
_TEXT: Final = Codec(lambda text: bytes((len(text),)) + text.encode("ascii"), _unpack_text)
_SLOT: Final = _mapped(_U8, _slot_code, _slot_name)
_EXPIRY: Final = _mapped(_number("I"), lambda at_ms: at_ms // 1000, lambda at_s: at_s * 1000)
_LOT: Final = _mapped(_number("I"), lambda lot: int(lot[1:]), lambda number: f"L{number:010}")
_SLOT_STATUS: Final = _choice(get_args(messages.SlotStatus))
_SALE_FAILURE: Final = _choice(get_args(messages.SaleFailureReason))
_REMOVAL: Final = _choice(get_args(messages.RemovalReason))
_REPLY_STATUS: Final = _choice(tuple(status.value for status in ReplyStatus))
_REASON: Final = _choice(get_args(Reason))


def _pack(layout: Layout, values: Mapping[str, Any] | BaseModel) -> bytes:
    get = values.__getitem__ if isinstance(values, Mapping) else values.__getattribute__
    return b"".join(codec.pack(get(name)) for name, codec in layout)


def _unpack(layout: Layout, body: bytes, position: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    for name, codec in layout:
        values[name], position = codec.unpack(body, position)
    return values, position


def _sequence(model: type[BaseModel], layout: Layout) -> Codec:
    def pack(items: tuple[BaseModel, ...]) -> bytes:
        return bytes((len(items),)) + b"".join(_pack(layout, item) for item in items)

    def unpack(body: bytes, position: int) -> tuple[tuple[BaseModel, ...], int]:
        count, position = _U8.unpack(body, position)
        items = []
        for _ in range(count):
            values, position = _unpack(layout, body, position)
            items.append(model(**values))
        return tuple(items), position

    return Codec(pack, unpack)


_LOT_LAYOUT: Final[Layout] = (("lot", _LOT), ("expires_at", _EXPIRY), ("count", _U8))
_SLOT_LAYOUT: Final[Layout] = (
    ("slot", _SLOT), ("sku", _TEXT), ("price_fen", _U16), ("status", _SLOT_STATUS),
    ("capacity_count", _U8), ("count", _U8), ("lots", _sequence(messages.Lot, _LOT_LAYOUT)),
)  # fmt: skip
_LINE_LAYOUT: Final[Layout] = (
    ("slot", _SLOT), ("sku", _TEXT), ("expected_count", _U8), ("found_count", _U8),
    ("removed_count", _U8), ("removed_reason", _REMOVAL), ("added_count", _U8), ("lot", _LOT), ("expires_at", _EXPIRY),
)  # fmt: skip
_READING_LAYOUT: Final[Layout] = (
    ("at", _U64), ("chilled_celsius", _PROBE), ("heater_celsius", _PROBE), ("door_open", _BOOL),
    ("mains_power", _BOOL), ("locked_out", _BOOL), ("heater_fault", _BOOL), ("output_occupied", _BOOL),
    ("heating_queue_count", _U8), ("stock_count", _U16), ("slots", _sequence(messages.SlotStock, _SLOT_LAYOUT)),
)  # fmt: skip
_SALE: Final[Layout] = (("purchase_id", _ID), ("command_id", _ID))
_BOX: Final[Layout] = (("sku", _TEXT), ("slot", _SLOT), ("lot", _LOT))

_EVENT_LAYOUTS: Final[dict[int, tuple[type[Event], Layout]]] = {
    1: (messages.SaleReserved, (*_SALE, *_BOX)),
    2: (messages.SaleHeating, (*_SALE, ("heating_seconds", _U16))),
    3: (messages.SaleDispensing, (*_SALE, ("slot", _SLOT))),
    4: (messages.SaleDelivered, (*_SALE, *_BOX)),
    5: (messages.SaleFailed, (*_SALE, ("reason", _SALE_FAILURE))),
    6: (messages.LaneJammed, (("slot", _SLOT),)),
    7: (messages.HeaterFault, (("heater_celsius", _CELSIUS),)),
    8: (messages.DoorOpened, ()),
    9: (messages.DoorClosed, ()),
    10: (messages.PowerLost, ()),
    11: (messages.PowerRestored, ()),
    12: (messages.LanesLocked, (("chilled_celsius", _PROBE),)),
    13: (messages.LanesUnlocked, ()),
    14: (messages.Restocked, (("lines", _sequence(messages.RestockLine, _LINE_LAYOUT)),)),
}
_EVENT_NUMBER: Final = {model: number for number, (model, _) in _EVENT_LAYOUTS.items()}

_COMMAND_LAYOUTS: Final[dict[int, tuple[type[Command], Layout]]] = {
    1: (messages.Dispense, (("purchase_id", _ID), ("sku", _TEXT), ("slot", _SLOT))),
    2: (messages.Cancel, (("purchase_id", _ID),)),
    3: (messages.LockLane, (("slot", _SLOT),)),
    4: (messages.UnlockAfterService, ()),
    5: (messages.SetMenu, (("slot", _SLOT), ("sku", _TEXT), ("price_fen", _U16))),
    6: (messages.Reboot, ()),
}
_COMMAND_NUMBER: Final = {literal_of(model, "action"): number for number, (model, _) in _COMMAND_LAYOUTS.items()}


def _read(layout: Layout, body: bytes, position: int = 0) -> dict[str, Any]:
    """The whole rest of a body; raises FrameError if it is too short, too long or absurd."""
    try:
        values, end = _unpack(layout, body, position)
    except (struct.error, ValidationError, UnicodeDecodeError) as error:
        raise FrameError(str(error)) from error
    if end != len(body):
        raise FrameError(f"{len(body) - end} bytes too many")
    return values


def _build(model: type[Any], values: dict[str, Any]) -> Any:
    try:
        return model(**values)
    except ValidationError as error:
        raise FrameError(str(error)) from error


def encode_query() -> bytes:
    """Ask the hardware for a reading and for its unacknowledged events."""
    return encode_frame(FrameType.QUERY)


def encode_reading(reading: messages.MealMachineReading) -> bytes:
    return encode_frame(FrameType.READING, _pack(_READING_LAYOUT, reading))


def decode_reading(body: bytes) -> messages.MealMachineReading:
    """Raises FrameError, as all decoders here do."""
    reading: messages.MealMachineReading = _build(messages.MealMachineReading, _read(_READING_LAYOUT, body))
    return reading


def encode_event(event: Event, at_ms: int) -> bytes:
    number = _EVENT_NUMBER[type(event)]
    head = _ID.pack(event.event_id) + _U64.pack(at_ms) + bytes((number,))
    return encode_frame(FrameType.EVENT, head + _pack(_EVENT_LAYOUTS[number][1], event))


def decode_event(body: bytes) -> tuple[int, Event]:
    """(occurred_at in ms, event)."""
    head, position = _take(body, 0, 25)
    model, layout = _layout_of(_EVENT_LAYOUTS, head[24])
    event: Event = _build(model, {"event_id": head[:16].hex(), **_read(layout, body, position)})
    return int.from_bytes(head[16:24], "big"), event


def encode_event_ack(event_id: str) -> bytes:
    return encode_frame(FrameType.EVENT_ACK, _ID.pack(event_id))


def decode_event_ack(body: bytes) -> str:
    return str(_read((("event_id", _ID),), body)["event_id"])


def encode_command(command_id: str, command: Command) -> bytes:
    number = _COMMAND_NUMBER[command.action]
    body = _ID.pack(command_id) + bytes((number,)) + _pack(_COMMAND_LAYOUTS[number][1], command)
    return encode_frame(FrameType.COMMAND, body)


def decode_command(body: bytes) -> tuple[str, Command]:
    """(command id, command)."""
    head, position = _take(body, 0, 17)
    model, layout = _layout_of(_COMMAND_LAYOUTS, head[16])
    command: Command = _build(model, _read(layout, body, position))
    return head[:16].hex(), command


def encode_progress(progress: Progress) -> bytes:
    body = _ID.pack(progress.command_id) + _REPLY_STATUS.pack(progress.status.value) + _REASON.pack(progress.reason)
    return encode_frame(FrameType.PROGRESS, body)


def decode_progress(body: bytes) -> Progress:
    values = _read((("command_id", _ID), ("status", _REPLY_STATUS), ("reason", _REASON)), body)
    return Progress(values["command_id"], ReplyStatus(values["status"]), values["reason"])


def _layout_of(table: Mapping[int, tuple[type[Any], Layout]], number: int) -> tuple[type[Any], Layout]:
    if number not in table:
        raise FrameError(f"unknown number {number}")
    return table[number]
