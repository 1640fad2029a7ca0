"""One week: the parts together, on one clock."""

import asyncio
import gc
import hashlib
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

import devices
from cli.simulate.clocks import MachineClock
from cli.simulate.loop import OrderedTaskGroup
from cli.simulate.taps import replaced
from cli.week.agenda import Agenda
from cli.week.cloud import WeekCloud
from cli.week.crew import Crew
from cli.week.demand import Demand
from cli.week.faults import Faults
from cli.week.hardware import Hardware
from cli.week.ledger import Ledger
from cli.week.loop import WeekLoop
from cli.week.people import People, Telephones
from cli.week.plan import DEPOT, MONDAY_MS, WeekPlan
from cli.week.roster import enrol, turns
from cli.week.rounds import Rounds
from cli.week.watch import Watch
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.kind import DriverOutput

MINUTE_MS: Final = 60_000
LOOK_AGAIN_MINUTES: Final = 5
"""Whoever has nothing to do looks at the list this often, and when it changed."""
_OBJECTS_BETWEEN_COLLECTIONS: Final = 200_000


class Week:
    """Everything of one run; made inside `run_week`."""

    def __init__(self, plan: WeekPlan, folder: Path, loop: WeekLoop) -> None:
        self.plan, self.loop = plan, loop
        self.clock = MachineClock(loop.time, MONDAY_MS)
        self.agenda = Agenda()
        now_ms = self.clock.now_ms
        self.hardware = Hardware(plan, self.agenda, now_ms, self.randomness("links"))
        self.telephones = Telephones()
        self.cloud = WeekCloud(
            folder, self.clock, self.randomness("cloud"), [self.telephones], heard_until=self.hardware.heard_until,
            order=self.hardware.command,
        )  # fmt: skip
        self.cloud.database.write_here(partial(enrol, plan=plan, hardware=self.hardware))
        self.cloud.load()
        self.hardware.on_output, self.hardware.on_status = self._hear, self.cloud.on_status
        self.hardware.on_beat = self.cloud.on_beat
        self.ledger = Ledger(self.cloud, self._site_of)
        self.crew = Crew(self.ledger, self.hardware, self.agenda, now_ms, self.randomness, DEPOT, turns(plan))
        self.people = People(self.cloud, self.crew, self.ledger, self.agenda, now_ms, self.randomness)
        self.telephones.told = self.people.told
        self.agenda.at(MONDAY_MS, self._each_minute)
        self.demand = Demand(self.hardware, self.cloud, self.agenda, now_ms, self.randomness)
        self.faults = Faults(plan, self.hardware, self.agenda, now_ms, self.randomness)
        self.faults.on_defect = self._on_defect
        self.watch = Watch(self.hardware, now_ms)
        if plan.policy == "rounds":
            self.cloud.plans = False
            self.rounds = Rounds(plan, self.crew, self.ledger, self.hardware, self.agenda, now_ms)
        self.steps = self._reports = 0

    def _hear(self, device_id: str, output: DriverOutput) -> None:
        self.watch.hear(device_id, output)
        self.cloud.hear(device_id, output)

    def randomness(self, *names: str) -> random.Random:
        """A source of its own for each purpose; the same for every policy."""
        text = "\0".join((str(self.plan.seed), "week", *names))
        return random.Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))

    def _site_of(self, device_id: str) -> tuple[float, float]:
        site = self.hardware.world.site(device_id)
        return site.latitude, site.longitude

    def _on_defect(self, device_id: str) -> None:
        self._reports += 1
        key = f"report-{self._reports}"
        self.agenda.at(self.clock.now_ms(), partial(self.ledger.report, device_id, "骑行者报修：轮胎没气", key))

    async def _each_minute(self) -> None:
        now_ms = self.clock.now_ms()
        self.agenda.at(now_ms + MINUTE_MS, self._each_minute)
        await self.cloud.router.look()
        minute = (now_ms - MONDAY_MS) // MINUTE_MS
        if self.cloud.changes.orders_changed or minute % LOOK_AGAIN_MINUTES == 0:
            await self.cloud.keep()
            self.cloud.changes.orders_changed = False
            for person_id in sorted(self.crew.members):
                await self.crew.wake(person_id)

    async def run(self) -> None:
        """From Monday midnight to the end."""
        async with asyncio.TaskGroup() as group:
            cloud = group.create_task(self.cloud.run())
            self.hardware.start()
            await self.loop.rest()
            while await self._step():
                self.steps += 1
            cloud.cancel()

    async def _step(self) -> bool:
        """Whatever is due next; False at the end of the week."""
        world, schedule = self.hardware.world, self.cloud.book.schedule
        due = [at for at in (world.next_due_ms, self.agenda.next_due_ms, schedule.next_due) if at is not None]
        at_ms = max(min(due), self.clock.now_ms())
        if at_ms >= self.plan.until_ms:
            return False
        await self.loop.go_to((at_ms - MONDAY_MS) / MILLISECONDS_PER_SECOND)
        if (next_ms := self.agenda.next_due_ms) is not None and next_ms <= at_ms:
            done = self.agenda.take()()
            if done is not None:
                await done
        elif (world_ms := world.next_due_ms) is not None and world_ms <= at_ms:
            world.advance(at_ms)
        else:
            self.cloud.on_time()
        if self.cloud.undecided:
            await self.cloud.commit()
        await self.loop.rest()
        return True


def run_week(plan: WeekPlan, look: Any) -> Any:
    """Run it and return `look(week, cpu seconds)`; the same plan gives the same week in every process."""
    for kind in plan.counts:
        for role in ("simulator", "driver", "rules", "state"):
            devices.role(kind, role)
    memory = Path("/dev/shm")  # noqa: S108  # memory, if there is a file system in it
    folder = Path(tempfile.mkdtemp(prefix="fleet-week-", dir=memory if memory.is_dir() else None))
    began_s = time.process_time()
    loop = WeekLoop()
    try:
        with ExitStack() as stack:
            stack.enter_context(_stage())
            if plan.without_on_delays:
                stack.enter_context(_noise(plan))
            asyncio.set_event_loop(loop)
            week = Week(plan, folder, loop)
            try:
                with suppress(asyncio.CancelledError):
                    loop.run_until_complete(week.run())
                return look(week, time.process_time() - began_s)
            finally:
                week.cloud.database.close()
                asyncio.set_event_loop(None)
    finally:
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stage() -> Iterator[None]:
    """No log lines, ordered task groups, rare collections."""
    before, settings = gc.get_threshold(), structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "alembic")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    structlog.configure(processors=[_drop])
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        with replaced(asyncio, "TaskGroup", OrderedTaskGroup):
            yield
    finally:
        gc.set_threshold(*before)
        structlog.configure(**settings)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _drop(_logger: Any, _name: str, _event: Any) -> Any:
    raise structlog.DropEvent


@contextmanager
def _noise(plan: WeekPlan) -> Iterator[None]:
    """Every alarm of the kinds' tables sounds at the first bad reading, and ends at the first good one."""
    with ExitStack() as stack:
        for kind in plan.counts:
            rules = devices.role(kind, "rules")
            eager = tuple(replace(definition, on_delay_s=0.0, off_delay_s=0.0) for definition in rules.ALARMS)
            stack.enter_context(replaced(rules, "ALARMS", eager))
        yield
