"""Makes a batch durable, then tells whoever waits for it.

Telemetry first: appended to the spool and synced. Then, if something may not wait for the twins' slower
beat, one SQL transaction with all of it, together with every twin that changed and the spool position up
to which the twins hold. A failing commit is tried again with the same rows, all of them idempotent.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import stamina
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from cloud import metrics
from cloud.batch import Batch
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.planner import Dispatch
from cloud.identity.desk import IdentityDesk
from cloud.ingest import repository as ingest_rows
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.leases import Leases
from cloud.intents import IntentDesk
from cloud.model import CommandOutcome, DeviceLane, EventHandler, StoredEvent
from cloud.ports import Database, LiveChanges, TelemetrySpool, Wake
from cloud.rules.stage import Rules
from cloud.synthetic import is_synthetic
from cloud.twin import repository as twin_rows
from cloud.twin.stage import Twin
from fleet.clock import Clock
from fleet.milestones import reached
from fleet.topics import UpChannel

_log = structlog.get_logger(__name__)

FEEDBACK_LIFETIME_S: Final = 60.0
REPEATED_AFTER_MS: Final = 60_000
"""A device whose emergencies can't be read is announced again in each new minute in which one comes."""
_EMERGENCY_SUFFIX: Final = f"/{UpChannel.EMERGENCY.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Who takes part in a commit, and who is told after it."""

    dispatch: Dispatch
    commands: DeviceCommands
    intents: IntentDesk
    acknowledger: Acknowledger
    event_handlers: Mapping[tuple[str, str], Sequence[EventHandler]]
    changes: LiveChanges
    wake_outbox: Wake
    identity: IdentityDesk


