"""Commands from the cloud: who signed it, for whom, how old is it, was it seen; then at most one actuation per id.

An id is durable in the journal before anything moves, and its outcome before the final reply leaves. Final replies
are repeated on every connection and on a timer until the cloud has acknowledged them. What nobody trusted has signed,
or what was signed for another device, gets no answer: an answer would let strangers end somebody else's command.

| bound | at the bound | counted as |
|---|---|---|
| `Timing.commands_running_max`, urgent ones a few more | refused, `busy` | `refused_busy` |
| `Timing.interim_replies_max` | the oldest interim one is not sent, the final one is | `interim_dropped` |
| `Timing.final_replies_max` in memory | the newest wait in the journal for those before them | `finals_parked` |
| `Bounds.commands_max` ids in the journal | those that are over make room, else `busy` | `refused_not_remembered` |
| `_NOT_KEPT_MAX` ids refused because the journal was full | the oldest is forgotten | `not_kept_forgotten` |
"""

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from pydantic import ValidationError

from edge.command_keys import TrustedKeys
from edge.journal import Journal
from edge.link import Session
from edge.records import Admission, CommandRecord, JournalFullError
from edge.timing import Timing
from edge.trusted_time import TrustedTime
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.envelope import EnvelopeError
from fleet.kind import Kind, Progress
from fleet.messages import FINAL_REPLIES, Command, Reason, Reply, ReplyStatus
from fleet.milestones import reached
from fleet.signing import BadSignatureError, CommandOrder, verify_command
from fleet.topics import UpChannel

_NOT_KEPT_MAX: Final = 256  # ids refused because the journal was full; they expire long before as many came
_URGENT_RESERVE: Final = 8  # urgent commands that may run beyond the bound
_AHEAD_S_MAX: Final = 5.0  # real seconds a command may come from the future: the monotonic clocks drift apart
_TELL_AGAIN_S: Final = 60.0  # who floods us with forged commands must not flood the log

_log = logging.getLogger(__name__)


class _Action(msgspec.Struct):
    action: str


_action_decoder = msgspec.json.Decoder(_Action)


@dataclass(slots=True)
class _FinalReply:
    reply: Reply
    attempts: int = 0
    due_s: float = 0.0


