"""Bytes ↔ messages for one room, on the edge.

- An event is passed on once per process, by its id, but acknowledged on the line every time it comes: the
  controller repeats it until it hears the acknowledgement. The edge writes `after_commit` in the order of
  the outputs, and none while an earlier event waits for the journal, so an acknowledgement never overtakes
  the commit of the event it is for.
- A command is written again until the controller answers; the controller carries out an id once.
- "Received" is lit when the cloud has committed the press, and again after any reading that still says
  `calling` (a frame lost on the line, a brown-out), bound to that one press.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from devices.nursing_room import frames
from devices.nursing_room.frames import FrameBodyError, FrameType
from devices.nursing_room.messages import CallLightCommand, Pressed, RoomReading
from fleet.framing import FrameReader
from fleet.kind import DriverOutput, Progress
from fleet.messages import (
    CLOCK_SKEW_FUTURE_S_MAX,
    CLOCK_SKEW_PAST_S_MAX,
    FINAL_REPLIES,
    Command,
    Event,
    Reading,
    Reason,
    ReplyStatus,
)

EVENT_IDS_KEPT_MAX: Final = 512
COMMANDS_PENDING_MAX: Final = 16
LIGHTS_RESERVE: Final = 8
"""Lights for a caller that may wait beyond that bound: they are not refused because other commands are slow."""
COMMAND_REPEAT_MS: Final = 2_000
COMMAND_TIMEOUT_MS: Final = {
    "show_received": 10_000,
    "show_help_coming": 10_000,
    "start_self_test": 30_000,
    "reboot": 30_000,
}
_PROGRESS_RANK: Final = {ReplyStatus.ACCEPTED: 0, ReplyStatus.EXECUTING: 1}


@dataclass
class _Pending:
    """A command the controller has not finished. `reported` is False for the driver's own lights."""

    frame: bytes
    repeat_at: int
    give_up_at: int
    reported: bool = True
    last: ReplyStatus | None = None


