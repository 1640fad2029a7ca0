"""The way of the data, from the top.

    link ─► ingest ─► twin ─► rules ─► dispatch ─► spool fsync ─► SQL commit ─► PUBACK ─► acknowledgement
                                                                        └─► outbox, commands, live pages

One task owns every lane and works batch by batch, so a device's messages, people's acts on it and its
timers never race (decision 10). Nothing is acknowledged before it is durable (decision 9):

- telemetry is durable in the spool; twins follow on a slower beat, together with the spool position up
  to which they hold, and the rest of the spool is replayed at the start (ADR 0005);
- everything else, and whatever the rules conclude, is durable in one SQL transaction.

A failing commit is tried again with the same rows, all of them idempotent; nothing is acknowledged
meanwhile. Any other error ends the process, and its supervisor starts it again from what is durable.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
from sqlalchemy import RowMapping

from cloud import metrics
from cloud.batch import Batch
from cloud.commit import Committer, Listeners
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.planner import Dispatch
from cloud.identity.desk import IdentityDesk
from cloud.ingest import repository as ingest_rows
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.clock_watch import ClockWatch
from cloud.ingest.decoder import as_inbound
from cloud.ingest.intake import Ingest, Intake
from cloud.ingest.leases import Leases
from cloud.ingest.roll_call import RollCall
from cloud.ingest.steady import SteadyTime
from cloud.intents import IntentDesk
from cloud.lane_book import LaneBook
from cloud.model import DeviceLane, EventHandler, Inbound, Intent
from cloud.ports import Database, IntentRefusedError, Link, LiveChanges, TelemetrySpool, Wake
from cloud.rules.identities import Answer, emergency_digest, note_emergency, take_over
from cloud.rules.supervised import SupervisedRules
from cloud.twin import repository as twin_rows
from cloud.twin.stage import Twin
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.envelope import Hello, Lane
from fleet.kind import Kind
from fleet.milestones import reached

_log = structlog.get_logger(__name__)

IDLE_S_MAX: Final = 0.5
"""Longest real wait without looking at timers and intents: the backstop behind the wake-ups."""
FOLDED_AT_ONCE: Final = 200
"""Messages that are decoded before they are folded: some 300 KB of objects, which the processor's cache holds."""
TIMERS_PER_ROUND_MAX: Final = 48
"""Devices whose timers one round serves: when all fall silent at once, an emergency waits for one small commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """Bounds of one batch and of the slower beats, in real time."""

    batch_messages_max: int = 1000
    twin_flush_s: float = 0.5


class Pipeline:
    """The stages in their order. One instance per process that ingests."""

    def __init__(
        self,
        *,
        kinds: Mapping[str, Kind],
        link: Link,
        spool: TelemetrySpool,
        spool_name: str,
        database: Database,
        leases: Leases,
        dispatch: Dispatch,
        commands: DeviceCommands,
        acknowledger: Acknowledger,
        intents: IntentDesk,
        event_handlers: Mapping[tuple[str, str], Sequence[EventHandler]],
        changes: LiveChanges,
        wake_outbox: Wake,
        clock: Clock,
        limits: PipelineLimits,
        identity: IdentityDesk | None = None,
    ) -> None:
        self._link = link
        self._spool = spool
        self._spool_name = spool_name
        self._database = database
        self._leases = leases
        self._acknowledger = acknowledger
        self._clock = clock
        self._limits = limits
        self._twin = Twin(kinds)
        self._rules = SupervisedRules(kinds, clock.speed)
        self._book = LaneBook(self._twin, self._rules, clock)
        self.lanes = self._book.lanes
        self._ingest = Ingest(self.lanes, kinds)
        self._steady = SteadyTime(clock)
        self.clock_watch = ClockWatch(clock)
        self._roll_call = RollCall()
        self._committer = Committer(
            database=database,
            spool=spool,
            spool_name=spool_name,
            leases=leases,
            twin=self._twin,
            rules=self._rules,
            listeners=Listeners(
                dispatch=dispatch,
                commands=commands,
                intents=intents,
                acknowledger=acknowledger,
                event_handlers=event_handlers,
                changes=changes,
                wake_outbox=wake_outbox,
                identity=identity or IdentityDesk(),
            ),
            clock=clock,
            twin_flush_s=limits.twin_flush_s,
        )
        self._wake = asyncio.Event()
        self._intents_waiting = True
        self._intents_read_s = 0.0
        intents.on_submitted = self.intents_waiting
        self._leaving = False
        self.ready = asyncio.Event()

    # --- the rounds --------------------------------------------------------------------------------------------

    async def run(self, shards: Collection[int]) -> None:
        """Load what is durable, then work until cancelled or told to `leave`; may be run again, for other shards."""
        self._leaving = False
        if not await self._leases.take(shards, lambda: self._leaving):
            return
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._leases.keep())
            self._book.own(self._leases.shards)
            self._committer.forget()
            self._load(await self._database.read(twin_rows.lane_rows))
            await self._replay_spool()
            linked = group.create_task(self._link.run(self._wake.set, shards))
            self.ready.set()
            while not self._leaving:
                await self._round()
            self.ready.clear()
            linked.cancel()
            keeping.cancel()

    def leave(self) -> None:
        """Have `run` end after the round that is under way."""
        self._leaving = True
        self._wake.set()

    def intents_waiting(self) -> None:
        """Somebody put an act of a person into `intent`."""
        self._intents_waiting = True
        self._wake.set()

    async def _round(self) -> None:
        messages = self._link.take(self._limits.batch_messages_max)
        now_ms = self._clock.now_ms()
        self._book.watch(now_ms, connected=self._link.connected)
        self.clock_watch.look(now_ms, self.lanes)
        self._link.publish(self._roll_call.messages(self.lanes, connected=self._link.connected))
        self._ingest.excused_ms = self.clock_watch.excused(now_ms)
        due = self._book.schedule.due(now_ms, TIMERS_PER_ROUND_MAX)
        intents = await self._fetch_intents()
        if not (messages or due or intents or self._committer.flush_is_due()):
            await self._sleep(now_ms)
            return
        batch = await self._decide(messages, due, intents, now_ms)
        await self._committer.make_durable(batch)
        if messages:
            reached("ingest.before_puback")
        self._link.acknowledge(messages)
        if messages:
            reached("ingest.after_puback")
        self._publish(batch)

    async def _sleep(self, now_ms: int) -> None:
        wait_s = IDLE_S_MAX
        next_due = self._book.schedule.next_due
        if next_due is not None:
            wait_s = min(wait_s, max(0.0, (next_due - now_ms) / MILLISECONDS_PER_SECOND / self._clock.speed) + 0.001)
        if self._committer.dirty:
            wait_s = min(wait_s, self._limits.twin_flush_s)
        wait_s = min(wait_s, self._acknowledger.wait_s(self._clock.monotonic_s()))
        with suppress(TimeoutError):  # no `wait_for`: in Python 3.11 it may swallow the cancellation that ends us
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        self._wake.clear()
        self._link.publish(self._acknowledger.due(self._clock.monotonic_s(), self.lanes))
        self._link.publish(self.clock_watch.greetings(self.lanes))

    # --- deciding: pure, in memory -----------------------------------------------------------------------------

    async def _decide(
        self, messages: Sequence[Inbound], due: Sequence[str], intents: Sequence[Intent], now_ms: int
    ) -> Batch:
        batch = Batch(messages, now_ms, Intake())
        intake, steady_ms = batch.intake, self._steady.at(now_ms)
        for start in range(0, len(messages), FOLDED_AT_ONCE):
            some = messages[start : start + FOLDED_AT_ONCE]
            self._ingest.accept(some, now_ms, steady_ms=steady_ms, into=intake)
            self._fold_telemetry(batch)
        if messages:
            reached("ingest.after_decode")
        if intake.unknown:
            await self._learn(intake, now_ms)
            self._fold_telemetry(batch)
        for device_id in intake.acks:  # also a repeat or a hole shows that the device lives
            self.lanes[device_id].last_heard_at = now_ms
            self._rules.on_heard(self.lanes[device_id], now_ms, batch.decisions)
        await self._fold_events(batch)
        self._hear(batch)
        for item in intents:
            self._obey(item, batch)
        for device_id in due:
            lane = self.lanes[device_id]
            lane.next_due_at = None
            self._rules.on_timer(lane, now_ms, self._book.listening_since_ms, batch.decisions)
            batch.decisions.attention.add(device_id)
            self._touch(lane)
        for device_id in batch.decisions.attention:
            self._book.reschedule(self.lanes[device_id])
        return batch

    def _fold_telemetry(self, batch: Batch) -> None:
        now_ms, decisions, dirty = batch.now_ms, batch.decisions, self._committer.dirty
        intake, folded = batch.intake, batch.intake.folded.append
        on_reading, quiet, judge = self._twin.on_reading, self._rules.quiet, self._rules.on_reading
        for lane, envelope, raw in intake.telemetry:
            for reading in envelope.payload.readings:
                on_reading(lane, reading, now_ms)
                if not quiet[lane.kind](lane, reading.at):
                    judge(lane, reading.at, now_ms, decisions)
            folded((lane, envelope.seq, raw))
            dirty[lane.device_id] = lane
            if lane.next_due_at is None:
                self._book.reschedule(lane)
        intake.telemetry.clear()

    async def _fold_events(self, batch: Batch) -> None:
        """Events that are stored already come again after a device lost its storage: they were acted on then."""
        events = batch.intake.events
        if not events:
            return
        seen = await self._database.read(lambda tx: ingest_rows.stored_events(tx, events))
        for accepted in events:
            key = (accepted.lane.device_id, accepted.event.event_id)
            if key in seen:
                self._rules.on_repeat(accepted, batch.now_ms, batch.decisions)
            elif not accepted.early or self._rules.opens_call(accepted):
                seen.add(key)
                self._twin.on_event(accepted, batch.now_ms)
                self._rules.on_event(accepted, batch.now_ms, batch.decisions)
            else:
                accepted.event = None  # the end of a call waits for its turn: it may be the end of an earlier one
            if accepted.envelope.lane is Lane.EMERGENCY and not accepted.early:
                note_emergency(accepted.lane, accepted.envelope)
            self._touch(accepted.lane)

    def _hear(self, batch: Batch) -> None:
        for heard in batch.intake.heard:
            lane = self.lanes[heard.device_id]
            alive = heard.status is None or heard.status.online  # a last will is the broker's word
            if alive:
                lane.last_heard_at = batch.now_ms
            if heard.hello is not None:
                self._greet(lane, heard.hello, batch)
            elif heard.status is not None:
                before = lane.online
                self._twin.on_status(lane, heard.status, batch.now_ms)
                if lane.online != before:
                    batch.linked.append(lane)
                    if before:
                        self._rules.on_dropped(lane, batch.now_ms, batch.decisions)
            elif heard.reply is not None:
                batch.replies.append(heard.reply)
            elif heard.request is not None:
                batch.requests.append(heard.request)
            if alive:
                self._rules.on_heard(lane, batch.now_ms, batch.decisions)
            self._touch(lane)

    def _greet(self, lane: DeviceLane, hello: Hello, batch: Batch) -> None:
        answer = self._rules.on_hello(lane, hello, batch.now_ms, batch.decisions)
        if take_over(lane, hello, answer):
            batch.renewed.append(lane)
        if answer is not Answer.NOTHING:
            batch.greeted.append((lane, hello))
        if hello.certificate:
            batch.proven.append((lane.device_id, hello.certificate))
        self._twin.on_hello(lane, hello, batch.now_ms)

    def _obey(self, item: Intent, batch: Batch) -> None:
        lane = self.lanes.get(item.device_id)
        try:
            if lane is None:
                raise IntentRefusedError(f"no device {item.device_id!r} in service")
            answer = self._rules.on_intent(lane, item, batch.now_ms, batch.decisions)
        except IntentRefusedError as refusal:
            batch.answers.append((item, None, str(refusal)))
            return
        if lane.retired:
            batch.retired.append(lane)
        batch.answers.append((item, msgspec.json.encode(answer).decode(), None))
        batch.decisions.attention.add(lane.device_id)
        self._touch(lane)

    def _touch(self, lane: DeviceLane) -> None:
        self._committer.dirty[lane.device_id] = lane
        if lane.next_due_at is None:
            self._book.reschedule(lane)

    # --- afterwards --------------------------------------------------------------------------------------------

    def _publish(self, batch: Batch) -> None:
        intake = batch.intake
        real_s = self._clock.monotonic_s()
        metrics.observe(intake)
        if self._link.connected:  # no welcome while emergencies can't be heard: the device says hello again
            for lane, hello in batch.greeted:
                if not lane.revoked:
                    digest = emergency_digest(lane)
                    self._acknowledger.welcome(lane, hello.nonce, batch.now_ms, hello.command_keys, digest)
        for accepted in intake.events:
            intake.ack(accepted.lane.device_id).urgent = True
        for reply in batch.replies:
            draft = intake.ack(reply.device_id)
            draft.urgent = True
            draft.replies.append(reply.command_id)
        self._acknowledger.note(intake, real_s)
        acknowledgements = self._acknowledger.due(real_s, self.lanes)
        if acknowledgements:
            reached("ingest.before_acknowledgement")
        self._link.publish([*acknowledgements, *self.clock_watch.greetings(self.lanes)])
        if acknowledgements:
            reached("ingest.after_acknowledgement")

    # --- start, and what happens rarely ------------------------------------------------------------------------

    def _load(self, rows: Sequence[RowMapping]) -> None:
        self._book.load(rows)
        self.clock_watch.known(self.lanes.values())
        self._ingest.forget_routes()

    async def _learn(self, intake: Intake, now_ms: int) -> None:
        """Devices enrolled since the start; whoever is still unknown then goes to quarantine."""
        wanted = sorted({device_id for device_id, _ in intake.unknown})
        self._load(await self._database.read(lambda tx: twin_rows.lane_rows(tx, wanted)))
        unknown = [message for _, message in intake.unknown]
        again = self._ingest.accept(unknown, now_ms, steady_ms=self._steady.at(now_ms), unknown_is_final=True)
        intake.merge(again)

    async def _fetch_intents(self) -> list[Intent]:
        began_s = self._clock.monotonic_s()
        if not self._intents_waiting and began_s - self._intents_read_s < IDLE_S_MAX:
            return []
        self._intents_waiting = False
        self._intents_read_s = began_s
        waiting = await self._database.read(ingest_rows.waiting_intents)
        mine = [item for item in waiting if self._book.owns(item.device_id)]
        unknown = sorted({item.device_id for item in mine if item.device_id not in self.lanes})
        if unknown:
            self._load(await self._database.read(lambda tx: twin_rows.lane_rows(tx, unknown)))
        return mine

    async def _replay_spool(self) -> None:
        """Bring the twins from their last commit to the end of the spool."""
        position = await self._database.read(lambda tx: ingest_rows.spool_position(tx, self._spool_name, "twin"))
        self._committer.spool_end = position
        replayed = 0
        while True:
            spooled = await asyncio.to_thread(self._spool.read, position)
            if not spooled.envelopes:
                break
            now_ms = self._clock.now_ms()
            intake = self._ingest.accept(as_inbound(spooled.envelopes), now_ms, unknown_is_final=True, replayed=True)
            batch = Batch((), now_ms, intake)
            intake.quarantined.clear()  # it was accepted once; whatever is odd now was stored then
            self._fold_telemetry(batch)
            intake.folded.clear()
            replayed += len(spooled.envelopes)
            position = self._committer.spool_end = spooled.next_position
            await self._committer.make_durable(batch)
        if replayed:
            _log.info("spool replayed into the twins", messages=replayed)
