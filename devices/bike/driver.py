"""Bytes of a bike's controller ↔ messages."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, assert_never

from pydantic import ValidationError

from devices.bike import frames, messages
from devices.bike.frames import ActionCode, CommandFrame, EventCode, FrameType, ReasonCode, StatusCode
from fleet.framing import FrameReader, encode_frame
from fleet.kind import DriverOutput, Progress
from fleet.messages import Command, Event, Reading, Reason, ReplyStatus

COMMAND_REPEAT_MS: Final = 2_000
COMMAND_TIMEOUT_MS: Final = 9_000
REBOOT_TIMEOUT_MS: Final = 30_000
POLL_REPEAT_MS: Final = 60_000
POLL_AFTER_SILENCE_MS: Final = 1_800_000
EVENT_IDS_MAX: Final = 256  # hardware holds fewer unacknowledged events than this
PENDING_COMMANDS_MAX: Final = 8
HARDWARE_AHEAD_MS_MAX: Final = 60_000
HARDWARE_BEHIND_MS_MAX: Final = 30 * 86_400_000  # an event may have waited long; what is older has no time at all

_REASONS: Final[dict[ReasonCode, Reason]] = {
    ReasonCode.NONE: "",
    ReasonCode.JAM: "jam",
    ReasonCode.BUSY: "busy",
    ReasonCode.NOT_POSSIBLE: "not_possible",
    ReasonCode.POWER_LOST: "power_lost",
}


@dataclass(slots=True)
class _Pending:
    frame: bytes
    repeat_at_ms: int
    timeout_at_ms: int
    executing: bool = False


class BikeDriver:
    """One bike's line.

    An event frame is de-duplicated by its id as long as this instance lives and is acknowledged on the
    line every time, because the acknowledgement may have been lost. A caller that fails to commit an event
    must go on trying and write no acknowledgement meanwhile: the repeat comes without the event.
    """

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._body_errors = 0
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._pending: dict[str, _Pending] = {}
        self._poll_at_ms: int | None = None

    @property
    def frame_errors(self) -> int:
        return self._reader.errors + self._body_errors

    def on_start(self, now_ms: int) -> DriverOutput:
        self._poll_at_ms = now_ms + POLL_REPEAT_MS
        # The leading zero ends whatever half frame the line was left with.
        return DriverOutput(to_hardware=b"\x00" + encode_frame(FrameType.POLL))

    def on_bytes(self, data: bytes, now_ms: int) -> DriverOutput:
        readings: list[Reading] = []
        events: list[tuple[int, Event]] = []
        progress: list[Progress] = []
        acknowledgements = b""
        for frame_type, body in self._reader.feed(data):
            try:
                if frame_type == FrameType.READING:
                    readings.append(_reading(body, now_ms))
                    self._poll_at_ms = now_ms + POLL_AFTER_SILENCE_MS
                elif frame_type == FrameType.EVENT:
                    event_id, dated_event = _event(body, now_ms)
                    acknowledgements += encode_frame(FrameType.EVENT_ACK, event_id)
                    if self._is_new(event_id):
                        events.append(dated_event)
                elif frame_type == FrameType.RESULT:
                    progress += self._result(body)
                else:
                    self._body_errors += 1
            except (ValueError, ValidationError):
                self._body_errors += 1
        return DriverOutput(tuple(readings), tuple(events), tuple(progress), after_commit=acknowledgements)

    def on_command(self, command_id: str, command: Command, now_ms: int) -> DriverOutput:
        if command_id in self._pending:
            return DriverOutput()
        if len(self._pending) >= PENDING_COMMANDS_MAX:
            return DriverOutput(progress=(Progress(command_id, ReplyStatus.FAILED, "busy"),))
        argument = 0
        if isinstance(command, messages.Ring):
            argument = command.duration_seconds
        elif isinstance(command, messages.SetInterval):
            argument = command.parked_interval_seconds
        try:
            action = ActionCode[command.action.upper()]
        except KeyError:
            return DriverOutput(progress=(Progress(command_id, ReplyStatus.REFUSED, "unknown_action"),))
        frame = frames.command_frame(CommandFrame(bytes.fromhex(command_id), action, argument))
        timeout_ms = REBOOT_TIMEOUT_MS if action is ActionCode.REBOOT else COMMAND_TIMEOUT_MS
        self._pending[command_id] = _Pending(frame, now_ms + COMMAND_REPEAT_MS, now_ms + timeout_ms)
        return DriverOutput(to_hardware=frame)

    def on_acknowledged(self, event: Event, now_ms: int) -> DriverOutput:  # noqa: ARG002  # a bike shows nothing
        return DriverOutput()

    def on_timer(self, now_ms: int) -> DriverOutput:
        progress: list[Progress] = []
        to_hardware = b""
        for command_id, pending in list(self._pending.items()):
            if pending.timeout_at_ms <= now_ms:
                del self._pending[command_id]
                progress.append(Progress(command_id, ReplyStatus.FAILED, "hardware_silent"))
            elif pending.repeat_at_ms <= now_ms:
                pending.repeat_at_ms = now_ms + COMMAND_REPEAT_MS
                to_hardware += pending.frame
        if self._poll_at_ms is not None and self._poll_at_ms <= now_ms:
            self._poll_at_ms = now_ms + POLL_REPEAT_MS
            to_hardware += encode_frame(FrameType.POLL)
        return DriverOutput(progress=tuple(progress), to_hardware=to_hardware)

    @property
    def next_due_ms(self) -> int | None:
        dues = [min(pending.repeat_at_ms, pending.timeout_at_ms) for pending in self._pending.values()]
        if self._poll_at_ms is not None:
            dues.append(self._poll_at_ms)
        return min(dues, default=None)

    def _is_new(self, event_id: bytes) -> bool:
        if event_id in self._seen:
            self._seen.move_to_end(event_id)
            return False
        self._seen[event_id] = None
        if len(self._seen) > EVENT_IDS_MAX:
            self._seen.popitem(last=False)
        return True

    def _result(self, body: bytes) -> tuple[Progress, ...]:
        result = frames.parse_result(body)
        command_id = result.command_id.hex()
        pending = self._pending.get(command_id)
        if pending is None:  # the answer to a repeat, or later than the time-out: already told
            return ()
        status = result.status
        if status is StatusCode.EXECUTING:
            if pending.executing:
                return ()
            pending.executing = True
            return (Progress(command_id, ReplyStatus.EXECUTING),)
        del self._pending[command_id]
        if status is StatusCode.SUCCEEDED:
            return (Progress(command_id, ReplyStatus.SUCCEEDED),)
        if status is StatusCode.FAILED:
            return (Progress(command_id, ReplyStatus.FAILED, _REASONS[result.reason]),)
        if status is StatusCode.REFUSED:
            return (Progress(command_id, ReplyStatus.REFUSED, _REASONS[result.reason]),)
        assert_never(status)


def create(device_id: str) -> BikeDriver:  # noqa: ARG001  # the line belongs to one bike; its bytes do not name it
    """A driver for a freshly opened line."""
    return BikeDriver()


def _trusted_time(at_ms: int, now_ms: int) -> int:
    return at_ms if -HARDWARE_BEHIND_MS_MAX <= at_ms - now_ms <= HARDWARE_AHEAD_MS_MAX else now_ms


def _reading(body: bytes, now_ms: int) -> Reading:
    values = frames.parse_reading(body)
    return messages.Reading(
        at=_trusted_time(values.at_ms, now_ms),
        battery_percent=values.battery_percent,
        latitude=values.place.latitude,
        longitude=values.place.longitude,
        accuracy_metres=values.place.accuracy_metres,
        speed_metres_per_second=values.speed_metres_per_second,
        lock_state=values.lock.name.lower(),  # type: ignore[arg-type]  # names of LockCode are the literal's values
        tilt_degrees=values.tilt_degrees,
        signal_dbm=values.signal_dbm,
        odometer_metres=values.odometer_metres,
        temperature_celsius=values.temperature_celsius,
        fix_age_seconds=float(values.fix_age_seconds),
    )


def _event(body: bytes, now_ms: int) -> tuple[bytes, tuple[int, Event]]:
    frame = frames.parse_event(body)
    event_id = frame.event_id.hex()
    place = frame.place._asdict()
    command_id = None if frame.command_id == frames.NO_COMMAND else frame.command_id.hex()
    code = frame.code
    event: Event
    if code is EventCode.LOCK_OPENED:
        event = messages.LockOpened(event_id=event_id, command_id=command_id, **place)
    elif code is EventCode.LOCK_CLOSED:
        event = messages.LockClosed(event_id=event_id, command_id=command_id, **place)
    elif code is EventCode.LOCK_JAMMED:
        event = messages.LockJammed(event_id=event_id, command_id=command_id, **place)
    elif code is EventCode.MOVED_WHILE_LOCKED:
        event = messages.MovedWhileLocked(event_id=event_id, moved_metres=frame.amount, **place)
    elif code is EventCode.FALL:
        event = messages.Fall(event_id=event_id, tilt_degrees=frame.amount, **place)
    elif code is EventCode.TAMPER:
        event = messages.Tamper(event_id=event_id, **place)
    elif code is EventCode.BATTERY_LOW:
        event = messages.BatteryLow(event_id=event_id, battery_percent=frame.amount)
    else:
        assert_never(code)
    return frame.event_id, (_trusted_time(frame.at_ms, now_ms), event)
