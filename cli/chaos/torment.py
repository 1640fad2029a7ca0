"""Carries a plan out on a scene: kills in lanes beside each other, and one spell of bad weather after the other."""

import asyncio
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from cli.chaos import plan
from cli.chaos.agents import REPORT_EVERY_S
from cli.chaos.plan import Kill, Spell
from cli.chaos.processes import Victim
from cli.chaos.promises import Window, WrongClock
from cli.chaos.scene import Scene
from edge.reserve import RESERVE_BYTES
from fleet.milestones import MILESTONES

REACHED_S_MAX: Final = 40.0
"""A milestone that is not passed for so long is given up, and tried again at the end of its lane."""
TRIES_MAX: Final = 3
UP_S_MAX: Final = 90.0
LINE_LAG_S: Final = 1.0
"""Within this the hardware has seen that its agent is gone."""
FULL_BYTES: Final = RESERVE_BYTES // 4
"""Where files end for a process whose disk is to be full: its journal is soon longer, and its reserve has room."""
ABSENT_S: Final = 6.0
"""So long after the disk has room again may a host without a journal need to have it: a look, and its agents' start."""
JOURNAL_LAG_S: Final = 1.0
"""A reading is durable within `COMMIT_WITHIN_S` (0.1 s) of its arrival; on a busy machine it may arrive later."""


@dataclass(slots=True)
class Deed:
    """What was done, for the figures."""

    kills: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    spells: Counter[str] = field(default_factory=Counter)
    not_injected: dict[str, str] = field(default_factory=dict)
    """Fault → why this machine can't do it."""
    windows: list[Window] = field(default_factory=list)
    wrong_clocks: list[WrongClock] = field(default_factory=list)
    full_until_s: float = 0.0
    """When the last full edge disk had room again; 0 without any."""
    cloud_disk_full_s: list[tuple[float, float]] = field(default_factory=list)
    """In these a cloud may end by itself: one that was killed can't open its database then, and is started again."""
    recovered_s: list[float] = field(default_factory=list)
    """From a death to the victim's work: ready, or most devices of a host welcomed, whatever else is broken."""
    missed: list[str] = field(default_factory=list)


