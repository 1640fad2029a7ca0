"""Edge side of the serial line: frames in, messages out, and commands that are asked again until answered."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from devices.meal_machine import frames, messages
from devices.meal_machine.frames import FrameType
from fleet.framing import FrameReader
from fleet.kind import DriverOutput, Progress
from fleet.messages import FINAL_REPLIES, Command, Event, Reading, Reason, ReplyStatus

PENDING_COMMANDS_MAX: Final = 16
REMEMBERED_IDS_MAX: Final = 256
ASK_AGAIN_MS: Final = 2_000
ASK_AGAIN_ACCEPTED_MS: Final = 15_000
ANSWER_WITHIN_MS: Final = 20_000
"""Without any progress for so long after a command was written, the hardware counts as silent."""
FINISH_WITHIN_MS: Final = 240_000
"""Longer than the hardware may take for the longest sale it accepts (`controller.SALE_LIMIT_MS`)."""

_ORDER: Final = {ReplyStatus.ACCEPTED: 1, ReplyStatus.EXECUTING: 2}


@dataclass
class _Pending:
    frame: bytes
    ask_again_at_ms: int
    give_up_at_ms: int
    status: ReplyStatus | None = None


def _remember(memory: "OrderedDict[str, None]", key: str) -> None:
    memory[key] = None
    memory.move_to_end(key)
    if len(memory) > REMEMBERED_IDS_MAX:
        memory.popitem(last=False)


class MealMachineDriver:
    """Bytes ↔ messages of one machine.

    An event is returned once. A caller that fails to journal it must go on trying, and write no `after_commit`
    meanwhile.
    """

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self._reader = FrameReader()
        self._bad_bodies = 0
        self._pending: dict[str, _Pending] = {}
        self._seen_events: OrderedDict[str, None] = OrderedDict()
        self._finished_commands: OrderedDict[str, None] = OrderedDict()

    @property
    def frame_errors(self) -> int:
        """Frames with a wrong checksum, length or content since the start."""
        return self._reader.errors + self._bad_bodies

    @frame_errors.setter
    def frame_errors(self, value: int) -> None:
        self._reader.errors, self._bad_bodies = value, 0

    @property
    def next_due_ms(self) -> int | None:
        due = [min(item.ask_again_at_ms, item.give_up_at_ms) for item in self._pending.values()]
        return min(due, default=None)

    def on_start(self, now_ms: int) -> DriverOutput:  # noqa: ARG002  # the port's signature
        return DriverOutput(to_hardware=frames.encode_query())

    def on_bytes(self, data: bytes, now_ms: int) -> DriverOutput:
        readings: list[Reading] = []
        events: list[tuple[int, Event]] = []
        progress: list[Progress] = []
        line_acks = bytearray()
        for frame_type, body in self._reader.feed(data):
            try:
                if frame_type == FrameType.READING:
                    readings.append(frames.decode_reading(body))
                elif frame_type == FrameType.PROGRESS:
                    progress += self._progressed(frames.decode_progress(body), now_ms)
                elif frame_type == FrameType.EVENT:
                    occurred_at, event = frames.decode_event(body)
                    line_acks += frames.encode_event_ack(event.event_id)
                    if event.event_id not in self._seen_events:
                        _remember(self._seen_events, event.event_id)
                        events.append((occurred_at, event))
                        progress += self._progress_told_by(event, now_ms)
                else:
                    self._bad_bodies += 1
            except frames.FrameError:
                self._bad_bodies += 1
        return DriverOutput(
            readings=tuple(readings), events=tuple(events), progress=tuple(progress), after_commit=bytes(line_acks)
        )

    def on_command(self, command_id: str, command: Command, now_ms: int) -> DriverOutput:
        if command_id in self._pending or command_id in self._finished_commands:
            return DriverOutput()  # a repeat: its progress is told already, or is to come
        if len(self._pending) >= PENDING_COMMANDS_MAX:
            return DriverOutput(progress=(Progress(command_id, ReplyStatus.REFUSED, "busy"),))
        frame = frames.encode_command(command_id, command)
        self._pending[command_id] = _Pending(frame, now_ms + ASK_AGAIN_MS, now_ms + ANSWER_WITHIN_MS)
        return DriverOutput(to_hardware=frame)

    def on_acknowledged(self, event: Event, now_ms: int) -> DriverOutput:  # noqa: ARG002  # a machine shows no acks
        return DriverOutput()

    def on_timer(self, now_ms: int) -> DriverOutput:
        progress: list[Progress] = []
        to_hardware = bytearray()
        for command_id, item in list(self._pending.items()):
            if now_ms >= item.give_up_at_ms:
                progress.append(self._finish(command_id, ReplyStatus.FAILED, "hardware_silent"))
            elif now_ms >= item.ask_again_at_ms:
                to_hardware += item.frame
                item.ask_again_at_ms = now_ms + (ASK_AGAIN_MS if item.status is None else ASK_AGAIN_ACCEPTED_MS)
        return DriverOutput(progress=tuple(progress), to_hardware=bytes(to_hardware))

    def _finish(self, command_id: str, status: ReplyStatus, reason: Reason) -> Progress:
        self._pending.pop(command_id, None)
        _remember(self._finished_commands, command_id)
        return Progress(command_id, status, reason)

    def _progressed(self, told: Progress, now_ms: int) -> list[Progress]:
        """Progress worth passing on: each status once, and nothing after the final one."""
        if told.command_id in self._finished_commands:
            return []
        if told.status in FINAL_REPLIES:
            return [self._finish(told.command_id, told.status, told.reason)]
        item = self._pending.get(told.command_id)
        if item is None:  # asked for before this driver started: watch it to its end as far as the hardware tells
            return [told]
        before = _ORDER[item.status] if item.status else 0
        if item.status is None:
            item.give_up_at_ms = now_ms + FINISH_WITHIN_MS
            item.ask_again_at_ms = now_ms + ASK_AGAIN_ACCEPTED_MS
        if _ORDER[told.status] <= before:
            return []
        item.status = told.status
        return [told]

    def _progress_told_by(self, event: Event, now_ms: int) -> list[Progress]:
        """A sale's events also tell how its command went, in case the progress frame was lost."""
        if isinstance(event, messages.SaleDelivered):
            told = Progress(event.command_id, ReplyStatus.SUCCEEDED)
        elif isinstance(event, messages.SaleFailed):
            told = Progress(event.command_id, ReplyStatus.FAILED, event.reason)
        elif isinstance(event, messages.SaleReserved):
            told = Progress(event.command_id, ReplyStatus.ACCEPTED)
        else:
            return []
        return self._progressed(told, now_ms)


def create(device_id: str) -> MealMachineDriver:
    """A driver for one line; nothing is written until `on_start`."""
    return MealMachineDriver(device_id)
