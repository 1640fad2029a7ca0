"""The hardware's end of the line: events kept until acknowledged, answers kept for repeats, and noise."""

from collections import OrderedDict, deque
from typing import Any, Final

from devices.bike import frames
from devices.bike.frames import EventFrame, FrameType, ResultFrame, StatusCode
from fleet.framing import encode_frame
from fleet.kind import SimulatorOutput, Truth
from fleet.randomness import Randomness

EVENTS_MAX: Final = 64  # flash pages of the controller; the oldest is evicted, and the truth log says so
RESULTS_MAX: Final = 32
REPEAT_FIRST_MS: Final = 1_000
REPEAT_MS_MAX: Final = 30_000


class EventQueue:
    """Events in flash, sent one at a time, so that they arrive in order whatever the line loses."""

    def __init__(self) -> None:
        self._events: deque[EventFrame] = deque()
        self._repeat_ms = REPEAT_FIRST_MS
        self.due_ms: int | None = None

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: EventFrame, now_ms: int) -> EventFrame | None:
        """Keep an event; returns the one evicted for it, if any."""
        evicted = self._events.popleft() if len(self._events) >= EVENTS_MAX else None
        self._events.append(event)
        if self.due_ms is None or evicted is not None:
            self._restart(now_ms)
        return evicted

    def send_due(self, now_ms: int) -> bytes:
        """The frame of the oldest event if its time has come."""
        if self.due_ms is None or self.due_ms > now_ms:
            return b""
        self.due_ms = now_ms + self._repeat_ms
        self._repeat_ms = min(2 * self._repeat_ms, REPEAT_MS_MAX)
        return encode_frame(FrameType.EVENT, frames.event_body(self._events[0]))

    def acknowledge(self, event_id: bytes, now_ms: int) -> None:
        """Forget the event in flight; an acknowledgement of any other is a late repeat."""
        if self._events and self._events[0].event_id == event_id:
            self._events.popleft()
            self._restart(now_ms)

    def _restart(self, now_ms: int) -> None:
        self._repeat_ms = REPEAT_FIRST_MS
        self.due_ms = now_ms if self._events else None


class CommandMemory:
    """Answers by command id, in flash: a repeated command is answered again and never carried out again."""

    def __init__(self) -> None:
        self._results: OrderedDict[bytes, ResultFrame] = OrderedDict()

    def answer(self, command_id: bytes) -> bytes:
        """The frame already given for this id; empty for a new one."""
        known = self._results.get(command_id)
        return frames.result_frame(known) if known is not None else b""

    def record(self, result: ResultFrame) -> bytes:
        """Keep an answer and return its frame."""
        self._results[result.command_id] = result
        if len(self._results) > RESULTS_MAX:
            self._results.popitem(last=False)
        return frames.result_frame(result)

    def unfinished(self) -> list[bytes]:
        """Ids whose last answer was EXECUTING: what a power cut left open."""
        return [key for key, result in self._results.items() if result.status is StatusCode.EXECUTING]


class Noise:
    """Seeded damage to outgoing frames, at a rate or on demand."""

    def __init__(self, randomness: Randomness, probability: float) -> None:
        self._randomness = randomness
        self._probability = probability
        self.corrupt_next = 0
        self.drop_next = 0

    def apply(self, frame: bytes) -> bytes:
        """The frame as it leaves the wire."""
        if self.corrupt_next > 0:
            self.corrupt_next -= 1
            return self._corrupted(frame)
        if self.drop_next > 0:
            self.drop_next -= 1
            return self._shortened(frame)
        if self._probability and self._randomness.random() < self._probability:
            return self._corrupted(frame) if self._randomness.random() < 0.5 else self._shortened(frame)
        return frame

    def _corrupted(self, frame: bytes) -> bytes:
        position = self._randomness.randint(0, len(frame) - 1)
        flipped = frame[position] ^ (1 << self._randomness.randint(0, 7))
        return frame[:position] + bytes((flipped,)) + frame[position + 1 :]

    def _shortened(self, frame: bytes) -> bytes:
        start = self._randomness.randint(0, len(frame) - 1)
        return frame[:start] + frame[start + self._randomness.randint(1, 4) :]


class Port:
    """What leaves the simulated hardware: bytes with their noise, and the log of what truly happened."""

    def __init__(self, device_id: str, noise: Noise) -> None:
        self._device_id = device_id
        self.noise = noise
        self._to_driver: list[bytes] = []
        self._truths: list[Truth] = []

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire; empty bytes are no frame."""
        if frame:
            self._to_driver.append(self.noise.apply(frame))

    def log(self, now_ms: int, what: str, event_id: str | None = None, **facts: Any) -> None:
        """Add a line to the truth log."""
        self._truths.append(Truth(now_ms, self._device_id, what, event_id, facts))

    def take(self) -> SimulatorOutput:
        """Bytes and truths since the last call."""
        output = SimulatorOutput(b"".join(self._to_driver), tuple(self._truths))
        self._to_driver.clear()
        self._truths.clear()
        return output
