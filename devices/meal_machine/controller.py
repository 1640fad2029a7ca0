"""The controller board of a meal machine: line protocol, durable memory, and what it does with commands.

Durable (survives a brown-out): sales under way with their stage, unacknowledged events, the answers to
commands, stock. Volatile: everything timed. A sale's stage is written before the side effect it names,
so after a brown-out a sale in stage `dispensing` means "the motor may have moved": it is never vended
again and ends as `unknown`.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from devices.meal_machine import frames, messages
from devices.meal_machine.stock import Slot
from fleet.framing import FrameReader
from fleet.kind import Progress, Truth
from fleet.messages import FINAL_REPLIES, Command, Event, Reason, ReplyStatus
from fleet.randomness import Randomness

EVENTS_STORED_MAX: Final = 512
ANSWERS_STORED_MAX: Final = 256
EVENTS_REPEATED_AT_ONCE_MAX: Final = 16
REPEAT_FIRST_MS: Final = 5_000
REPEAT_LAST_MS: Final = 60_000
BOOT_MS: Final = 4_000
SALES_AT_ONCE_MAX: Final = 2
"""One in the heater and one waiting, so that every accepted sale ends within SALE_LIMIT_MS."""
SALE_LIMIT_MS: Final = 160_000
"""A motor never starts later than this after acceptance: the cloud refunds 180 s after payment."""

Stage = str
_SALE_FAILURES: Final = frozenset(get_args(messages.SaleFailureReason))


@dataclass
class Sale:
    """A durable record; `stage` is reserved → heating → dispensing."""

    purchase_id: str
    command_id: str
    slot: str
    sku: str
    lot: str
    expires_at: int
    accepted_at: int
    stage: Stage = "reserved"


@dataclass
class StoredEvent:
    frame: bytes
    repeat_at_ms: int
    wait_ms: int


@dataclass
class Line:
    """The serial line's faults: each outgoing frame may be damaged."""

    randomness: Randomness
    crc_error_per_frame: float
    dropped_byte_per_frame: float

    def damage(self, frame: bytes) -> bytes:
        chance = self.randomness.random()
        if chance < self.crc_error_per_frame:
            position = self.randomness.randint(0, len(frame) - 2)
            return frame[:position] + bytes(((frame[position] ^ 0x55) or 0x2A,)) + frame[position + 1 :]
        if chance < self.crc_error_per_frame + self.dropped_byte_per_frame:
            position = self.randomness.randint(0, len(frame) - 1)
            return frame[:position] + frame[position + 1 :]
        return frame


