"""One run: the real code, a seed, virtual time; then the question whether every promise was kept."""

import asyncio
import gc
import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import devices
from cli.guard import start_of
from cli.simulate.broker import Broker
from cli.simulate.clocks import STARTED_MS, MachineClock
from cli.simulate.cloud_machine import CloudMachine
from cli.simulate.faults import Faults
from cli.simulate.keys import KEY_ID, Key
from cli.simulate.loop import StuckError, VirtualLoop
from cli.simulate.machines import EdgeBox, Machine
from cli.simulate.oracle import ESCALATE_S_MAX, Oracle
from cli.simulate.people import People
from cli.simulate.plan import Plan
from cli.simulate.series import MemorySeries
from cli.simulate.taps import replaced, rhythms, stage, taps
from cli.simulate.trace import Trace
from cli.simulate.verdict import judge
from cli.simulate.weather import Weather
from cloud.model import Notification
from firmware_sim import live
from firmware_sim.truth import TruthLine
from firmware_sim.world import World
from fleet.signing import CommandOrder, verify_command

_SECRET: Final = b"simulated command key"
_LOOK_EVERY_S: Final = 5.0
_QUIET_LOOKS: Final = 3
_FAREWELL_S: Final = 60.0
_OBJECTS_BETWEEN_COLLECTIONS: Final = 200_000
_OWNER: Final = re.compile(r"fleet-simulate-(\d+)-(\d+)-")  # process and its start
_LOOKS_S: Final = 35.0
"""Two looks of `People.watch`, and a bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one seed."""

    seed: int
    digest: str
    violations: list[str]
    counts: dict[str, int]
    milestones: dict[str, int]
    virtual_s: float
    lines: int
    tail: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


class Simulation:
    """Everything of one run; made inside `stage`."""

    def __init__(self, seed: int, plan: Plan, root: Path, loop: VirtualLoop, watched: Any) -> None:
        self.seed = seed
        self.plan = plan
        self.root = root
        self.loop = loop
        self.watched_os = watched
        self.trace = Trace(loop.time)
        self.weather = Weather(self.randomness("weather"))
        self.broker = Broker(loop, self.weather, self.trace)
        self.key = Key(_SECRET)
        self.series = MemorySeries()
        self.oracle = Oracle(self)
        self.milestones: Counter[str] = Counter()
        self.receiver_down = self.receiver_hangs = False
        self.cloud_clock_off_s = 0.0
        """How far the cloud's clock was set, all times together: devices believe it, so commands may live so long."""
        self._disturbances_s: list[tuple[float, float]] = []
        self._dead: dict[asyncio.Task[None], None] = {}
        self.true_clock = MachineClock(loop.time)
        self.world = World(
            tuple(sorted(plan.counts)), plan.counts, seed, STARTED_MS, plan.scenario_of(), listener=self,
            clock=self.true_clock,
        )  # fmt: skip
        self.cloud = CloudMachine(self)
        self.boxes = self._make_boxes()
        self.people = People(self)
        self.faults = Faults(self)
        self.broker.on_command = self._on_command
        self.finished = False

    def randomness(self, *names: str) -> random.Random:
        """A source of its own for each purpose."""
        text = "\0".join((str(self.seed), *names))
        return random.Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))

    def _make_boxes(self) -> list[EdgeBox]:
        ids = self.world.device_ids
        size = self.plan.devices_per_box
        return [
            EdgeBox(self, f"box{start // size:03d}", ids[start : start + size]) for start in range(0, len(ids), size)
        ]

    # --- what others ask ---------------------------------------------------------------------------------------

    def hear(self, lines: Sequence[TruthLine]) -> None:
        """The truth log (`firmware_sim.truth.TruthListener`)."""
        for line in lines:
            if line.event_id is not None:
                self.trace.note("truth", line.device_id, line.what, line.event_id)
            self.oracle.happened(line)

    def _on_command(self, device_id: str, payload: bytes) -> None:
        order: CommandOrder = verify_command(payload, {KEY_ID: self.key})
        self.oracle.ordered(device_id, order)

    def people_told(self, notification: Notification) -> None:
        """The receiver's telephone rings."""
        self.people.told(notification)

    def is_fatal(self, machine: Machine, milestone: str) -> bool:
        """Whether the process is to be killed at this point."""
        return self.faults.is_fatal(machine, milestone)

    def restart_s(self) -> float:
        """How long the supervisor takes."""
        return self.faults.restart_s()

    def disturbed(self, seconds: float) -> None:
        """The cloud, its database or the receiver does not work well from now on for so long."""
        self._disturbances_s.append((self.loop.time(), self.loop.time() + seconds))

    @property
    def disturbed_until_s(self) -> float:
        """The end of the last such time; 0 without any."""
        return max((end for _, end in self._disturbances_s), default=0.0)

    def cloud_was_disturbed(self, from_s: float, to_s: float) -> bool:
        """Whether that was so at some moment between these two."""
        return any(begin <= to_s and end >= from_s for begin, end in self._disturbances_s)

    def dying(self, life: "asyncio.Task[None]") -> None:
        """A killed process whose tasks have not ended yet."""
        self._dead[life] = None

    def ended(self, life: "asyncio.Task[None]") -> None:
        """They have."""
        self._dead.pop(life, None)

    # --- the run -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From midnight until everything has arrived."""
        async with asyncio.TaskGroup() as group:
            machines = [group.create_task(machine.supervise()) for machine in (self.cloud, *self.boxes)]
            living = group.create_task(live.run(self.world, self.true_clock))
            watching = group.create_task(self.people.watch())
            others = [group.create_task(self.people.run()), group.create_task(self.faults.run())]
            await asyncio.sleep(self.plan.duration_s)
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            self.faults.end()
            self.people.working = False
            self.world.end_script()
            until_s = self.loop.time() + self.plan.settle_s_max
            if await self._rest(self._undone, until_s):
                await self._wait_for_steps()
                living.cancel()  # the world stands still: no further reading, so everything can arrive
                await self._rest(self._under_way, until_s)
            living.cancel()
            watching.cancel()
            await judge(self)
            self.finished = True
            for task in machines:
                task.cancel()
            for machine in (self.cloud, *self.boxes):
                machine.kill()
        if self._dead:
            await asyncio.wait(list(self._dead), timeout=_FAREWELL_S)

    async def _wait_for_steps(self) -> None:
        """A call that nobody accepts must go on by itself, now that nothing disturbs it."""
        if self.oracle.unanswered_calls:
            await asyncio.sleep(max(0.0, self.disturbed_until_s - self.loop.time()) + ESCALATE_S_MAX + _LOOKS_S)

    async def _rest(self, unfinished: Callable[[], Awaitable[str]], until_s: float) -> bool:
        """Wait until nothing is unfinished, a few times in a row; False, and a broken promise, at the bound."""
        quiet = 0
        while quiet < _QUIET_LOOKS:
            await asyncio.sleep(_LOOK_EVERY_S)
            what = await unfinished()
            quiet = 0 if what else quiet + 1
            if self.loop.time() > until_s:
                self.oracle.broken(f"not settled {self.plan.settle_s_max:.0f} s after the last fault: {what}")
                return False
        self.trace.note("rest", unfinished.__name__)
        return True

    async def _undone(self) -> str:
        """What hardware and people still wait for."""
        if self.world.unacknowledged_events:
            return f"{self.world.unacknowledged_events} events in hardware"
        return await self.people.unfinished()

    async def _under_way(self) -> str:
        """What has not arrived where it belongs."""
        waiting = {box.name: await box.pending() for box in self.boxes}
        rows = [f"{name}: {count} rows" for name, count in waiting.items() if count]
        drain = self.cloud.drain
        if drain is None or drain.lag_bytes:
            rows.append("the series is behind")
        return "; ".join(rows)


