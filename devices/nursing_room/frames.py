"""The bytes between a room's controller and the edge: layouts of frame bodies (see `fleet.framing`).

All numbers are big-endian; `at` is the controller's clock in ms since the epoch. Temperatures travel in
hundredths of a degree, humidity and lamp hours in tenths.

| frame | body |
|---|---|
| READING | at, flags, codes and values of `_READING` |
| EVENT | event_id:16, at:8, code:1, then the layout of that code |
| PROGRESS | command_id:16, status:1, reason:1 |
| EVENT_ACK | event_id:16 |
| COMMAND | command_id:16, code:1, press_id:16 (zeros: the open call, whichever press it is) |
| STATUS_REQUEST | empty; the controller answers with a reading and its unacknowledged events |
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, get_args

from devices.nursing_room import messages
from devices.nursing_room.messages import RoomReading
from fleet.framing import encode_frame
from fleet.messages import Event, Reason, ReplyStatus


class FrameType(IntEnum):
    """First byte of every frame; from the controller below 0x80, to it above."""

    READING = 0x01
    EVENT = 0x02
    PROGRESS = 0x03
    EVENT_ACK = 0x81
    COMMAND = 0x82
    STATUS_REQUEST = 0x83


ANY_PRESS: Final = bytes(16)
_DELIMITER: Final = b"\x00"

_CALL_LIGHTS: Final[tuple[str, ...]] = get_args(messages.CallLight)
_STERILIZER_STATES: Final[tuple[str, ...]] = get_args(messages.SterilizerState)
_OUTCOMES: Final[tuple[str, ...]] = get_args(messages.SterilizerOutcome)
_FAILURES: Final[tuple[str, ...]] = get_args(messages.SelfTestFailure)
_CAUSES: Final[tuple[str, ...]] = get_args(messages.RestartCause)
_STATUSES: Final = tuple(ReplyStatus)
_REASONS: Final[tuple[Reason, ...]] = ("", "busy", "not_possible", "unknown_action")
_FLAGS: Final = (
    "button_link_ok", "cord_in_place", "occupied", "fridge_door_open", "sterilizer_door_open", "mains_power",
)  # fmt: skip
COMMAND_CODES: Final[Mapping[str, int]] = {
    "show_received": 1, "show_help_coming": 2, "start_self_test": 3, "reboot": 4,
}  # fmt: skip
COMMAND_ACTIONS: Final[Mapping[int, str]] = {code: action for action, code in COMMAND_CODES.items()}

_READING: Final = struct.Struct(">QBBBBBhIhH")
_EVENT_HEAD: Final = struct.Struct(">16sQB")
_PROGRESS: Final = struct.Struct(">16sBB")
_COMMAND: Final = struct.Struct(">16sB16s")


class FrameBodyError(ValueError):
    """A frame with a good checksum whose body is not what its type promises."""


def _on_wire(frame_type: FrameType, body: bytes = b"") -> bytes:
    # The delimiter in front costs one byte and confines a lost delimiter to the frame it ended.
    return _DELIMITER + encode_frame(frame_type, body)


def encode_reading(reading: RoomReading) -> bytes:
    """Frame of a reading; its values are rounded to what the wire carries."""
    flags = sum(1 << bit for bit, name in enumerate(_FLAGS) if getattr(reading, name))
    body = _READING.pack(
        reading.at,
        flags,
        _CALL_LIGHTS.index(reading.call_state),
        _STERILIZER_STATES.index(reading.sterilizer_state),
        reading.button_battery_percent,
        reading.backup_battery_percent,
        round(reading.fridge_celsius * 100),
        round(reading.lamp_hours * 10),
        round(reading.air_celsius * 100),
        round(reading.air_relative_humidity_percent * 10),
    )
    return _on_wire(FrameType.READING, body)


def decode_reading(body: bytes) -> RoomReading:
    """Raises FrameBodyError for a wrong length, an unknown code or a value no room can have."""
    try:
        at, flags, light, sterilizer, button, backup, fridge, lamp, air, humidity = _READING.unpack(body)
        return RoomReading(
            at=at,
            call_state=_CALL_LIGHTS[light],
            sterilizer_state=_STERILIZER_STATES[sterilizer],
            button_battery_percent=button,
            backup_battery_percent=backup,
            fridge_celsius=fridge / 100,
            lamp_hours=lamp / 10,
            air_celsius=air / 100,
            air_relative_humidity_percent=humidity / 10,
            **{name: bool(flags >> bit & 1) for bit, name in enumerate(_FLAGS)},
        )
    except (struct.error, IndexError, ValueError) as error:
        raise FrameBodyError(f"reading: {error}") from error


@dataclass(frozen=True)
class _EventLayout:
    """How the facts of one event travel behind the head."""

    model: type[Event]
    facts: struct.Struct
    pack: Callable[[Any], tuple[Any, ...]]
    unpack: Callable[..., dict[str, Any]]


def _bare(model: type[Event]) -> _EventLayout:
    return _EventLayout(model, struct.Struct(">"), lambda _: (), dict)


def _of_press(model: type[Event]) -> _EventLayout:
    return _EventLayout(
        model,
        struct.Struct(">16s"),
        lambda event: (bytes.fromhex(event.press_id),),
        lambda press_id: {"press_id": press_id.hex()},
    )


_LAYOUTS: Final[Mapping[int, _EventLayout]] = {
    1: _of_press(messages.Pressed),
    2: _of_press(messages.Attended),
    3: _of_press(messages.ClearedAtOrigin),
    4: _bare(messages.CordRemoved),
    5: _bare(messages.CordReplaced),
    6: _EventLayout(
        messages.SelfTestResult,
        struct.Struct(">B"),
        lambda event: (_FAILURES.index(event.failure),),
        lambda failure: {"passed": failure == 0, "failure": _FAILURES[failure]},
    ),
    7: _EventLayout(
        messages.SterilizerCycleFinished,
        struct.Struct(">BII"),
        lambda event: (_OUTCOMES.index(event.outcome), event.duration_seconds, round(event.lamp_hours * 10)),
        lambda outcome, seconds, lamp: {
            "outcome": _OUTCOMES[outcome],
            "duration_seconds": seconds,
            "lamp_hours": lamp / 10,
        },
    ),
    8: _EventLayout(
        messages.FridgeExcursionEnded,
        struct.Struct(">Ih"),
        lambda event: (event.duration_seconds, round(event.peak_celsius * 100)),
        lambda seconds, peak: {"duration_seconds": seconds, "peak_celsius": peak / 100},
    ),
    9: _bare(messages.MainsLost),
    10: _bare(messages.MainsRestored),
    11: _EventLayout(
        messages.Restarted,
        struct.Struct(">BB"),
        lambda event: (_CAUSES.index(event.cause), int(event.call_restored)),
        lambda cause, restored: {"cause": _CAUSES[cause], "call_restored": restored == 1},
    ),
}
_CODE_OF: Final[Mapping[type[Event], int]] = {layout.model: code for code, layout in _LAYOUTS.items()}


def encode_event(at: int, event: Event) -> bytes:
    """Frame of an event that happened at `at` (ms)."""
    code = _CODE_OF[type(event)]
    layout = _LAYOUTS[code]
    head = _EVENT_HEAD.pack(bytes.fromhex(event.event_id), at, code)
    return _on_wire(FrameType.EVENT, head + layout.facts.pack(*layout.pack(event)))


def decode_event(body: bytes) -> tuple[int, Event]:
    """(at, event); raises FrameBodyError."""
    try:
        event_id, at, code = _EVENT_HEAD.unpack_from(body)
        layout = _LAYOUTS[code]
        facts = layout.unpack(*layout.facts.unpack(body[_EVENT_HEAD.size :]))
        return at, layout.model.model_validate({"event_id": event_id.hex(), **facts})
    except (struct.error, LookupError, ValueError) as error:
        raise FrameBodyError(f"event: {error}") from error


def encode_progress(command_id: bytes, status: ReplyStatus, reason: Reason = "") -> bytes:
    """Frame of a controller's answer to a command."""
    return _on_wire(FrameType.PROGRESS, _PROGRESS.pack(command_id, _STATUSES.index(status), _REASONS.index(reason)))