@dataclass
class Controller:
    """What the firmware holds. `up` is false between a brown-out and the end of the boot."""

    device_id: str
    randomness: Randomness
    line: Line
    slots: dict[str, Slot]
    up: bool = True
    sales: list[Sale] = field(default_factory=list)
    events: "OrderedDict[str, StoredEvent]" = field(default_factory=OrderedDict)
    answers: "OrderedDict[str, Progress]" = field(default_factory=OrderedDict)
    locked_out: bool = False
    needs_service: bool = False
    needs_restock: bool = False
    heater_fault: bool = False
    changed: bool = True
    """A reading is due at once."""
    to_driver: bytearray = field(default_factory=bytearray)
    truths: list[Truth] = field(default_factory=list)
    reader: FrameReader = field(default_factory=FrameReader)
    handle: Callable[[str, Command, int], None] = field(default=lambda *_: None)
    """What the machine does with a new command; set by the simulator."""

    # --- line ----------------------------------------------------------------------------------------------------

    def write(self, frame: bytes) -> None:
        if self.up:
            self.to_driver += self.line.damage(frame)

    def receive(self, data: bytes, now_ms: int) -> None:
        """Frames of the driver; noise and unreadable frames are ignored, the driver asks again."""
        for frame_type, body in self.reader.feed(data):
            if not self.up:
                continue
            try:
                if frame_type == frames.FrameType.QUERY:
                    self.changed = True
                    for stored in self.events.values():
                        stored.repeat_at_ms = now_ms
                elif frame_type == frames.FrameType.EVENT_ACK:
                    self.events.pop(frames.decode_event_ack(body), None)
                elif frame_type == frames.FrameType.COMMAND:
                    self._command(*frames.decode_command(body), now_ms)
            except frames.FrameError:
                self.reader.errors += 1

    def _command(self, command_id: str, command: Command, now_ms: int) -> None:
        known = self.answers.get(command_id)
        if known is not None:
            self.write(frames.encode_progress(known))
        else:
            self.handle(command_id, command, now_ms)

    def answer(self, command_id: str, status: ReplyStatus, reason: Reason = "") -> None:
        """Remember and tell how far a command came; a final answer is never replaced."""
        known = self.answers.get(command_id)
        if known is not None and known.status in FINAL_REPLIES:
            return
        progress = Progress(command_id, status, reason)
        self.answers[command_id] = progress
        if len(self.answers) > ANSWERS_STORED_MAX:
            self.answers.popitem(last=False)
        self.write(frames.encode_progress(progress))

    # --- events --------------------------------------------------------------------------------------------------

    def truth(self, what: str, now_ms: int, event_id: str | None = None, **facts: Any) -> None:
        self.truths.append(Truth(now_ms, self.device_id, what, event_id, facts))

    def raise_event(self, model: type[Event], now_ms: int, **facts: Any) -> None:
        """Store an event durably, log the truth, and send it; it is repeated until acknowledged."""
        event = model(event_id=f"{self.randomness.getrandbits(128):032x}", **facts)
        told = {name: value for name, value in facts.items() if not isinstance(value, tuple)}
        self.truth(event.type, now_ms, event.event_id, **told)
        if len(self.events) >= EVENTS_STORED_MAX:
            evicted, _ = self.events.popitem(last=False)
            self.truth("event_evicted", now_ms, evicted)
        frame = frames.encode_event(event, now_ms)
        self.events[event.event_id] = StoredEvent(frame, now_ms + REPEAT_FIRST_MS, REPEAT_FIRST_MS)
        self.changed = True
        self.write(frame)

    def repeat_events(self, now_ms: int) -> None:
        """Send again what was not acknowledged, oldest first, ever more slowly."""
        if not self.up:
            return
        due = [stored for stored in self.events.values() if stored.repeat_at_ms <= now_ms]
        for stored in due[:EVENTS_REPEATED_AT_ONCE_MAX]:
            self.write(stored.frame)
            stored.wait_ms = min(REPEAT_LAST_MS, stored.wait_ms * 2)
            stored.repeat_at_ms = now_ms + stored.wait_ms

    @property
    def next_repeat_ms(self) -> int | None:
        return min((stored.repeat_at_ms for stored in self.events.values()), default=None) if self.up else None

    # --- sales ---------------------------------------------------------------------------------------------------

    def fail(self, sale: Sale, reason: messages.SaleFailureReason, now_ms: int) -> None:
        """End a sale without a delivery, and account for its box as far as the controller knows."""
        self.sales.remove(sale)
        slot = self.slots[sale.slot]
        if sale.stage == "reserved":
            slot.put_back(sale.lot, sale.expires_at)
        elif sale.stage == "heating" or reason == "jam":
            slot.spoiled += 1
        self.raise_event(
            messages.SaleFailed, now_ms, purchase_id=sale.purchase_id, command_id=sale.command_id, reason=reason
        )
        self.answer(sale.command_id, ReplyStatus.FAILED, reason)

    def refuse(self, command_id: str, command: messages.Dispense, reason: Reason, now_ms: int) -> None:
        """Turn a sale down before it began."""
        self.answer(command_id, ReplyStatus.REFUSED, reason)
        if reason in _SALE_FAILURES:
            self.raise_event(
                messages.SaleFailed, now_ms, purchase_id=command.purchase_id, command_id=command_id, reason=reason
            )

    def recover(self, now_ms: int) -> None:
        """After a boot: no sale goes on. An intent to move a motor leaves only one honest answer."""
        for sale in list(self.sales):
            self.fail(sale, "unknown" if sale.stage == "dispensing" else "power_lost", now_ms)
        for command_id, progress in list(self.answers.items()):
            if progress.status not in FINAL_REPLIES:
                self.answer(command_id, ReplyStatus.FAILED, "power_lost")