class Downlink:
    """The receiving side of one device."""

    def __init__(
        self,
        device_id: str,
        kind: Kind,
        journal: Journal,
        clock: Clock,
        *,
        timing: Timing,
        keys: TrustedKeys,
        trusted_time: TrustedTime,
        generation: Callable[[], int],
        ask_time: Callable[[], None] = lambda: None,
    ) -> None:
        """`ask_time` is called when a command could not be judged for want of the cloud's time."""
        self.counts: Counter[str] = Counter()
        """Refusals by reason, and what else happened."""
        self._device_id = device_id
        self._kind = kind
        self._journal = journal
        self._clock = clock
        self._timing = timing
        self._keys = keys
        self._trusted_time = trusted_time
        self._generation = generation
        self._ask_time = ask_time
        self._told_s: dict[str, float] = {}
        self._parked = False
        self._running: dict[str, ReplyStatus] = {}
        self._left_over: set[str] = set()
        self._left_over_until_s = 0.0
        self._finals: dict[str, _FinalReply] = {}
        self._not_kept: dict[str, CommandRecord] = {}
        self._interim: deque[Reply] = deque(maxlen=timing.interim_replies_max)
        self._wake = asyncio.Event()

    async def restore(self) -> None:
        """Take up commands and unacknowledged replies from before the start."""
        for record in await self._journal.read(lambda store: store.open_commands(self._device_id)):
            if record.final:
                self._keep_final(record)
            else:
                self._running[record.command_id] = record.status
                self._left_over.add(record.command_id)
        self._left_over_until_s = (
            self._clock.monotonic_s() + self._timing.unfinished_command_business_s / self._clock.speed
        )

    # --- commands in --------------------------------------------------------------------------------------------

    async def on_order(self, data: bytes) -> tuple[str, Command] | None:
        """(id, command) to carry out now, durably remembered; None if it was refused, unreadable or a repetition."""
        order = self._open(data)
        if order is None:
            return None
        known, forgotten = await self._journal.read(
            lambda store: store.known_command(self._device_id, order.id, order.not_after)
        )
        known = self._not_kept.get(order.id) or known
        if known is not None:
            self._repeat(known)
            return None
        if forgotten:  # it may have been carried out once, whatever the time is said to be now
            self.counts["refused_forgotten"] += 1
            self._finish(self._record(order, ReplyStatus.EXPIRED, "expired"))
            return None
        command, status, reason = self._judge(order)
        if not await self._remember(self._record(order, status, reason)):
            return None
        if command is None:
            self.counts[f"refused_{reason}"] += 1
            self._finish(self._record(order, status, reason))
            return None
        self.counts["accepted"] += 1
        self._running[order.id] = status
        self._say(order.id, status, reason)
        return order.id, command

    def _open(self, data: bytes) -> CommandOrder | None:
        reason = "wrong_device"
        try:
            order = verify_command(data, self._keys.verifiers)
            if order.device_id == self._device_id:
                return order
        except BadSignatureError as error:
            reason = error.reason
        except EnvelopeError:
            reason = "unreadable"
        self.counts[f"ignored_{reason}"] += 1
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s.get(reason, -math.inf) >= _TELL_AGAIN_S:
            self._told_s[reason] = now_s
            total = self.counts[f"ignored_{reason}"]
            _log.warning("%s: command ignored: %s (%d so far)", self._device_id, reason, total)
        return None

    def _judge(  # noqa: PLR0911  # one line per reason, in the order in which they are decided
        self, order: CommandOrder
    ) -> tuple[Command | None, ReplyStatus, Reason]:
        now_ms = self._trusted_time.latest_ms()
        if now_ms is None or order.issued_at > now_ms + self._ahead_ms_max:
            self._ask_time()  # the cloud's clock was set since it told us, or has never told us
            return None, ReplyStatus.REFUSED, "untrusted_time"
        if order.generation != self._generation():
            return None, ReplyStatus.REFUSED, "wrong_generation"
        if now_ms > order.not_after:
            return None, ReplyStatus.EXPIRED, "expired"
        try:
            model = self._kind.command_type(_action_decoder.decode(order.command).action)
        except (KeyError, msgspec.DecodeError):
            return None, ReplyStatus.REFUSED, "unknown_action"
        if now_ms > order.issued_at + model.lifetime_s_max * MILLISECONDS_PER_SECOND:
            return None, ReplyStatus.EXPIRED, "expired"
        if len(self._running) >= self._timing.commands_running_max + (_URGENT_RESERVE if model.urgent else 0):
            return None, ReplyStatus.REFUSED, "busy"
        try:
            return model.model_validate_json(bytes(order.command)), ReplyStatus.ACCEPTED, ""
        except ValidationError:
            return None, ReplyStatus.REFUSED, "invalid_arguments"

    @property
    def _ahead_ms_max(self) -> float:
        return _AHEAD_S_MAX * MILLISECONDS_PER_SECOND * self._clock.speed

    def _record(self, order: CommandOrder, status: ReplyStatus, reason: Reason) -> CommandRecord:
        at, not_after = self._clock.now_ms(), order.not_after
        return CommandRecord(order.id, status, reason, at, reply_acknowledged=False, not_after=not_after)

    async def _remember(self, record: CommandRecord) -> bool:
        """Whether the id is durable and new; if not, it must not move: what cannot be kept could be done twice."""
        try:
            admission = await self._journal.remember_command(self._device_id, record, self._trusted_time.latest_ms())
        except JournalFullError:
            self._refuse_unkept(record, "not_possible")
            return False
        if admission is Admission.NEW:
            reached("edge.command.after_remember")
            return True
        if admission is Admission.FULL:
            self._refuse_unkept(record, "busy")
        else:
            self.counts["replayed"] += 1
        return False

    def _refuse_unkept(self, record: CommandRecord, reason: Reason) -> None:
        self.counts["refused_not_remembered"] += 1
        refusal = replace(record, status=ReplyStatus.REFUSED, reason=reason)
        self._not_kept[record.command_id] = refusal
        if len(self._not_kept) > _NOT_KEPT_MAX:
            del self._not_kept[next(iter(self._not_kept))]
            self.counts["not_kept_forgotten"] += 1
        self._finish(refusal)

    def _repeat(self, known: CommandRecord) -> None:
        """The same order again: the same answer again, and no second movement."""
        self.counts["replayed"] += 1
        if known.final:
            self._finish(known)
        else:
            status = self._running.get(known.command_id)
            if status is not None:
                self._say(known.command_id, status, known.reason)

    # --- progress out -------------------------------------------------------------------------------------------

    async def on_progress(self, progress: Progress) -> None:
        """How far the hardware came; anything after the end of a command is ignored."""
        if progress.command_id not in self._running:
            self.counts["progress_ignored"] += 1
            return
        if progress.status not in FINAL_REPLIES:
            self._running[progress.command_id] = progress.status
            self._say(progress.command_id, progress.status, progress.reason)
            return
        del self._running[progress.command_id]
        self._left_over.discard(progress.command_id)
        record = CommandRecord(
            progress.command_id, progress.status, progress.reason, self._clock.now_ms(), reply_acknowledged=False
        )
        self.counts[progress.status.value] += 1
        with suppress(JournalFullError):  # the id stays durable; after a crash the outcome would be `unknown`
            await self._journal.conclude_command(self._device_id, record)
        self._finish(record)

    @property
    def next_due_ms(self) -> int | None:
        """When `give_up_left_over` wants to be called, business ms."""
        if not self._left_over:
            return None
        remaining_s = (self._left_over_until_s - self._clock.monotonic_s()) * self._clock.speed
        return self._clock.now_ms() + math.ceil(remaining_s * MILLISECONDS_PER_SECOND)

    async def give_up_left_over(self) -> None:
        """Commands that ran when the agent last stopped and of which the hardware said nothing more."""
        if self._left_over and self._clock.monotonic_s() >= self._left_over_until_s:
            for command_id in sorted(self._left_over):
                await self.on_progress(Progress(command_id, ReplyStatus.FAILED, "unknown"))

    def _finish(self, record: CommandRecord) -> None:
        self._keep_final(record)
        self._wake.set()

    def _keep_final(self, record: CommandRecord) -> None:
        if len(self._finals) < self._timing.final_replies_max or record.command_id in self._finals:
            self._finals[record.command_id] = _FinalReply(self._reply(record))
        else:
            self._parked = True
            self.counts["finals_parked"] += 1

    def _say(self, command_id: str, status: ReplyStatus, reason: Reason) -> None:
        if len(self._interim) == self._interim.maxlen:
            self.counts["interim_dropped"] += 1
        self._interim.append(
            Reply(
                command_id=command_id, device_id=self._device_id, status=status, reason=reason, at=self._clock.now_ms()
            )
        )
        self._wake.set()

    def _reply(self, record: CommandRecord) -> Reply:
        return Reply(
            command_id=record.command_id,
            device_id=self._device_id,
            status=record.status,
            reason=record.reason,
            at=record.at,
        )

    async def on_replies_acknowledged(self, command_ids: Iterable[str]) -> None:
        """The cloud committed these final replies."""
        known = [command_id for command_id in command_ids if self._finals.pop(command_id, None)]
        if known:
            with suppress(JournalFullError):  # repeated after a restart, acknowledged again
                await self._journal.acknowledge_replies(self._device_id, known)
        if self._parked and not self._finals:
            self._parked = False
            for record in await self._journal.read(lambda store: store.open_commands(self._device_id)):
                if record.final:
                    self._finish(record)

    async def run(self, session: Session) -> None:
        """Publish replies on `session` until it breaks (LinkError)."""
        for final in self._finals.values():
            final.attempts, final.due_s = 0, 0.0
        while True:
            self._wake.clear()
            while self._interim:
                await session.publish(UpChannel.REPLY, _encode(self._interim.popleft()))
            next_due_s: float | None = None
            for final in list(self._finals.values()):
                now_s = self._clock.monotonic_s()
                if final.due_s <= now_s:
                    pause_s = min(
                        self._timing.reply_first_s * 2.0 ** min(final.attempts, 16), self._timing.reply_most_s
                    )
                    final.attempts += 1
                    final.due_s = now_s + pause_s
                    await session.publish(UpChannel.REPLY, _encode(final.reply))
                next_due_s = final.due_s if next_due_s is None else min(next_due_s, final.due_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    None if next_due_s is None else max(0.0, next_due_s - self._clock.monotonic_s())
                ):
                    await self._wake.wait()

    @property
    def unacknowledged_replies(self) -> int:
        """Final replies the cloud has not confirmed."""
        return len(self._finals)


def _encode(reply: Reply) -> bytes:
    return reply.model_dump_json().encode()
