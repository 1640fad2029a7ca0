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
from typing import Any, Final

import msgspec
import stamina
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from cloud import metrics
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.planner import Dispatch
from cloud.ingest import repository as ingest_rows
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.intake import Ingest, Intake
from cloud.ingest.leases import Leases
from cloud.intents import IntentDesk
from cloud.model import (
    CommandOutcome,
    Decisions,
    DeviceLane,
    EventHandler,
    Inbound,
    Intent,
    StoredEvent,
)
from cloud.ports import Database, IntentRefusedError, Link, LiveChanges, TelemetrySpool, Wake
from cloud.rules.stage import Rules
from cloud.schedule import Schedule
from cloud.twin import repository as twin_rows
from cloud.twin.stage import Twin
from fleet import topics
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.kind import Kind
from fleet.messages import Reply

_log = structlog.get_logger(__name__)

IDLE_S_MAX: Final = 0.5
"""Longest real wait without looking at timers and intents: the backstop behind the wake-ups."""
FEEDBACK_LIFETIME_S: Final = 60.0
CLOCK_STEP_MS: Final = 2_000
"""A wall clock that went so much more or less than the monotonic one was set."""
STALL_S: Final = 1.5
"""Real seconds between two rounds after which we were the ones who did not listen: nobody is silent for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """Bounds of one batch and of the slower beats, in real time."""

    batch_messages_max: int = 1000
    twin_flush_s: float = 0.5


@dataclass(slots=True)
class _Batch:
    """What one round is about to make durable."""

    messages: Sequence[Inbound]
    now_ms: int
    intake: Intake
    decisions: Decisions
    greeted: list[tuple[DeviceLane, str]]
    replies: list[Reply]
    answers: list[tuple[Intent, str | None, str | None]]
    renewed: list[DeviceLane]
    retired: list[DeviceLane]

    @property
    def needs_commit(self) -> bool:
        """Whether anything in it may not wait for the twins' slower beat."""
        return bool(
            self.intake.events
            or self.intake.gaps
            or self.intake.quarantined
            or self.decisions
            or self.intake.heard
            or self.answers
        )


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
    ) -> None:
        self._link = link
        self._spool = spool
        self._spool_name = spool_name
        self._database = database
        self._leases = leases
        self._dispatch = dispatch
        self._commands = commands
        self._acknowledger = acknowledger
        self._intents = intents
        intents.on_submitted = self.intents_waiting
        self._event_handlers = event_handlers
        self._changes = changes
        self._wake_outbox = wake_outbox
        self._clock = clock
        self._limits = limits

        self.lanes: dict[str, DeviceLane] = {}
        self._ingest = Ingest(self.lanes, kinds)
        self._twin = Twin(kinds)
        self._rules = Rules(kinds)
        self._schedule = Schedule()
        self._dirty: dict[str, DeviceLane] = {}
        self._spool_end = 0
        self._flushed_at_s = 0.0
        self._round_began_s = 0.0
        self._round_began_ms = 0
        self._listening_since_ms: int | None = None
        self._wake = asyncio.Event()
        self._intents_waiting = True
        self._intents_read_s = 0.0
        self.ready = asyncio.Event()

    # --- the rounds --------------------------------------------------------------------------------------------

    async def run(self, shards: Collection[int]) -> None:
        """Load what is durable, then work until cancelled."""
        await self._leases.take(shards)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leases.keep())
            self._load(await self._database.read(twin_rows.lane_rows))
            await self._replay_spool()
            group.create_task(self._link.run(self._wake.set, shards))
            self.ready.set()
            while True:
                await self._round()

    def intents_waiting(self) -> None:
        """Somebody put an act of a person into `intent`."""
        self._intents_waiting = True
        self._wake.set()

    async def _round(self) -> None:
        messages = self._link.take(self._limits.batch_messages_max)
        now_ms = self._clock.now_ms()
        self._watch_link(now_ms)
        due = self._schedule.due(now_ms)
        intents = await self._fetch_intents()
        if not (messages or due or intents or self._flush_is_due()):
            await self._sleep(now_ms)
            return
        batch = await self._decide(messages, due, intents, now_ms)
        await self._make_durable(batch)
        self._link.acknowledge(messages)
        self._publish(batch)

    async def _sleep(self, now_ms: int) -> None:
        wait_s = IDLE_S_MAX
        next_due = self._schedule.next_due
        if next_due is not None:
            wait_s = min(wait_s, max(0.0, (next_due - now_ms) / MILLISECONDS_PER_SECOND / self._clock.speed) + 0.001)
        if self._dirty:
            wait_s = min(wait_s, self._limits.twin_flush_s)
        wait_s = min(wait_s, self._acknowledger.wait_s(self._clock.monotonic_s()))
        with suppress(TimeoutError):  # no `wait_for`: in Python 3.11 it may swallow the cancellation that ends us
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        self._wake.clear()
        self._link.publish(self._acknowledger.due(self._clock.monotonic_s(), self.lanes))

    def _flush_is_due(self) -> bool:
        return bool(self._dirty) and self._clock.monotonic_s() - self._flushed_at_s >= self._limits.twin_flush_s

    def _watch_link(self, now_ms: int) -> None:
        """Silence of devices counts only while we can hear them at all: link up, and we not busy elsewhere."""
        began_s, self._round_began_s = self._round_began_s, self._clock.monotonic_s()
        stalled = self._round_began_s - began_s > STALL_S
        stalled = self._clock_was_set(now_ms, self._round_began_s - began_s) or stalled
        if not stalled and self._link.connected == (self._listening_since_ms is not None):
            return
        if stalled:
            metrics.STALLS.inc()
        self._listening_since_ms = now_ms if self._link.connected else None
        for lane in self.lanes.values():
            self._reschedule(lane)

    def _clock_was_set(self, now_ms: int, elapsed_s: float) -> bool:
        """Whether the wall clock jumped since the last round; then no wait may have become longer (decision 12)."""
        went_ms, self._round_began_ms = now_ms - self._round_began_ms, now_ms
        if abs(went_ms - elapsed_s * MILLISECONDS_PER_SECOND * self._clock.speed) <= CLOCK_STEP_MS * self._clock.speed:
            return False
        for lane in self.lanes.values():
            self._rules.clock_set(lane, now_ms)
        return True

    # --- deciding: pure, in memory -----------------------------------------------------------------------------

    async def _decide(
        self, messages: Sequence[Inbound], due: Sequence[str], intents: Sequence[Intent], now_ms: int
    ) -> _Batch:
        intake = self._ingest.accept(messages, now_ms)
        if intake.unknown:
            await self._learn(intake, now_ms)
        batch = _Batch(messages, now_ms, intake, Decisions(), [], [], [], [], [])
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
            self._rules.on_timer(lane, now_ms, self._listening_since_ms, batch.decisions)
            batch.decisions.attention.add(device_id)
            self._touch(lane)
        for device_id in batch.decisions.attention:
            self._reschedule(self.lanes[device_id])
        return batch

    def _fold_telemetry(self, batch: _Batch) -> None:
        now_ms, decisions, dirty = batch.now_ms, batch.decisions, self._dirty
        on_reading, judge = self._twin.on_reading, self._rules.on_reading
        for lane, envelope, _raw in batch.intake.telemetry:
            for reading in envelope.payload.readings:
                if on_reading(lane, reading, now_ms):
                    judge(lane, reading.at, now_ms, decisions)
            dirty[lane.device_id] = lane
            if lane.next_due_at is None:
                self._reschedule(lane)

    async def _fold_events(self, batch: _Batch) -> None:
        """Events that are stored already come again after a device lost its storage: they were acted on then."""
        events = batch.intake.events
        if not events:
            return
        seen = await self._database.read(lambda tx: ingest_rows.stored_events(tx, events))
        for accepted in events:
            key = (accepted.lane.device_id, accepted.event.event_id)
            if key not in seen:
                seen.add(key)
                self._twin.on_event(accepted, batch.now_ms)
                self._rules.on_event(accepted, batch.now_ms, batch.decisions)
            self._touch(accepted.lane)

    def _hear(self, batch: _Batch) -> None:
        for heard in batch.intake.heard:
            lane = self.lanes[heard.device_id]
            alive = heard.status is None or heard.status.online  # a last will is the broker's word
            if alive:
                lane.last_heard_at = batch.now_ms
            if heard.hello is not None:
                if heard.hello.storage_id != lane.storage_id:
                    # New storage, new keys: marks start again, and an old storage can't speak for this device any more.
                    lane.storage_id = heard.hello.storage_id
                    lane.generation += 1
                    lane.emergency_seq = lane.event_seq = lane.telemetry_seq = 0
                    batch.renewed.append(lane)
                batch.greeted.append((lane, heard.hello.nonce))
                self._twin.on_hello(lane, batch.now_ms)
            elif heard.status is not None:
                self._twin.on_status(lane, heard.status, batch.now_ms)
            elif heard.reply is not None:
                batch.replies.append(heard.reply)
            if alive:
                self._rules.on_heard(lane, batch.now_ms, batch.decisions)
            self._touch(lane)

    def _obey(self, item: Intent, batch: _Batch) -> None:
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
        self._dirty[lane.device_id] = lane
        if lane.next_due_at is None:
            self._reschedule(lane)

    def _reschedule(self, lane: DeviceLane) -> None:
        lane.next_due_at = self._rules.next_due(lane, self._listening_since_ms)
        self._schedule.put(lane.device_id, lane.next_due_at)

    # --- making it durable -------------------------------------------------------------------------------------

    async def _make_durable(self, batch: _Batch) -> None:
        if batch.intake.telemetry:
            await self._spool_telemetry(batch)
        if not (batch.needs_commit or self._flush_is_due()):
            return
        dirty, self._dirty = self._dirty, {}
        outcomes: list[CommandOutcome] = []
        notices: list[dict[str, Any]] = []

        def commit(tx: Connection) -> None:
            outcomes.clear()
            notices.clear()
            self._leases.check(tx)
            twin_rows.save(tx, dirty.values(), self._twin.encode_state, self._rules.encode_desk)
            for lane in batch.renewed:
                twin_rows.save_generation(tx, lane)
            for lane in batch.retired:
                twin_rows.retire(tx, lane.device_id, batch.now_ms)
            ingest_rows.save_spool_position(tx, self._spool_name, "twin", self._spool_end)
            ingest_rows.store_gaps(tx, batch.intake.gaps, batch.now_ms)
            ingest_rows.store_quarantined(tx, batch.intake.quarantined)
            self._store_events(tx, batch)
            outcomes.extend(self._commands.record_replies(tx, batch.replies, batch.now_ms))
            notices.extend(self._dispatch.plan(tx, batch.decisions, batch.now_ms))
            self._order_feedback(tx, batch)
            ingest_rows.answer_intents(tx, batch.answers, batch.now_ms)

        async for attempt in stamina.retry_context(on=OperationalError, attempts=None, timeout=None, wait_max=1.0):
            with attempt:
                await self._database.write(commit)
        self._flushed_at_s = self._clock.monotonic_s()
        self._acknowledger.committed(dirty.values(), self._flushed_at_s)
        metrics.COMMITS.inc()
        self._commands.settled(outcomes)
        self._announce(batch, notices, outcomes)
        await asyncio.to_thread(self._spool.release, "twin", self._spool_end)

    async def _spool_telemetry(self, batch: _Batch) -> None:
        raw = [message for _, _, message in batch.intake.telemetry]

        def append() -> int:
            self._spool.append(raw, [batch.now_ms] * len(raw))
            return self._spool.sync()

        try:
            self._spool_end = await asyncio.get_running_loop().run_in_executor(None, append)
        except Exception as error:  # noqa: BLE001  # full or broken: telemetry waits on the devices, all else goes on
            metrics.SPOOL_REFUSED.inc(len(raw))
            _log.error("telemetry not taken: the spool refused it", error=str(error), messages=len(raw))
            self._take_back(batch)

    @staticmethod
    def _take_back(batch: _Batch) -> None:
        """Telemetry that is not durable is not acknowledged: the marks go back, the devices send it again."""
        for lane, envelope, _raw in reversed(batch.intake.telemetry):
            lane.telemetry_seq = min(lane.telemetry_seq, envelope.seq - 1)
        batch.intake.telemetry.clear()

    def _store_events(self, tx: Connection, batch: _Batch) -> None:
        for accepted in batch.intake.events:
            if not ingest_rows.store_event(tx, accepted, batch.now_ms):
                continue
            event = accepted.event
            stored = StoredEvent(
                accepted.lane.device_id,
                accepted.lane.kind,
                event.type,
                event.event_id,
                accepted.envelope.occurred_at,
                batch.now_ms,
                event,
            )
            for handler in self._event_handlers.get((stored.kind, stored.type), ()):
                handler(tx, stored)

    def _order_feedback(self, tx: Connection, batch: _Batch) -> None:
        """Show the caller in the room that a person accepted."""
        for change in batch.decisions.calls:
            command = self._rules.feedback(change)
            if command is None:
                continue
            try:
                self._commands.order(tx, change.device_id, command, actor="system", lifetime_s=FEEDBACK_LIFETIME_S)
            except (LookupError, ValueError) as error:
                _log.warning("no feedback to the caller", device_id=change.device_id, error=str(error))

    # --- afterwards --------------------------------------------------------------------------------------------

    def _announce(self, batch: _Batch, notices: Sequence[dict[str, Any]], outcomes: Sequence[CommandOutcome]) -> None:
        if batch.decisions:
            self._wake_outbox()
        self._commands.after_commit()
        for notice in notices:
            self._changes.publish(str(notice["topic"]), notice)
        for accepted in batch.intake.events:
            self._changes.publish(
                "event",
                {
                    "device_id": accepted.lane.device_id,
                    "kind": accepted.lane.kind,
                    "type": accepted.event.type,
                    "event_id": accepted.event.event_id,
                    "at": accepted.envelope.occurred_at,
                },
            )
        for outcome in outcomes:
            self._changes.publish(
                "command",
                {
                    "id": outcome.command_id,
                    "device_id": outcome.device_id,
                    "status": outcome.status,
                    "reason": outcome.reason,
                },
            )
        self._intents.settled(batch.answers)

    def _publish(self, batch: _Batch) -> None:
        intake = batch.intake
        real_s = self._clock.monotonic_s()
        metrics.observe(intake)
        for lane, nonce in batch.greeted:
            self._acknowledger.welcome(lane, nonce, batch.now_ms)
        for accepted in intake.events:
            intake.ack(accepted.lane.device_id).urgent = True
        for reply in batch.replies:
            draft = intake.ack(reply.device_id)
            draft.urgent = True
            draft.replies.append(reply.command_id)
        self._acknowledger.note(intake, real_s)
        self._link.publish(self._acknowledger.due(real_s, self.lanes))

    # --- start, and what happens rarely ------------------------------------------------------------------------

    def _load(self, rows: Sequence[Any]) -> list[str]:
        loaded = []
        for row in rows:
            if row["device_id"] in self.lanes or not self._twin.knows(row["kind"]):
                continue
            if topics.shard_of(row["device_id"]) not in self._leases.shards:
                continue
            lane = self._twin.new_lane(row["device_id"], row["kind"])
            lane.desk = self._rules.new_desk()
            lane.generation, lane.storage_id = row["generation"], row["storage_id"]
            lane.retired = row["retired_at"] is not None
            if row["state"] is not None:
                self._restore(lane, row)
            self.lanes[lane.device_id] = lane
            self._reschedule(lane)
            loaded.append(lane.device_id)
        self._ingest.forget_routes()
        return loaded

    def _restore(self, lane: DeviceLane, row: Any) -> None:
        try:
            lane.state = self._twin.decode_state(lane.kind, row["state"])
        except msgspec.MsgspecError as error:  # an older release's state: begin afresh, lanes and incidents stay
            _log.warning(
                "state not readable, starting from the kind's initial state", device_id=lane.device_id, error=str(error)
            )
        lane.desk = self._rules.decode_desk(lane.kind, row["desk"])
        for name in (
            "emergency_seq",
            "event_seq",
            "telemetry_seq",
            "link_boot_epoch",
            "link_connection",
            "link_changed_at",
            "last_heard_at",
            "last_reading_at",
            "version",
        ):
            setattr(lane, name, row[name])
        lane.telemetry_committed_seq = lane.telemetry_seq
        lane.online = bool(row["online"])

    async def _learn(self, intake: Intake, now_ms: int) -> None:
        """Devices enrolled since the start; whoever is still unknown then goes to quarantine."""
        wanted = sorted({device_id for device_id, _ in intake.unknown})
        self._load(await self._database.read(lambda tx: twin_rows.lane_rows(tx, wanted)))
        again = self._ingest.accept([message for _, message in intake.unknown], now_ms, unknown_is_final=True)
        intake.merge(again)

    async def _fetch_intents(self) -> list[Intent]:
        if not self._intents_waiting and self._round_began_s - self._intents_read_s < IDLE_S_MAX:
            return []
        self._intents_waiting = False
        self._intents_read_s = self._round_began_s
        waiting = await self._database.read(ingest_rows.waiting_intents)
        mine = [item for item in waiting if topics.shard_of(item.device_id) in self._leases.shards]
        unknown = sorted({item.device_id for item in mine if item.device_id not in self.lanes})
        if unknown:
            self._load(await self._database.read(lambda tx: twin_rows.lane_rows(tx, unknown)))
        return mine

    async def _replay_spool(self) -> None:
        """Bring the twins from their last commit to the end of the spool."""
        position = await self._database.read(lambda tx: ingest_rows.spool_position(tx, self._spool_name, "twin"))
        self._spool_end = position
        replayed = 0
        while True:
            spooled = await asyncio.to_thread(self._spool.read, position)
            if not spooled.envelopes:
                break
            now_ms = self._clock.now_ms()
            batch = _Batch((), now_ms, Intake(), Decisions(), [], [], [], [], [])
            batch.intake = self._ingest.accept(_as_inbound(spooled.envelopes), now_ms, unknown_is_final=True)
            batch.intake.quarantined.clear()  # it was accepted once; whatever is odd now was stored then
            self._fold_telemetry(batch)
            batch.intake.telemetry.clear()
            replayed += len(spooled.envelopes)
            position = self._spool_end = spooled.next_position
            await self._make_durable(batch)
        if replayed:
            _log.info("spool replayed into the twins", messages=replayed)


def _as_inbound(envelopes: Sequence[bytes]) -> list[Inbound]:
    header = msgspec.json.Decoder(_Header)
    return [
        Inbound(topics.up(header.decode(raw).device_id, topics.UpChannel.TELEMETRY), raw, 0, 0) for raw in envelopes
    ]


class _Header(msgspec.Struct):
    device_id: str
