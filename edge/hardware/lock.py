"""A bought lock with a serial protocol of its own, as a bike at a stand.

    transport = "bridge:edge.hardware.lock:create"

    [hardware]
    line = "serial:/dev/ttyUSB0?baud=9600"
    latitude = 38.86
    longitude = 121.52

The lock of this example talks in lines of ASCII, as many do: it says `S,<state>,<battery>` on every change and when
asked with `Q`; it is told `O` and `C`. Another lock needs another `_on_line` and other words: nothing else changes.

| it says | meaning |
|---|---|
| `S,0,87` | locked, battery 87 % |
| `S,1,87` | unlocked |
| `S,2,87` | jammed |
"""

import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from devices.bike import frames
from devices.bike.frames import (
    NO_COMMAND,
    ActionCode,
    EventCode,
    EventFrame,
    FrameType,
    LockCode,
    Place,
    ReadingFrame,
    ReasonCode,
    ResultFrame,
    StatusCode,
)
from edge.hardware.bridge import Bridge
from edge.transports import Line, line_from
from fleet.clock import Clock
from fleet.framing import encode_frame

LINE_BYTES_MAX: Final = 256
COMMANDS_KEPT_MAX: Final = 64
_WORDS: Final = {ActionCode.UNLOCK: b"O\n", ActionCode.LOCK: b"C\n", ActionCode.LOCATE: b"Q\n"}
_REACHED: Final = {ActionCode.UNLOCK: LockCode.UNLOCKED, ActionCode.LOCK: LockCode.LOCKED}
_EVENTS: Final = {
    LockCode.UNLOCKED: EventCode.LOCK_OPENED, LockCode.LOCKED: EventCode.LOCK_CLOSED,
    LockCode.JAMMED: EventCode.LOCK_JAMMED,
}  # fmt: skip


class LockSettings(BaseModel):
    """Table `[hardware]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: str
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    """Where the stand is: this lock has no satellite receiver."""


class LockBridge(Bridge):
    """Speaks `devices.bike.frames` for the lock."""

    def __init__(
        self,
        settings: LockSettings,
        line: Line,
        clock: Clock,
        *,
        make_id: Callable[[], bytes] = lambda: secrets.token_bytes(16),
    ) -> None:
        super().__init__()
        self._line = line
        self._clock = clock
        self._make_id = make_id
        self._place = Place(settings.latitude, settings.longitude, 10.0)
        self._text = bytearray()
        self._lock: LockCode | None = None
        self._battery_percent = 0.0
        self._moving: tuple[bytes, ActionCode] | None = None
        self._done: dict[bytes, ResultFrame] = {}

    async def connect(self) -> None:
        """See Bridge."""
        await self._line.open()
        self._text.clear()
        self._line.write(b"Q\n")

    def disconnect(self) -> None:
        """See Bridge."""
        self._line.close()

    def works(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """See Bridge."""
        return (self._listen,)

    async def _listen(self) -> None:
        while data := await self._line.read():
            self._text += data
            *lines, rest = bytes(self._text).split(b"\n")
            self._text[:] = rest[-LINE_BYTES_MAX:]
            for text in lines:
                self._on_line(text.strip())
        raise OSError("the lock's line ended")

    def _on_line(self, text: bytes) -> None:
        head, *values = text.split(b",")
        if head != b"S" or len(values) != 2 or not all(value.isdigit() for value in values):
            return  # noise: the lock says everything again when it is asked
        state, battery = map(int, values)
        if state > LockCode.JAMMED or battery > 100:
            return
        before, self._lock, self._battery_percent = self._lock, LockCode(state), float(battery)
        if before is not None and before is not self._lock:
            self._moved(self._lock)
        self.say(encode_frame(FrameType.READING, frames.reading_body(self._reading())))

    def _moved(self, lock: LockCode) -> None:
        command_id = NO_COMMAND
        if self._moving is not None:
            command_id, action = self._moving
            self._moving = None
            if _REACHED.get(action) is lock:
                self._finish(ResultFrame(command_id, StatusCode.SUCCEEDED, ReasonCode.NONE))
            else:
                self._finish(ResultFrame(command_id, StatusCode.FAILED, ReasonCode.JAM))
        event_id = self._make_id()
        event = EventFrame(event_id, self._clock.now_ms(), _EVENTS[lock], command_id, self._place, 0.0)
        self.tell(event_id, encode_frame(FrameType.EVENT, frames.event_body(event)))

    def _reading(self) -> ReadingFrame:
        assert self._lock is not None
        return ReadingFrame(
            at_ms=self._clock.now_ms(), battery_percent=self._battery_percent, place=self._place,
            speed_metres_per_second=0.0, lock=self._lock, tilt_degrees=0.0, signal_dbm=0.0, odometer_metres=0.0,
            temperature_celsius=None,
        )  # fmt: skip

    def _finish(self, result: ResultFrame) -> None:
        while len(self._done) >= COMMANDS_KEPT_MAX:
            del self._done[next(iter(self._done))]
        self._done[result.command_id] = result
        self.say(frames.result_frame(result))

    async def on_frame(self, frame_type: int, body: bytes) -> None:
        """See Bridge."""
        if frame_type == FrameType.EVENT_ACK:
            self.acknowledged(body)
        elif frame_type == FrameType.POLL:
            self._line.write(b"Q\n")
        elif frame_type == FrameType.COMMAND:
            self._on_command(frames.parse_command(body))

    def _on_command(self, command: frames.CommandFrame) -> None:
        if command.command_id in self._done:  # repeated, because our answer was lost: never moves twice
            self.say(frames.result_frame(self._done[command.command_id]))
        elif self._moving is not None:
            if self._moving[0] != command.command_id:
                self._finish(ResultFrame(command.command_id, StatusCode.REFUSED, ReasonCode.BUSY))
        elif command.action not in _WORDS:
            self._finish(ResultFrame(command.command_id, StatusCode.REFUSED, ReasonCode.NOT_POSSIBLE))
        elif command.action not in _REACHED or _REACHED[command.action] is self._lock:
            self._line.write(b"Q\n")
            self._finish(ResultFrame(command.command_id, StatusCode.SUCCEEDED, ReasonCode.NONE))
        else:
            self._moving = command.command_id, command.action
            self._line.write(_WORDS[command.action])
            self.say(frames.result_frame(ResultFrame(command.command_id, StatusCode.EXECUTING, ReasonCode.NONE)))


def create(hardware: Mapping[str, object], clock: Clock) -> Line:
    """For `transport`; raises ValueError."""
    settings = LockSettings.model_validate(hardware)
    return LockBridge(settings, line_from(settings.line), clock)
