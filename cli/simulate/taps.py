"""What the simulation puts in the place of the world outside the code: entropy, `os`, task groups; and where it looks.

Everything here is taken back at the end of a run. The code under test is not changed: taps call it and look on.
"""

import asyncio
import logging
import random
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import structlog

import edge.journal
import edge.reserve
from cli.simulate.disk import WatchedOs, watched_os
from cli.simulate.loop import OrderedTaskGroup
from cli.simulate.machines import CURRENT, ProcessKilledError
from cloud import lane_book, pipeline
from cloud.device_commands import service
from cloud.ingest import leases
from cloud.timeseries import spool
from edge.boot_clocks import BootClocks
from edge.downlink import Downlink
from edge.journal import Journal
from edge.journal_store import JournalStore
from edge.records import Row
from firmware_sim import live
from fleet.envelope import Lane, TimeQuality
from fleet.milestones import observed

if TYPE_CHECKING:
    from cli.simulate.plan import Plan
    from cli.simulate.simulation import Simulation


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name = value` for the length of a block; of a class, where it is defined. KeyError: no such name."""
    if isinstance(owner, type):
        owner = next((base for base in owner.__mro__ if name in base.__dict__), owner)
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def stage(randomness: random.Random) -> Iterator[WatchedOs]:
    """Entropy from the seed, ordered task groups, watched files, no log lines: for one run."""
    state = random.getstate()
    random.seed(randomness.getrandbits(64))  # retries of libraries draw their jitter from it
    levels = {name: logging.getLogger(name).level for name in ("edge", "asyncio")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    log_settings = structlog.get_config()
    structlog.configure(processors=[_drop])
    try:
        with ExitStack() as stack:
            stack.enter_context(replaced(secrets, "token_hex", lambda count=32: randomness.randbytes(count).hex()))
            stack.enter_context(replaced(asyncio, "TaskGroup", OrderedTaskGroup))
            yield stack.enter_context(watched_os(edge.reserve, spool))
    finally:
        structlog.configure(**log_settings)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        random.setstate(state)


def _drop(_logger: Any, _name: str, _event: Any) -> Any:
    raise structlog.DropEvent


@contextmanager
def taps(simulation: "Simulation") -> Iterator[None]:  # noqa: C901  # one small function per place that is watched
    """Tell the oracle of what happens inside, on behalf of processes that live."""
    oracle = simulation.oracle

    def alive() -> bool:
        machine = CURRENT.get()
        return machine is not None and machine.alive

    announce, remove, on_order = Journal._announce, JournalStore._remove, Downlink.on_order  # noqa: SLF001  # we look on
    insert, begin, look = JournalStore._insert, JournalStore.begin, BootClocks.read  # noqa: SLF001

    def begun(self: JournalStore) -> None:
        machine = CURRENT.get()
        if machine is not None and machine.alive and machine.disk.refuses_journal:
            raise sqlite3.OperationalError("database or disk is full")
        begin(self)

    def inserted(self: JournalStore, device_id: str, row: Row, *, counted: bool = False) -> None:
        if alive():
            oracle.written(device_id, row)
        insert(self, device_id, row, counted=counted)

    def read(self: BootClocks, row: Row) -> tuple[Row, TimeQuality]:
        sent, quality = look(self, row)
        if row.lane is Lane.TELEMETRY and sent.payload != row.payload and alive():
            oracle.corrects(self._device_id, row.payload, sent.payload)
        return sent, quality

    def announced(self: Journal, device_id: str, row: Row) -> None:
        if alive():
            oracle.journalled(device_id, row)
        announce(self, device_id, row)

    def removed(
        self: JournalStore, device_id: str, lane: Lane, condition: str, arguments: Any, *, evicted: bool
    ) -> int:
        if evicted and alive():
            rows = self._connection.execute(
                f"SELECT payload, event_id FROM message WHERE device_id = ? AND lane = ? AND {condition}",  # noqa: S608
                (device_id, lane.value, *arguments),
            )
            for payload, event_id in rows.fetchall():
                oracle.evicting(device_id, lane, payload, event_id)
        return remove(self, device_id, lane, condition, arguments, evicted=evicted)

    async def on_order_tapped(self: Downlink, data: bytes) -> Any:
        accepted = await on_order(self, data)
        if accepted is not None and alive():
            oracle.actuated(self._device_id, accepted[0])
        return accepted

    def reached(name: str) -> None:
        machine = CURRENT.get()
        if machine is None:
            return
        simulation.milestones[name] += 1
        if machine.alive and simulation.is_fatal(machine, name):
            machine.kill(simulation.restart_s())
            raise ProcessKilledError(name)

    with (
        replaced(BootClocks, "read", read),
        replaced(Journal, "_announce", announced),
        replaced(JournalStore, "_insert", inserted),
        replaced(JournalStore, "begin", begun),
        replaced(JournalStore, "_remove", removed),
        replaced(Downlink, "on_order", on_order_tapped),
        observed(reached),
    ):
        yield


@contextmanager
def rhythms(plan: "Plan") -> Iterator[None]:
    """Polls that only stand behind wake-ups become rare, and journals wait longer for others to share their commit.

    A wake-up that is missing shows all the better.
    """
    beats = dict(edge.journal.COMMIT_WITHIN_S) | {Lane.TELEMETRY: plan.telemetry_commit_s}
    with (
        replaced(pipeline, "IDLE_S_MAX", plan.backstop_s),
        replaced(lane_book, "STALL_S", 3 * plan.backstop_s),
        replaced(service, "POLL_S", 2 * plan.backstop_s),
        replaced(edge.journal, "COMMIT_WITHIN_S", beats),
        replaced(leases, "RENEW_S", plan.lease_renewal_s),
        replaced(live, "PAUSE_S_MIN", plan.world_pause_s),
        replaced(live, "PAUSE_S_MAX", max(live.PAUSE_S_MAX, plan.world_pause_s)),
    ):
        yield
