"""Simulated machines: the real programs, each on a disk, a clock and a network of its own, killed and started again.

A kill is a crash: at that moment nothing more leaves the process, its disk is what was durable, its sockets close.
The tasks of the dead process are cancelled, which on a real machine nothing would do; whatever they still do reaches
only the old folder and dead links.
"""

import asyncio
from abc import ABC, abstractmethod
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from cli.sim import WorldLine
from cli.simulate.broker import DeviceLink
from cli.simulate.clocks import MachineClock
from cli.simulate.disk import Disk
from cli.simulate.keys import KEY_ID
from edge.host import EdgeHost
from edge.identity import Identity
from edge.records import JournalError

if TYPE_CHECKING:
    from cli.simulate.simulation import Simulation

CURRENT: ContextVar["Machine | None"] = ContextVar("machine", default=None)
"""On whose behalf the loop works just now."""
_PAGES_MAX: Final = 1_073_741_823


class ProcessKilledError(BaseException):
    """Raised where a process is killed, so that it does nothing more. Not an Exception: nobody handles it."""


class Machine(ABC):
    """One process under its supervisor."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.disk = Disk(simulation.root, name, simulation.randomness("disk", name))
        simulation.watched_os.disks.append(self.disk)
        self.clock = MachineClock(simulation.loop.time)
        self.alive = False
        self.kills = 0
        self.restart_s = 1.0
        self._life: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    async def supervise(self) -> None:
        """Start the process, and again whenever it has ended."""
        loop = asyncio.get_running_loop()
        while True:
            self.alive = True
            self._ended.clear()
            life = self._life = loop.create_task(self._live(), name=f"{self.name} {self.kills}")
            life.add_done_callback(self._on_end)
            await self._ended.wait()
            self.alive = False
            await asyncio.sleep(self.restart_s)

    async def _live(self) -> None:
        CURRENT.set(self)
        self.simulation.trace.note("started", self.name)
        await self.live()

    def _on_end(self, life: "asyncio.Task[None]") -> None:
        self.simulation.ended(life)
        if life is not self._life or not self.alive:
            return  # a killed one: that was seen when it was killed
        error = None if life.cancelled() else life.exception()
        if not isinstance(error, ProcessKilledError):
            self.simulation.oracle.died(self.name, error)
        self.alive = False
        self.sever()
        self.disk.crash(self.simulation.watched_os)
        self._ended.set()

    def kill(self, restart_s: float = 1.0, *, keep_disk: bool = True) -> None:
        """SIGKILL, or the power is cut."""
        if not self.alive or self._life is None:
            return
        self.alive = False
        self.kills += 1
        self.restart_s = restart_s
        self.simulation.trace.note("killed", self.name)
        self.sever()
        self.disk.crash(self.simulation.watched_os, keep=keep_disk)
        self.simulation.dying(self._life)
        self._life.cancel()
        self._ended.set()

    @abstractmethod
    async def live(self) -> None:
        """What the process does until it ends."""

    @abstractmethod
    def sever(self) -> None:
        """Cut everything that leaves the process."""


class EdgeBox(Machine):
    """One edge box with some devices."""

    def __init__(self, simulation: "Simulation", name: str, device_ids: tuple[str, ...]) -> None:
        super().__init__(simulation, name)
        self.device_ids = device_ids
        self.host: EdgeHost | None = None
        self._lines: list[BoxLine] = []
        self._links: list[DeviceLink] = []

    async def live(self) -> None:
        """See Machine."""
        simulation, plan = self.simulation, self.simulation.plan
        host = self.host = EdgeHost(
            self.clock,
            simulation.randomness("edge", self.name, str(self.kills)),
            self.disk.folder / "journal.sqlite",
            bounds=plan.bounds,
            timing=plan.timing,
            first_connect_within_s=plan.first_connect_within_s,
            firmware="simulated",
        )
        identity = Identity(None, {KEY_ID: simulation.key})
        self._lines, self._links = [], []
        for device_id in self.device_ids:
            line = BoxLine(simulation.world.line(device_id))
            link = DeviceLink(simulation.broker, device_id)
            self._lines.append(line)
            self._links.append(link)
            host.add(device_id, simulation.world.kind_of(device_id), line, link, identity)
        await host.run()

    def sever(self) -> None:
        """See Machine."""
        self.host = None
        for line in self._lines:
            line.die()
        for link in self._links:
            link.dead = True
        for device_id in self.device_ids:
            self.simulation.broker.sever(device_id)

    def fill(self, *, full: bool, entirely: bool = False) -> None:
        """The disk is full (`entirely`: not even SQLite's log finds room), or there is room again."""
        self.disk.full = full
        self.disk.refuses_journal = full and entirely
        if self.host is not None and self.alive:
            _limit(self.host.agents, full=full)

    async def pending(self) -> int:
        """Rows that the cloud has not acknowledged; -1 while the process is not there."""
        if self.host is None or not self.alive:
            return -1
        host = self.host
        try:
            found = await host.statistics()
        except JournalError:  # it is on its way down
            return -1
        return sum(found.pending.values()) + sum(
            agent.downlink.unacknowledged_replies for agent in host.agents.values() if agent.downlink is not None
        )


def _limit(agents: Any, *, full: bool) -> None:
    for agent in agents.values():
        store = agent._journal.store  # noqa: SLF001  # one journal for all of them
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()  # noqa: SLF001
        store.limit_pages(pages if full else _PAGES_MAX)
        return


class BoxLine(WorldLine):
    """A line that goes dead with its process."""

    def __init__(self, line: Any) -> None:
        super().__init__(line)
        self._hardware = line
        self._open = False
        self._dead = False

    async def open(self) -> None:
        """Attach, unless dead."""
        if self._dead:
            raise OSError("the process is dead")
        await super().open()
        self._open = True

    def write(self, data: bytes) -> None:
        """Send, unless dead."""
        if not self._dead:
            super().write(data)

    def close(self) -> None:
        """Detach what this one attached."""
        if self._open and not self._dead:
            self._open = False
            super().close()

    def die(self) -> None:
        """The process is gone; the hardware does not notice."""
        self.close()
        self._dead = True