def decode_progress(body: bytes) -> tuple[bytes, ReplyStatus, Reason]:
    """(command_id, status, reason); raises FrameBodyError."""
    try:
        command_id, status, reason = _PROGRESS.unpack(body)
        return command_id, _STATUSES[status], _REASONS[reason]
    except (struct.error, IndexError) as error:
        raise FrameBodyError(f"progress: {error}") from error


def encode_command(command_id: bytes, action: str, press_id: bytes = ANY_PRESS) -> bytes:
    """Frame of a command; a `press_id` binds a light to one press."""
    return _on_wire(FrameType.COMMAND, _COMMAND.pack(command_id, COMMAND_CODES[action], press_id))


def decode_command(body: bytes) -> tuple[bytes, str, bytes]:
    """(command_id, action, press_id); an unknown code gives the action "". Raises FrameBodyError."""
    try:
        command_id, code, press_id = _COMMAND.unpack(body)
    except struct.error as error:
        raise FrameBodyError(f"command: {error}") from error
    return command_id, COMMAND_ACTIONS.get(code, ""), press_id


def encode_event_ack(event_id: bytes) -> bytes:
    """Frame by which the edge takes over an event."""
    return _on_wire(FrameType.EVENT_ACK, event_id)


def encode_status_request() -> bytes:
    """Frame that asks for a reading and everything unacknowledged."""
    return _on_wire(FrameType.STATUS_REQUEST)
