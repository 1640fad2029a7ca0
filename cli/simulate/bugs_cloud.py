"""Bugs somebody could have made in the cloud: ingest, rules, dispatch, series."""

# ruff: noqa: SLF001  # a planted bug reaches into what it breaks

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy import text

from cli.simulate.planting import planted
from cloud.dispatch import attempts
from cloud.dispatch import leases as outbox_leases
from cloud.dispatch.outbox import Outbox
from cloud.ingest import intake
from cloud.ingest import repository as ingest_rows
from cloud.ingest.intake import Ingest
from cloud.lane_book import LaneBook
from cloud.model import DeviceLane
from cloud.pipeline import Pipeline
from cloud.ports import NotDeliveredError
from cloud.rules import calls
from cloud.timeseries.drain import SeriesDrain
from cloud.timeseries.spool import Spool
from cloud.twin.stage import Twin
from fleet.envelope import Lane

# --- ingest ------------------------------------------------------------------------------------------------------


@planted
def acknowledged_before_commit() -> Iterator[Any]:
    """Devices are told before anything is durable."""

    async def hasty_round(self: Any) -> None:
        messages = self._link.take(self._limits.batch_messages_max)
        now_ms = self._clock.now_ms()
        self._book.watch(now_ms, connected=self._link.connected)
        due = self._book.schedule.due(now_ms)
        intents = await self._fetch_intents()
        if not (messages or due or intents or self._committer.flush_is_due()):
            await self._sleep(now_ms)
            return
        batch = await self._decide(messages, due, intents, now_ms)
        self._link.acknowledge(messages)
        self._publish(batch)
        await self._committer.make_durable(batch)

    yield Pipeline, "_round", hasty_round


@planted
def spool_not_synced() -> Iterator[Any]:
    """The spool calls durable what it only wrote."""

    def pretend(self: Any) -> int:
        self._synced = self._appended
        return int(self._synced)

    yield Spool, "sync", pretend


@planted
def event_dedupe_off() -> Iterator[Any]:
    """An event that is stored already is acted on and stored again; nothing but the table's key minds."""
    yield ingest_rows, "stored_events", lambda _tx, _events: set()
    yield ingest_rows, "_EVENT", text(str(ingest_rows._EVENT).partition("ON CONFLICT")[0])


@planted
def holes_accepted() -> Iterator[Any]:
    """Any later number is taken for the next one."""
    decode = intake.__dict__["decode_envelope"]

    def lenient(data: bytes) -> Any:
        envelope = decode(data)
        return envelope if envelope.evicted_from else msgspec.structs.replace(envelope, evicted_from=1)

    yield intake, "decode_envelope", lenient


@planted
def mark_of_one_lane_used_for_another() -> Iterator[Any]:
    """Acknowledgements mix up two lanes."""

    def marks(self: Any) -> dict[Lane, int]:
        return {Lane.EMERGENCY: self.emergency_seq, Lane.EVENT: self.telemetry_seq, Lane.TELEMETRY: self.event_seq}

    yield DeviceLane, "marks", marks


@planted
def new_storage_not_noticed() -> Iterator[Any]:
    """A device that lost its storage keeps its generation."""
    hear = Ingest._hear

    def blind(
        self: Any, route: Any, message: Any, now_ms: int, intake_: Any, name: str, decode: Callable[[bytes], Any]
    ) -> None:
        def look_away(data: bytes) -> Any:
            content, known = decode(data), route.lane.storage_id
            return msgspec.structs.replace(content, storage_id=known) if name == "hello" and known else content

        hear(self, route, message, now_ms, intake_, name, look_away)

    yield Ingest, "_hear", blind


@planted
def stale_will_accepted() -> Iterator[Any]:
    """The last will of an older connection ends the present one."""
    on_status = Twin.on_status

    def believe(self: Any, lane: Any, status: Any, now_ms: int) -> None:
        lane.link_boot_epoch = lane.link_connection = 0
        on_status(self, lane, status, now_ms)

    yield Twin, "on_status", believe