class Committer:
    """One per pipeline. `dirty` are lanes that changed since the last commit, by device id."""

    def __init__(
        self,
        *,
        database: Database,
        spool: TelemetrySpool,
        spool_name: str,
        leases: Leases,
        twin: Twin,
        rules: Rules,
        listeners: Listeners,
        clock: Clock,
        twin_flush_s: float,
    ) -> None:
        self.dirty: dict[str, DeviceLane] = {}
        self.spool_end = 0
        self._database = database
        self._spool = spool
        self._spool_name = spool_name
        self._leases = leases
        self._twin = twin
        self._rules = rules
        self._dispatch = listeners.dispatch
        self._commands = listeners.commands
        self._intents = listeners.intents
        self._acknowledger = listeners.acknowledger
        self._event_handlers = listeners.event_handlers
        self._changes = listeners.changes
        self._wake_outbox = listeners.wake_outbox
        self._identity = listeners.identity
        self._clock = clock
        self._twin_flush_s = twin_flush_s
        self._flushed_at_s = 0.0
        # A thread of its own: slow reads of the series or passwords being hashed must not delay a commit.
        self._spool_thread = ThreadPoolExecutor(1, thread_name_prefix="spool")

    def flush_is_due(self) -> bool:
        """Whether twins that only telemetry changed have waited long enough."""
        return bool(self.dirty) and self._clock.monotonic_s() - self._flushed_at_s >= self._twin_flush_s

    def forget(self) -> None:
        """The lanes are about to be loaded anew, perhaps others: what is not committed of the old ones is gone."""
        self.dirty = {}
        self._acknowledger.forget()

    async def make_durable(self, batch: Batch) -> None:
        """Spool, commit, tell: in this order. Returns once everything in the batch may be acknowledged."""
        if batch.intake.folded:
            await self._spool_telemetry(batch)
        if not (batch.needs_commit or self.flush_is_due()):
            return
        dirty, self.dirty = self.dirty, {}
        outcomes: list[CommandOutcome] = []
        notices: list[dict[str, Any]] = []

        def commit(tx: Connection) -> None:
            outcomes.clear()
            notices.clear()
            self._leases.check(tx)
            twin_rows.save(tx, dirty.values(), self._twin.encode_state, self._rules.encode_desk)
            reached("ingest.after_twin_save")
            for lane in batch.renewed:
                twin_rows.save_generation(tx, lane)
            for lane in batch.retired:
                twin_rows.retire(tx, lane.device_id, batch.now_ms)
                self._identity.retired(tx, lane.device_id, batch.now_ms)
            ingest_rows.save_spool_position(tx, self._spool_name, "twin", self.spool_end)
            ingest_rows.store_gaps(tx, batch.intake.gaps, batch.now_ms)
            ingest_rows.store_quarantined(tx, batch.intake.quarantined)
            self._store_events(tx, batch)
            self._commands.record_keys(tx, [(lane.device_id, hello.command_keys) for lane, hello in batch.greeted])
            outcomes.extend(self._commands.record_replies(tx, batch.replies, batch.now_ms))
            notices.extend(self._dispatch.plan(tx, batch.decisions, batch.now_ms))
            self._tell_of_refused_emergencies(tx, batch)
            self._order_feedback(tx, batch)
            ingest_rows.answer_intents(tx, batch.answers, batch.now_ms)
            self._identity.take(tx, batch.proven, batch.requests)
            reached("ingest.before_sql_commit")

        began_s = self._clock.monotonic_s()
        async for attempt in stamina.retry_context(on=OperationalError, attempts=None, timeout=None, wait_max=1.0):
            with attempt:
                await self._database.write(commit)
        reached("ingest.after_sql_commit")
        self._flushed_at_s = self._clock.monotonic_s()
        self._acknowledger.committed(dirty.values(), self._flushed_at_s)
        metrics.COMMITS.inc()
        metrics.COMMIT_SECONDS.inc(max(0.0, self._flushed_at_s - began_s))
        self._commands.settled(outcomes)
        self._announce(batch, notices, outcomes)
        release = partial(self._spool.release, "twin", self.spool_end)
        await asyncio.get_running_loop().run_in_executor(self._spool_thread, release)

    async def _spool_telemetry(self, batch: Batch) -> None:
        raw = [message for _, _, message in batch.intake.folded]

        def append() -> int:
            self._spool.append(raw, [batch.now_ms] * len(raw))
            reached("ingest.after_spool_append")
            return self._spool.sync()

        try:
            self.spool_end = await asyncio.get_running_loop().run_in_executor(self._spool_thread, append)
            reached("ingest.after_spool_sync")
        except Exception as error:  # noqa: BLE001  # full or broken: telemetry waits on the devices, all else goes on
            metrics.SPOOL_REFUSED.inc(len(raw))
            _log.error("telemetry not taken: the spool refused it", error=str(error), messages=len(raw))
            self._take_back(batch)

    @staticmethod
    def _take_back(batch: Batch) -> None:
        """Telemetry that is not durable is not acknowledged: the marks go back, the devices send it again."""
        for lane, seq, _raw in reversed(batch.intake.folded):
            lane.telemetry_seq = min(lane.telemetry_seq, seq - 1)
        batch.intake.folded.clear()

    def _store_events(self, tx: Connection, batch: Batch) -> None:
        for accepted in batch.intake.events:
            if accepted.event is None or not ingest_rows.store_event(tx, accepted, batch.now_ms):
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

    def _tell_of_refused_emergencies(self, tx: Connection, batch: Batch) -> None:
        """What came on an emergency lane and can't be read may be somebody calling: a person looks, at once."""
        for item in batch.intake.quarantined:
            if item.device_id is None or not item.topic.endswith(_EMERGENCY_SUFFIX):
                continue
            key = f"emergency_unreadable:{item.device_id}:{item.received_at // REPEATED_AFTER_MS}"
            facts = {"device_id": item.device_id, "error": item.reason}
            self._dispatch.system(
                tx, key, "无法识别的紧急消息，请立即查看", "An emergency could not be read: look there now", facts,
                batch.now_ms,
            )  # fmt: skip

    def _order_feedback(self, tx: Connection, batch: Batch) -> None:
        """Show the caller in the room that a person accepted."""
        for device_id, command in batch.decisions.feedback:
            try:
                self._commands.order(tx, device_id, command, actor="system", lifetime_s=FEEDBACK_LIFETIME_S)
            except (LookupError, ValueError) as error:
                _log.warning("no feedback to the caller", device_id=device_id, error=str(error))

    def _announce(self, batch: Batch, notices: Sequence[dict[str, Any]], outcomes: Sequence[CommandOutcome]) -> None:
        if batch.decisions or batch.intake.quarantined:
            self._wake_outbox()
        self._commands.after_commit()
        for notice in notices:
            self._changes.publish(str(notice["topic"]), notice)
        for accepted in batch.intake.events:
            if accepted.event is None or is_synthetic(accepted.lane.device_id):
                continue
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
        for lane in batch.linked:
            if is_synthetic(lane.device_id):
                continue
            self._changes.publish("device", {"device_id": lane.device_id, "online": lane.online})
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
        self._identity.committed(batch.proven, batch.requests, _to_disconnect(batch))


def _to_disconnect(batch: Batch) -> set[str]:
    """Devices that were revoked just now, or were heard although they are."""
    revoked = {item.device_id for item, _, refused in batch.answers if item.name == "revoke" and refused is None}
    return revoked | batch.intake.barred
