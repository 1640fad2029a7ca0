"""Bugs somebody could have made on the device: journal, window, commands."""

# ruff: noqa: SLF001  # a planted bug reaches into what it breaks

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec

from cli.simulate.planting import planted
from edge import acknowledgements, uplink
from edge.command_table import CommandTable
from edge.downlink import Downlink
from edge.event_keeper import EventKeeper
from edge.journal_store import JournalStore
from edge.records import Admission
from edge.trusted_time import TrustedTime
from edge.uplink import Uplink
from edge.window import LaneWindow
from fleet import signing
from fleet.envelope import Lane

_EVERY: Final = 25


# --- the device's journal and what it sends ----------------------------------------------------------------------


@planted
def journal_not_durable() -> Iterator[Any]:
    """The journal says that something is durable and commits it only now and then."""
    begin, commit = JournalStore.begin, JournalStore.commit

    def begin_once(self: Any) -> None:
        if not self._connection.in_transaction:
            begin(self)

    def commit_sometimes(self: Any) -> None:
        self.commits_put_off = getattr(self, "commits_put_off", 0) + 1
        if self.commits_put_off % _EVERY == 0:
            commit(self)

    yield JournalStore, "begin", begin_once
    yield JournalStore, "commit", commit_sometimes


@planted
def hardware_acknowledged_before_commit() -> Iterator[Any]:
    """The hardware may forget an event before the journal has it."""
    keep = EventKeeper.keep

    async def keep_late(self: Any, events: Any, after_commit: bytes, clock: int = 0) -> None:
        if after_commit:
            self._write(after_commit)
        await keep(self, events, b"", clock)

    yield EventKeeper, "keep", keep_late


@planted
def deleted_when_the_broker_has_it() -> Iterator[Any]:
    """A PUBACK counts as delivery."""
    publish = Uplink._publish

    async def publish_and_forget(self: Any, session: Any, lane: Lane, outgoing: Any) -> None:
        await publish(self, session, lane, outgoing)
        window = self._windows[lane]
        self._finish(lane, window.acknowledge(outgoing.row.seq, self._clock.monotonic_s()), set())

    yield Uplink, "_publish", publish_and_forget


@planted
def window_dropped_on_reconnect() -> Iterator[Any]:
    """What was under way when the connection broke is taken for delivered."""
    restart = LaneWindow.restart

    def forget(self: Any) -> None:
        self.mark = self.last_known
        self._rows.clear()
        restart(self)

    yield LaneWindow, "restart", forget


@planted
def eviction_not_declared() -> Iterator[Any]:
    """The cloud is not told of what was let go."""
    take = LaneWindow.take

    def silent(self: Any, now_s: float) -> Any:
        outgoing = take(self, now_s)
        return None if outgoing is None else replace(outgoing, evicted_from=None)

    yield LaneWindow, "take", silent


@planted
def emergencies_evicted_first() -> Iterator[Any]:
    """Without room the wrong lane gives way."""

    def evict(self: Any, device_id: str) -> None:
        rows = self._connection.execute(
            "SELECT lane, row_count FROM lane WHERE device_id = ? ORDER BY lane", (device_id,)
        ).fetchall()
        if sum(count for lane, count in rows if lane != Lane.EMERGENCY.value) > self.bounds.rows_max:
            victim = next(lane for lane in ("emergency", "event", "telemetry") if dict(rows)[lane])
            self._evict_oldest(device_id, Lane(victim), 1)

    yield JournalStore, "_evict", evict


@planted
def never_sent_again() -> Iterator[Any]:
    """Silence of the cloud is taken for patience."""

    def never(self: Any, _now_s: float) -> bool:
        self.deadline_s = None
        return False

    yield LaneWindow, "expire", never
    yield LaneWindow, "go_back", never