@planted
def marks_forgotten_at_restart() -> Iterator[Any]:
    """The cloud begins every lane anew when it starts."""
    restore = LaneBook._restore

    def forget(self: Any, lane: Any, row: Any) -> None:
        restore(self, lane, row)
        lane.event_seq = lane.telemetry_seq = lane.telemetry_committed_seq = 0

    yield LaneBook, "_restore", forget


# --- rules, dispatch, series -------------------------------------------------------------------------------------


def _restored(change: Callable[[Any], None]) -> Iterator[Any]:
    restore = LaneBook._restore

    def changed(self: Any, lane: Any, row: Any) -> None:
        restore(self, lane, row)
        if lane.desk.call is not None:
            change(lane.desk.call)

    yield LaneBook, "_restore", changed


@planted
def timer_lost_at_restart() -> Iterator[Any]:
    """Nobody remembers that a call is unanswered."""
    restore, escalate, due = LaneBook._restore, calls.escalate, calls.escalation_due
    forgotten: list[Any] = []

    def restored(self: Any, lane: Any, row: Any) -> None:
        restore(self, lane, row)
        if lane.desk.call is not None:
            forgotten.append(lane.desk.call)

    def unless_forgotten(lane: Any, now_ms: int, decisions: Any) -> None:
        if not any(lane.desk.call is one for one in forgotten):
            escalate(lane, now_ms, decisions)

    def never(call: Any) -> int:
        return 1 << 45 if any(call is one for one in forgotten) else due(call)

    yield LaneBook, "_restore", restored
    yield calls, "escalate", unless_forgotten
    yield calls, "escalation_due", never


@planted
def escalation_begins_again_at_restart() -> Iterator[Any]:
    """The first crew is asked again, the manager never."""
    yield from _restored(lambda call: setattr(call, "escalation", 0))


@planted
def delivered_mark_before_delivery() -> Iterator[Any]:
    """A notification counts as delivered before the receiver has it."""

    async def deliver(self: Any, loop: Any, leased: Any) -> None:
        self._outcomes.append((loop, self._outcome(loop.urgency, leased, None, attempts.DELIVERED)))
        self._something_finished.set()
        await asyncio.sleep(0.1)
        try:
            await self._channels[leased.channel].send(leased.notification(), delivery_id=leased.delivery_id)
        except NotDeliveredError:
            return

    yield Outbox, "_deliver", deliver


@planted
def lease_not_respected() -> Iterator[Any]:
    """A row in somebody's hands is given out again."""
    yield outbox_leases.Moment, "is_free", lambda _self: outbox_leases._c.id > 0


@planted
def given_up_at_the_first_failure() -> Iterator[Any]:
    """An emergency is tried once."""
    outcome = Outbox._outcome

    def hasty(self: Any, urgency: Any, leased: Any, error: str | None, result: str) -> Any:
        return outcome(self, replace(urgency, attempts_max=1), leased, error, result)

    yield Outbox, "_outcome", hasty


@planted
def drain_position_saved_before_write() -> Iterator[Any]:
    """A crash in between skips points."""
    write = SeriesDrain._write

    async def late(self: Any, work: Any) -> None:
        await self._positions.save(work.next_position)
        await write(self, work)

    yield SeriesDrain, "_write", late


@planted
def drain_skips_on_error() -> Iterator[Any]:
    """What the series did not take is forgotten."""

    async def once(self: Any, points: Any) -> None:
        try:
            await self._store.write(points)
        except Exception:  # noqa: BLE001  # the bug
            return

    yield SeriesDrain, "_write_patiently", once


BUGS: Final = (
    acknowledged_before_commit,
    spool_not_synced,
    event_dedupe_off,
    holes_accepted,
    mark_of_one_lane_used_for_another,
    new_storage_not_noticed,
    stale_will_accepted,
    marks_forgotten_at_restart,
    timer_lost_at_restart,
    escalation_begins_again_at_restart,
    delivered_mark_before_delivery,
    lease_not_respected,
    given_up_at_the_first_failure,
    drain_position_saved_before_write,
    drain_skips_on_error,
)
