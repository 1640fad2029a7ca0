"""The bytes between a bike's controller and the edge, carried in the frames of `fleet.framing`.

Numbers are big-endian. Hardware has time from GNSS; 0 means that it has none yet.

| type | direction | body |
|---|---|---|
| READING | to driver | `READING_LAYOUT` |
| EVENT | to driver, repeated until acknowledged | `EVENT_LAYOUT` |
| RESULT | to driver, repeated when the command is | command id, status, reason |
| EVENT_ACK | to hardware | event id |
| COMMAND | to hardware, repeated until a final RESULT | command id, action, argument |
| POLL | to hardware | empty: send a reading now |
"""

import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple

from fleet.framing import encode_frame

_READING_LAYOUT: Final = struct.Struct(">QHiiHHBHbIhH")
_EVENT_LAYOUT: Final = struct.Struct(">16sQB16siiHH")
_RESULT_LAYOUT: Final = struct.Struct(">16sBB")
_COMMAND_LAYOUT: Final = struct.Struct(">16sBH")
NO_COMMAND: Final = bytes(16)
_NO_TEMPERATURE: Final = 0x7FFF
_COORDINATE_STEPS: Final = 10_000_000  # per degree; one step is 11 mm


class FrameType(IntEnum):
    """First byte of a frame."""

    READING = 0x01
    EVENT = 0x02
    RESULT = 0x03
    COMMAND = 0x11
    EVENT_ACK = 0x12
    POLL = 0x13


class LockCode(IntEnum):
    """Position of the bolt; names are the values of `lock_state`."""

    LOCKED = 0
    UNLOCKED = 1
    JAMMED = 2


class EventCode(IntEnum):
    """Names are the event types."""

    LOCK_OPENED = 1
    LOCK_CLOSED = 2
    LOCK_JAMMED = 3
    MOVED_WHILE_LOCKED = 4
    FALL = 5
    TAMPER = 6
    BATTERY_LOW = 7


class ActionCode(IntEnum):
    """Names are the command actions."""

    UNLOCK = 1
    LOCK = 2
    RING = 3
    LOCATE = 4
    REBOOT = 5
    SET_INTERVAL = 6


class StatusCode(IntEnum):
    """Names are the reply statuses that hardware can give."""

    EXECUTING = 1
    SUCCEEDED = 2
    FAILED = 3
    REFUSED = 4


class ReasonCode(IntEnum):
    """Names are the reasons of a reply that hardware can give."""

    NONE = 0
    JAM = 1
    BUSY = 2
    NOT_POSSIBLE = 3
    POWER_LOST = 4


class Place(NamedTuple):
    """A GNSS position with its radius."""

    latitude: float
    longitude: float
    accuracy_metres: float


class ReadingFrame(NamedTuple):
    """Values of a READING in the units of the message; the wire rounds them."""

    at_ms: int
    battery_percent: float
    place: Place
    speed_metres_per_second: float
    lock: LockCode
    tilt_degrees: float
    signal_dbm: float
    odometer_metres: float
    temperature_celsius: float | None
    fix_age_seconds: int = 0


class EventFrame(NamedTuple):
    """Values of an EVENT; `amount` is metres moved, degrees of tilt or percent of battery, by code."""

    event_id: bytes
    at_ms: int
    code: EventCode
    command_id: bytes
    place: Place
    amount: float


class ResultFrame(NamedTuple):
    """How far the hardware came with a command."""

    command_id: bytes
    status: StatusCode
    reason: ReasonCode


class CommandFrame(NamedTuple):
    """A command for the hardware; `argument` is seconds where the action takes some."""

    command_id: bytes
    action: ActionCode
    argument: int


def _place_steps(place: Place) -> tuple[int, int, int]:
    return (
        round(place.latitude * _COORDINATE_STEPS),
        round(place.longitude * _COORDINATE_STEPS),
        min(0xFFFF, round(place.accuracy_metres * 10)),
    )


def _place(latitude_steps: int, longitude_steps: int, accuracy_steps: int) -> Place:
    return Place(latitude_steps / _COORDINATE_STEPS, longitude_steps / _COORDINATE_STEPS, accuracy_steps / 10)


def reading_body(reading: ReadingFrame) -> bytes:
    """Body of a READING."""
    return _READING_LAYOUT.pack(
        reading.at_ms,
        round(reading.battery_percent * 100),
        *_place_steps(reading.place),
        round(reading.speed_metres_per_second * 100),
        reading.lock,
        round(reading.tilt_degrees * 10),
        round(reading.signal_dbm),
        round(reading.odometer_metres),
        _NO_TEMPERATURE if reading.temperature_celsius is None else round(reading.temperature_celsius * 10),
        min(0xFFFF, reading.fix_age_seconds),
    )


def parse_reading(body: bytes) -> ReadingFrame:
    """Values of a READING.

    Raises:
        ValueError: wrong length or an unknown lock position.
    """
    at_ms, battery, latitude, longitude, accuracy, speed, lock, tilt, signal, odometer, tenths, fix_age = _unpack(
        _READING_LAYOUT, body
    )
    temperature = None if tenths == _NO_TEMPERATURE else tenths / 10
    place = _place(latitude, longitude, accuracy)
    return ReadingFrame(
        at_ms, battery / 100, place, speed / 100, LockCode(lock), tilt / 10, signal, odometer, temperature, fix_age
    )


def event_body(event: EventFrame) -> bytes:
    """Body of an EVENT."""
    return _EVENT_LAYOUT.pack(
        event.event_id,
        event.at_ms,
        event.code,
        event.command_id,
        *_place_steps(event.place),
        min(0xFFFF, round(event.amount * 10)),
    )


def parse_event(body: bytes) -> EventFrame:
    """Values of an EVENT; raises ValueError for a wrong length or an unknown code."""
    event_id, at_ms, code, command_id, latitude, longitude, accuracy, amount = _unpack(_EVENT_LAYOUT, body)
    return EventFrame(event_id, at_ms, EventCode(code), command_id, _place(latitude, longitude, accuracy), amount / 10)


def result_frame(result: ResultFrame) -> bytes:
    """A whole RESULT frame."""
    return encode_frame(FrameType.RESULT, _RESULT_LAYOUT.pack(*result))


def parse_result(body: bytes) -> ResultFrame:
    """Values of a RESULT; raises ValueError for a wrong length or an unknown code."""
    command_id, status, reason = _unpack(_RESULT_LAYOUT, body)
    return ResultFrame(command_id, StatusCode(status), ReasonCode(reason))


def command_frame(command: CommandFrame) -> bytes:
    """A whole COMMAND frame."""
    return encode_frame(FrameType.COMMAND, _COMMAND_LAYOUT.pack(*command))


def parse_command(body: bytes) -> CommandFrame:
    """Values of a COMMAND; raises ValueError for a wrong length or an unknown action."""
    command_id, action, argument = _unpack(_COMMAND_LAYOUT, body)
    return CommandFrame(command_id, ActionCode(action), argument)


def _unpack(layout: struct.Struct, body: bytes) -> tuple[Any, ...]:
    if len(body) != layout.size:
        raise ValueError(f"body of {len(body)} bytes instead of {layout.size}")
    return layout.unpack(body)