def simulate(
    seed: int, plan: Plan, *, bug: AbstractContextManager[None] | None = None, keep_tail: bool = False
) -> Result:
    """Run one seed; the same seed and plan give the same digest in every process."""
    for name in plan.counts:  # imports cost time of their own and must not fall into the run
        for role in ("simulator", "driver", "rules", "state"):
            devices.role(name, role)
    root = _own_folder(_fast_folder())
    try:
        with ExitStack() as stack:
            stack.enter_context(_rare_collections())
            watched = stack.enter_context(stage(random.Random(f"entropy:{seed}")))
            stack.enter_context(rhythms(plan))
            stack.enter_context(bug or nullcontext())
            delays = random.Random(f"delays:{seed}") if plan.adversarial else None
            loop = VirtualLoop(delays)
            loop.set_exception_handler(lambda _loop, _context: None)
            asyncio.set_event_loop(loop)
            simulation = Simulation(seed, plan, root, loop, watched)
            stack.enter_context(taps(simulation))
            try:
                loop.run_until_complete(simulation.run())
            except StuckError as error:
                simulation.oracle.broken(str(error))
            finally:
                asyncio.set_event_loop(None)
                _dispose(loop)
        return Result(
            seed=seed, digest=simulation.trace.digest, violations=simulation.oracle.violations,
            counts=dict(simulation.oracle.counts) | {f"trace_{what}": n for what, n in simulation.trace.counts.items()},
            milestones=dict(simulation.milestones), virtual_s=loop.time(), lines=simulation.trace.lines,
            tail=list(simulation.trace.tail) if keep_tail else [],
        )  # fmt: skip
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A run makes hardly any cycles and millions of short-lived objects; looking for cycles costs it a fifth."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _dispose(loop: VirtualLoop) -> None:
    """Close the loop. A run that got stuck leaves tasks behind, which would complain while they are collected."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
    loop.close()
    if left:
        with replaced(sys, "unraisablehook", lambda _unraisable: None):
            left.clear()
            gc.collect()


def _fast_folder() -> Path:
    """Memory, if there is a file system in it: the simulation decides itself what a crash loses."""
    memory = Path("/dev/shm")  # noqa: S108
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


def _own_folder(place: Path) -> Path:
    """A new folder in `place` that tells whose it is; those of runs that were killed go."""
    for left in place.glob("fleet-simulate-*"):
        owner = _OWNER.match(left.name)
        if owner and start_of(int(owner[1])) != owner[2]:
            shutil.rmtree(left, ignore_errors=True)
    start = start_of(os.getpid())
    owner_name = f"{os.getpid()}-{start}-" if start else ""  # without /proc nobody can say who lives
    return Path(tempfile.mkdtemp(prefix=f"fleet-simulate-{owner_name}", dir=place))