@planted
def pending_lost_with_a_new_generation() -> Iterator[Any]:
    """A grant renumbers nothing and forgets what waits."""
    grant = JournalStore.grant

    def forget(self: Any, device_id: str, generation: int, marks: Any) -> Any:
        result = grant(self, device_id, generation, marks)
        self._connection.execute("DELETE FROM message WHERE device_id = ?", (device_id,))
        return result

    yield JournalStore, "grant", forget


@planted
def reserve_not_merged_back() -> Iterator[Any]:
    """Emergencies from the reserve are dropped when the database takes something again."""
    yield JournalStore, "merge", lambda *_arguments: None


@planted
def acknowledgement_of_another_generation_believed() -> Iterator[Any]:
    """Marks of an older numbering count for the present one."""
    hear, genuine = Uplink.on_acknowledgement, acknowledgements.is_genuine
    signed: dict[int, Any] = {}

    def as_it_was_signed(acknowledgement: Any, *arguments: Any) -> bool:
        return genuine(signed.get(id(acknowledgement), acknowledgement), *arguments)

    async def believe(self: Any, acknowledgement: Any) -> None:
        changed = msgspec.structs.replace(acknowledgement, generation=self.generation)
        signed[id(changed)] = acknowledgement
        try:
            await hear(self, changed)
        finally:
            del signed[id(changed)]

    yield Uplink, "on_acknowledgement", believe
    yield uplink, "is_genuine", as_it_was_signed


# --- commands ----------------------------------------------------------------------------------------------------


@planted
def seen_commands_forgotten() -> Iterator[Any]:
    """A command that comes twice is carried out twice."""
    yield CommandTable, "known_command", lambda *_arguments: (None, False)
    yield CommandTable, "remember_command", lambda *_arguments: Admission.NEW


@planted
def expired_commands_accepted() -> Iterator[Any]:
    """The end of a command's life is not looked at."""
    judge = Downlink._judge

    def lenient(self: Any, order: Any) -> Any:
        now_ms = self._trusted_time.latest_ms() or order.issued_at
        return judge(self, msgspec.structs.replace(order, issued_at=now_ms, not_after=now_ms + 60_000))

    yield Downlink, "_judge", lenient
    known = CommandTable.known_command

    def without_floor(self: Any, *arguments: Any) -> Any:
        return known(self, *arguments)[0], False

    yield CommandTable, "known_command", without_floor


@planted
def wall_clock_trusted() -> Iterator[Any]:
    """A box believes its own clock about the age of commands."""
    yield TrustedTime, "latest_ms", lambda self: self._clock.now_ms()


@planted
def command_for_another_device_accepted() -> Iterator[Any]:
    """Anything the cloud has signed is carried out."""

    def open_all(self: Any, data: bytes) -> Any:
        try:
            return signing.verify_command(data, self._keys.verifiers)
        except ValueError:
            return None

    yield Downlink, "_open", open_all


@planted
def signatures_not_checked() -> Iterator[Any]:
    """Whatever looks like a command is one."""
    yield signing, "_verify", lambda *_arguments: None


@planted
def welcome_nonce_not_checked() -> Iterator[Any]:
    """An old welcome tells the time and where the lanes stand."""
    welcome_came = Uplink.on_welcome

    async def believe(self: Any, welcome: Any) -> None:
        self._nonce = welcome.nonce
        self._hello_sent_s = self._clock.monotonic_s()
        await welcome_came(self, welcome)

    yield Uplink, "on_welcome", believe


BUGS: Final = (
    journal_not_durable,
    hardware_acknowledged_before_commit,
    deleted_when_the_broker_has_it,
    window_dropped_on_reconnect,
    eviction_not_declared,
    emergencies_evicted_first,
    never_sent_again,
    pending_lost_with_a_new_generation,
    reserve_not_merged_back,
    acknowledgement_of_another_generation_believed,
    seen_commands_forgotten,
    expired_commands_accepted,
    wall_clock_trusted,
    command_for_another_device_accepted,
    signatures_not_checked,
    welcome_nonce_not_checked,
)
