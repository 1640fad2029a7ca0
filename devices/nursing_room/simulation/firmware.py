"""The program of a simulated room controller: the line protocol and the call.

`call`, `press_id` and the outbox model non-volatile memory: they survive a brown-out. Events leave one at
a time per lane (stop and wait), repeated until the edge acknowledges them, so they arrive in order
whatever the line loses. A command id is carried out once; its answer is repeated on request.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from devices.nursing_room import frames
from devices.nursing_room.call import ROOM_CALL, RoomCallEvent, RoomCallState
from devices.nursing_room.frames import FrameType
from devices.nursing_room.messages import RoomReading
from devices.nursing_room.simulation.agenda import Agenda
from fleet.envelope import Lane
from fleet.framing import FrameReader
from fleet.kind import SimulatorOutput, Truth
from fleet.messages import Event, Reason, ReplyStatus
from fleet.randomness import Randomness

OUTBOX_EVENTS_MAX: Final = 256
COMMANDS_REMEMBERED_MAX: Final = 32
REPEAT_MS_FIRST: Final = 2_000
REPEAT_MS_MAX: Final = {Lane.EMERGENCY: 8_000, Lane.EVENT: 30_000}
_LIGHT_EVENTS: Final = {
    "show_received": RoomCallEvent.SHOW_RECEIVED,
    "show_help_coming": RoomCallEvent.SHOW_HELP_COMING,
}


class Recorder:
    """Collects what one call of the simulator gives back."""

    def __init__(self, device_id: str) -> None:
        self._device_id = device_id
        self._bytes = bytearray()
        self._truths: list[Truth] = []

    def send(self, data: bytes) -> None:
        """Bytes towards the driver."""
        self._bytes += data

    def happened(self, at_ms: int, what: str, event_id: str | None = None, /, **facts: Any) -> None:
        """One line of truth."""
        self._truths.append(Truth(at_ms, self._device_id, what, event_id, facts))

    def take(self) -> SimulatorOutput:
        """Everything since the last take."""
        output = SimulatorOutput(bytes(self._bytes), tuple(self._truths))
        self._bytes.clear()
        self._truths.clear()
        return output


class Firmware:
    """`sense(at, call)` reads the room's sensors; `orders[action](command_id, now_ms)` carries out long commands."""

    def __init__(
        self,
        agenda: Agenda,
        recorder: Recorder,
        randomness: Randomness,
        sense: Callable[[int, RoomCallState], RoomReading],
    ) -> None:
        self.orders: dict[str, Callable[[bytes, int], None]] = {}
        self.running = True
        self.call = ROOM_CALL.initial
        self.press_id: str | None = None
        """The press that opened the call."""
        self._latest_press_id: str | None = None
        self._agenda = agenda
        self._recorder = recorder
        self._randomness = randomness
        self._sense = sense
        self._reader = FrameReader()
        self._last_reading_at = 0
        self._outbox: dict[Lane, deque[tuple[int, Event]]] = {Lane.EMERGENCY: deque(), Lane.EVENT: deque()}
        self._repeat_ms = dict.fromkeys(self._outbox, REPEAT_MS_FIRST)
        self._answers: OrderedDict[bytes, tuple[ReplyStatus, Reason]] = OrderedDict()

    @property
    def unacknowledged(self) -> int:
        """Events the edge has not taken over yet."""
        return sum(len(queue) for queue in self._outbox.values())

    def new_id(self) -> str:
        """128 random bits in hex, from the controller's own generator."""
        return f"{self._randomness.getrandbits(128):032x}"

    def new_press_id(self) -> str:
        """A version 4 UUID in hex (RFC 9562)."""
        bits = self._randomness.getrandbits(128)
        return f"{bits & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62:032x}"

    # --- what the room tells ---

    def read(self, now_ms: int) -> None:
        """Send a reading; its time is later than any before, so that (device, at) names it."""
        if not self.running:
            return
        at = self._last_reading_at = max(now_ms, self._last_reading_at + 1)
        reading = self._sense(at, self.call)
        self._recorder.happened(now_ms, "reading", None, **reading.model_dump())
        self._recorder.send(frames.encode_reading(reading))

    def report(self, event: Event, now_ms: int) -> None:
        """Keep an event until the edge has it, and send it if nothing of its lane waits before it."""
        facts = event.model_dump(exclude={"type", "event_id"})
        self._recorder.happened(now_ms, event.type, event.event_id, **facts)
        if self.unacknowledged >= OUTBOX_EVENTS_MAX:
            self._evict(now_ms)
        queue = self._outbox[event.lane]
        queue.append((now_ms, event))
        if len(queue) == 1 and self.running:
            self._repeat_ms[event.lane] = REPEAT_MS_FIRST
            self._send_head(event.lane, now_ms)

    def _evict(self, now_ms: int) -> None:
        lane = Lane.EVENT if self._outbox[Lane.EVENT] else Lane.EMERGENCY  # presses go last, and never unsaid
        _, event = self._outbox[lane].popleft()
        self._recorder.happened(now_ms, "event_evicted", event.event_id, evicted=event.type)

    def _send_head(self, lane: Lane, now_ms: int) -> None:
        queue = self._outbox[lane]
        if not queue or not self.running:
            self._agenda.cancel(f"repeat_{lane}")
            return
        self._recorder.send(frames.encode_event(*queue[0]))
        self._agenda.set(f"repeat_{lane}", now_ms + self._repeat_ms[lane])

    def repeat(self, lane: Lane, now_ms: int) -> None:
        """The acknowledgement did not come in time: send again, ever more slowly up to the lane's limit."""
        self._repeat_ms[lane] = min(self._repeat_ms[lane] * 2, REPEAT_MS_MAX[lane])
        self._send_head(lane, now_ms)

    # --- power ---

    def stop(self) -> None:
        """Power fails: everything volatile is gone."""
        self.running = False
        self._reader = FrameReader()
        self._answers.clear()
        for lane in self._outbox:
            self._agenda.cancel(f"repeat_{lane}")

    def start(self, now_ms: int) -> None:
        """Power is back: take up every unacknowledged event where it was."""
        self.running = True
        self._send_all(now_ms)

    def _send_all(self, now_ms: int) -> None:
        self.read(now_ms)
        for lane in self._outbox:
            self._repeat_ms[lane] = REPEAT_MS_FIRST
            self._send_head(lane, now_ms)

    # --- the call ---

    def step(self, event: RoomCallEvent) -> bool:
        """Move the call; False, and nothing changed, where the table does not allow it."""
        if not ROOM_CALL.allows(self.call, event):
            return False
        self.call = ROOM_CALL.next(self.call, event)
        return True

    def press(self, press_id: str) -> None:
        """A press opens a call or joins the open one."""
        opens = self.call is RoomCallState.IDLE
        self.step(RoomCallEvent.PRESS)
        self.press_id = press_id if opens else self.press_id
        self._latest_press_id = press_id

    def clear(self) -> str | None:
        """The clear key: the id of the call that ended, None if none was open."""
        if not self.step(RoomCallEvent.CLEAR_KEY):
            return None
        ended, self.press_id, self._latest_press_id = self.press_id, None, None
        return ended

    # --- what the room is told ---

    def on_bytes(self, data: bytes, now_ms: int) -> None:
        """Bytes from the edge; without power nobody listens."""
        if not self.running:
            return
        for frame_type, body in self._reader.feed(data):
            try:
                self._on_frame(frame_type, body, now_ms)
            except frames.FrameBodyError:
                self._recorder.happened(now_ms, "line_frame_refused", None, frame_type=frame_type)

    def _on_frame(self, frame_type: int, body: bytes, now_ms: int) -> None:
        if frame_type == FrameType.EVENT_ACK:
            self._on_event_ack(body.hex(), now_ms)
        elif frame_type == FrameType.COMMAND:
            self._on_command(*frames.decode_command(body), now_ms)
        elif frame_type == FrameType.STATUS_REQUEST:
            self._send_all(now_ms)
        else:
            self._recorder.happened(now_ms, "line_frame_refused", None, frame_type=frame_type)

    def _on_event_ack(self, event_id: str, now_ms: int) -> None:
        for lane, queue in self._outbox.items():
            if queue and queue[0][1].event_id == event_id:
                queue.popleft()
                self._repeat_ms[lane] = REPEAT_MS_FIRST
                self._send_head(lane, now_ms)

    def _on_command(self, command_id: bytes, action: str, press_id: bytes, now_ms: int) -> None:
        answer = self._answers.get(command_id)
        if answer is not None:
            self._recorder.send(frames.encode_progress(command_id, *answer))
        elif action in _LIGHT_EVENTS:
            self._on_light(command_id, action, press_id, now_ms)
        elif action not in self.orders:
            self.answer(command_id, ReplyStatus.REFUSED, "unknown_action")
        elif self.call is not RoomCallState.IDLE:
            self.answer(command_id, ReplyStatus.REFUSED, "busy")
        else:
            self.answer(command_id, ReplyStatus.EXECUTING)
            self.orders[action](command_id, now_ms)

    def _on_light(self, command_id: bytes, action: str, press_id: bytes, now_ms: int) -> None:
        before = self.call
        concerned = press_id == frames.ANY_PRESS or press_id.hex() == self._latest_press_id
        if not concerned or not self.step(_LIGHT_EVENTS[action]):
            self.answer(command_id, ReplyStatus.FAILED, "not_possible")
            return
        self.answer(command_id, ReplyStatus.SUCCEEDED)
        if self.call is not before:
            self._recorder.happened(now_ms, "light_shown", None, light=self.call.value, press_id=self.press_id)
            self.read(now_ms)

    def answer(self, command_id: bytes, status: ReplyStatus, reason: Reason = "") -> None:
        """Tell the edge how far a command came, and remember it for a repetition."""
        self._answers[command_id] = (status, reason)
        self._answers.move_to_end(command_id)
        if len(self._answers) > COMMANDS_REMEMBERED_MAX:
            self._answers.popitem(last=False)
        self._recorder.send(frames.encode_progress(command_id, status, reason))