class Tormentor:
    """One round's faults."""

    def __init__(self, scene: Scene, seed: int, on_kill: Callable[[], None]) -> None:
        self.deed = Deed()
        self._scene = scene
        self._rng = random.Random(f"{seed}:torment")
        self._on_kill = on_kill
        self._edge_disk = asyncio.Lock()
        self._recoveries = asyncio.TaskGroup()
        """Wait for victims to work again, beside everything else."""

    async def run(
        self, kills: Sequence[Kill], spells: Sequence[Spell], *, seconds_min: float = 0.0, bad_link: bool = False
    ) -> None:
        """Until every kill happened and the time is over; then the weather clears."""
        from cli.chaos.weather import Sky

        sky = Sky(self._scene, self.deed, self._edge_disk, always_bad=bad_link)
        async with asyncio.TaskGroup() as self._recoveries:
            async with asyncio.TaskGroup() as group:
                weather = group.create_task(sky.run(spells))
                work = [group.create_task(self._lane(lane)) for lane in plan.lanes(kills).values()]
                work.append(group.create_task(asyncio.sleep(seconds_min)))
                await asyncio.wait(work)
                weather.cancel()
            await sky.clear()

    async def _lane(self, lane: Sequence[Kill]) -> None:
        left = [(kill, 1) for kill in lane]
        while left:
            kill, tries = left.pop(0)
            await asyncio.sleep(kill.pause_s)
            if kill.victim == plan.BROKER:
                await self._kill_broker(kill)
            elif not await self._kill(kill):
                if tries < TRIES_MAX:
                    left.append((kill, tries + 1))
                else:
                    self.deed.missed.append(kill.point)

    async def _kill_broker(self, kill: Kill) -> None:
        broker = self._scene.broker
        killed_s = time.monotonic()
        await asyncio.to_thread(broker.kill)
        if kill.point == plan.DATABASE:
            for file in broker.directory.glob("mosquitto.db*"):
                file.unlink(missing_ok=True)
        await asyncio.to_thread(broker.start)
        self._killed("broker_database" if kill.point else "broker")
        await asyncio.sleep(2 * REPORT_EVERY_S)  # what the hosts said before it died is not true any more
        for host in self._scene.hosts:
            self._recoveries.create_task(self._up_again(host, killed_s))

    async def _kill(self, kill: Kill) -> bool:
        """Returns once the victim runs again; False if the milestone was not reached."""
        name = self._rng.choice(self._scene.hosts) if kill.victim == "edge" else kill.victim
        victim = self._scene.victim(name)
        starts = victim.starts
        if not kill.point:
            victim.kill()
        else:
            assert kill.point in MILESTONES
            victim.control.arm(kill.point, kill.passage)
        before = victim.control.ended_at(kill.point) if kill.point else 0
        armed_s = time.monotonic()
        if not await self._dies(kill, victim, starts):
            return False
        hit = not kill.point or victim.control.ended_at(kill.point) > before
        if hit:
            self._killed(kill.victim, kill.point)
            if kill.point:
                self.deed.hits[kill.point] += 1
        if name in self._scene.hosts:
            self._window(name, victim.started_s, victim.started_s - armed_s if kill.point == plan.RESERVE else 0.0)
            # Its devices are welcomed when they are; until then there is enough that a further kill can hit.
            self._recoveries.create_task(self._up_again(name, victim.started_s))
            await self._lives(name)
        else:
            await self._up_again(name, victim.started_s)
        return hit

    async def _lives(self, host: str) -> None:
        deadline_s = time.monotonic() + UP_S_MAX
        while time.monotonic() < deadline_s:
            if self._scene.statistics(host):
                break
            await asyncio.sleep(0.05)

    async def _up_again(self, name: str, since_s: float) -> None:
        deadline_s = time.monotonic() + UP_S_MAX
        while time.monotonic() < deadline_s:
            if await self._scene.is_up(name):
                break
            await asyncio.sleep(0.05)
        took_s = time.monotonic() - since_s
        self.deed.recovered_s.append(took_s)
        self._scene.tell("up again", victim=name, after_s=round(took_s, 2))

    async def _dies(self, kill: Kill, victim: Victim, starts: int) -> bool:
        """Wait until the victim is dead and started again; False, and it is let go, if that takes too long."""
        if kill.point == plan.RESERVE:
            limit_file_size(victim.pid, FULL_BYTES)
        deadline_s = time.monotonic() + REACHED_S_MAX
        while victim.starts == starts:
            if time.monotonic() > deadline_s:
                victim.control.arm(kill.point, 0)
                if kill.point == plan.RESERVE:
                    limit_file_size(victim.pid, None)
                    self._window(victim.name, time.monotonic(), REACHED_S_MAX)
                self._scene.tell("not reached", victim=victim.name, point=kill.point)
                return False
            await asyncio.sleep(0.01)
        return True

    def _window(self, host: str, died_s: float, refused_s: float = 0.0) -> None:
        """Readings of the last moments, and of the time before in which its journal took none."""
        age_s = JOURNAL_LAG_S + refused_s
        if refused_s:  # what a full journal gave up for emergencies is declared when it can write again
            self.deed.full_until_s = max(self.deed.full_until_s, died_s + 2 * JOURNAL_LAG_S)
        self.deed.windows.append(Window(self._scene.devices_of(host), died_s - age_s, died_s + LINE_LAG_S))

    def _killed(self, name: str, point: str = "") -> None:
        self.deed.kills[name] += 1
        self._scene.tell("killed", victim=name, point=point)
        self._on_kill()


def limit_file_size(pid: int, size_bytes: int | None) -> None:
    """Let a running process write no byte behind the first `size_bytes` of any file; None: anything again.

    A full disk alone does not do: what a database deletes it writes over, and so it goes on for long.
    """
    limit = resource.RLIM_INFINITY if size_bytes is None else size_bytes
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def unpromised_disk(scene: Scene, deed: Deed, began_s: float) -> None:
    """While the disk was full, readings had no promise: they give way to emergencies.

    A host that started meanwhile has no journal, and begins anew some time after it can have one.
    """
    until_s = deed.full_until_s = time.monotonic() + 2 * JOURNAL_LAG_S
    for host in scene.hosts:
        more_s = ABSENT_S if scene.victim(host).started_s >= began_s else 0.0
        deed.windows.append(Window(scene.devices_of(host), began_s - JOURNAL_LAG_S, until_s + more_s))