class RoomDriver:
    """See `fleet.kind.Driver`."""

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.frame_errors = 0
        self._reader = FrameReader()
        self._body_errors = 0
        self._event_ids: OrderedDict[str, None] = OrderedDict()
        self._pending: dict[bytes, _Pending] = {}
        self._received_press: bytes | None = None

    def on_start(self, now_ms: int) -> DriverOutput:
        del now_ms
        return DriverOutput(to_hardware=frames.encode_status_request())

    def on_bytes(self, data: bytes, now_ms: int) -> DriverOutput:
        readings: list[Reading] = []
        events: list[tuple[int, Event]] = []
        progress: list[Progress] = []
        to_hardware = b""
        after_commit = b""
        for frame_type, body in self._reader.feed(data):
            try:
                if frame_type == FrameType.READING:
                    reading = _with_believable_clock(frames.decode_reading(body), now_ms)
                    readings.append(reading)
                    to_hardware += self._light_again(reading, now_ms)
                elif frame_type == FrameType.EVENT:
                    at, event = frames.decode_event(body)
                    after_commit += frames.encode_event_ack(bytes.fromhex(event.event_id))
                    if self._is_new(event):
                        events.append((_believable(at, now_ms), event))
                elif frame_type == FrameType.PROGRESS:
                    progress += self._on_progress(*frames.decode_progress(body))
                else:
                    self._body_errors += 1
            except FrameBodyError:
                self._body_errors += 1
        self.frame_errors = self._reader.errors + self._body_errors
        return DriverOutput(tuple(readings), tuple(events), tuple(progress), to_hardware, after_commit)

    def on_command(self, command_id: str, command: Command, now_ms: int) -> DriverOutput:
        key = bytes.fromhex(command_id)
        if key in self._pending:  # the controller has it already; its answer will come
            return DriverOutput()
        if command.action not in frames.COMMAND_CODES:
            return _failed(command_id, ReplyStatus.REFUSED, "unknown_action")
        if len(self._pending) >= COMMANDS_PENDING_MAX + (LIGHTS_RESERVE if command.urgent else 0):
            return _failed(command_id, ReplyStatus.REFUSED, "busy")
        press_id = frames.ANY_PRESS
        if isinstance(command, CallLightCommand) and command.press_id is not None:
            press_id = bytes.fromhex(command.press_id)
        return DriverOutput(to_hardware=self._send(key, command.action, now_ms, press_id=press_id))

    def on_acknowledged(self, event: Event, now_ms: int) -> DriverOutput:
        if not isinstance(event, Pressed):
            return DriverOutput()
        self._received_press = bytes.fromhex(event.press_id)
        return DriverOutput(to_hardware=self._show_received(now_ms))

    def on_timer(self, now_ms: int) -> DriverOutput:
        progress: list[Progress] = []
        to_hardware = b""
        for command_id, pending in list(self._pending.items()):
            if pending.give_up_at <= now_ms:
                del self._pending[command_id]
                if pending.reported:
                    progress.append(Progress(command_id.hex(), ReplyStatus.FAILED, "hardware_silent"))
            elif pending.repeat_at <= now_ms:
                pending.repeat_at = now_ms + COMMAND_REPEAT_MS
                to_hardware += pending.frame
        return DriverOutput(progress=tuple(progress), to_hardware=to_hardware)

    @property
    def next_due_ms(self) -> int | None:
        return min((min(pending.repeat_at, pending.give_up_at) for pending in self._pending.values()), default=None)

    def _send(
        self, key: bytes, action: str, now_ms: int, *, press_id: bytes = frames.ANY_PRESS, reported: bool = True
    ) -> bytes:
        frame = frames.encode_command(key, action, press_id)
        give_up_at = now_ms + COMMAND_TIMEOUT_MS[action]
        self._pending[key] = _Pending(frame, now_ms + COMMAND_REPEAT_MS, give_up_at, reported)
        return frame

    def _show_received(self, now_ms: int) -> bytes:
        press_id = self._received_press
        if press_id is None or press_id in self._pending:
            return b""
        return self._send(press_id, "show_received", now_ms, press_id=press_id, reported=False)

    def _light_again(self, reading: RoomReading, now_ms: int) -> bytes:
        if reading.call_state == "idle":
            self._received_press = None
        return self._show_received(now_ms) if reading.call_state == "calling" else b""

    def _is_new(self, event: Event) -> bool:
        if event.event_id in self._event_ids:
            self._event_ids.move_to_end(event.event_id)
            return False
        self._event_ids[event.event_id] = None
        if len(self._event_ids) > EVENT_IDS_KEPT_MAX:  # far more than a controller keeps unacknowledged
            self._event_ids.popitem(last=False)
        return True

    def _on_progress(self, key: bytes, status: ReplyStatus, reason: Reason) -> list[Progress]:
        pending = self._pending.get(key)
        if pending is None:  # the answer to a repetition, or one that came after the time-out
            return []
        if status in FINAL_REPLIES:
            del self._pending[key]
        else:
            if pending.last is not None and _PROGRESS_RANK[status] <= _PROGRESS_RANK[pending.last]:
                return []
            pending.last = status
            pending.repeat_at = pending.give_up_at  # it has arrived; only its end is awaited
        return [Progress(key.hex(), status, reason)] if pending.reported else []


def _failed(command_id: str, status: ReplyStatus, reason: Reason) -> DriverOutput:
    return DriverOutput(progress=(Progress(command_id, status, reason),))


def _believable(at: int, now_ms: int) -> int:
    """The controller's time, or ours if its clock is off: a press must not be quarantined for a flat battery."""
    low, high = now_ms - CLOCK_SKEW_PAST_S_MAX * 1000, now_ms + CLOCK_SKEW_FUTURE_S_MAX * 1000
    return at if low < at < high else now_ms


def _with_believable_clock(reading: RoomReading, now_ms: int) -> RoomReading:
    at = _believable(reading.at, now_ms)
    return reading if at == reading.at else reading.model_copy(update={"at": at})


def create(device_id: str) -> RoomDriver:
    """A driver for one line."""
    return RoomDriver(device_id)
