"""Many agents in one process, sharing one journal; one device in production, hundreds in a simulation."""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import devices
from edge.agent import AgentSettings, EdgeAgent
from edge.command_keys import TrustedKeys
from edge.credentials import Credentials
from edge.identity import Identity
from edge.journal import Journal
from edge.link import Link
from edge.records import Bounds, JournalCorruptError, JournalReturnedError
from edge.supervision import OnFailure, supervised
from edge.timing import Timing
from edge.transports import Line
from fleet.clock import Clock
from fleet.envelope import Lane
from fleet.randomness import Randomness

_REOPENS_MAX: Final = 3  # a journal that is damaged again at once is a dying disk: let the supervisor see it

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts since the start; `pending` and `evicted` per lane are what the journal holds and has let go."""

    devices: int
    connected: int
    journalled: int
    acknowledged: int
    pending: Mapping[Lane, int]
    evicted: Mapping[Lane, int]
    reserved: int
    in_memory: int
    """Emergencies that only this process knows: the disk takes nothing."""
    reserve_skipped: int
    set_aside: int
    """Messages nobody would take, kept for people (`Journal.set_aside_messages`)."""
    journal_absent: bool
    commits: int
    counts: Mapping[str, int]
    """Everything else the agents counted, summed over the devices."""


class EdgeHost:
    """Runs agents until one of them fails or it is stopped."""

    def __init__(
        self,
        clock: Clock,
        randomness: Randomness,
        journal_path: Path,
        *,
        bounds: Bounds | None = None,
        timing: Timing | None = None,
        first_connect_within_s: float = 0.0,
        firmware: str = "",
        on_failure: OnFailure = lambda _: None,
    ) -> None:
        """Opens the journal.

        Args:
            clock: business time and monotonic time.
            randomness: for jitter only.
            journal_path: the database; its reserve lies beside it.
            bounds: how much each device may keep.
            timing: rhythms of the agents.
            first_connect_within_s: first connections are spread over this time; 0 for a single device.
            firmware: reported to the cloud.
            on_failure: hears of a task's death before anything is cleaned up.

        Raises:
            JournalError: the journal cannot be opened.
        """
        self._clock = clock
        self._randomness = randomness
        self._journal_path = journal_path
        self._bounds = bounds
        self._on_failure = on_failure
        self._timing = timing or Timing()
        self._first_connect_within_s = first_connect_within_s
        self._firmware = firmware
        self._journal = Journal(journal_path, bounds=bounds)
        self._declared: dict[str, tuple[str, Line, Link, Identity]] = {}
        self._agents: dict[str, EdgeAgent] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    def add(self, device_id: str, kind_name: str, line: Line, link: Link, identity: Identity) -> None:
        """Run one more device, at once if the host runs already.

        Raises:
            ValueError: the device is here already.
            UnknownKindError: no such kind.
        """
        if device_id in self._declared:
            raise ValueError(f"device {device_id!r} is in this process already")
        devices.kind_named(kind_name)
        self._declared[device_id] = kind_name, line, link, identity
        if self._group is not None:
            self._start(device_id, self._group)

    def stop(self) -> None:
        """Let `run` return: readings are journalled, the cloud is told, files are closed."""
        self._stop.set()

    @property
    def journal(self) -> Journal:
        """The present one: a damaged journal is replaced while the host runs."""
        return self._journal

    @property
    def agents(self) -> Mapping[str, EdgeAgent]:
        """Running agents by device id."""
        return self._agents

    async def run(self) -> None:
        """Run all agents until `stop`; an agent's failure ends all of them with its exception.

        A journal that turns out to be damaged is set aside and begun anew, and the agents start again.
        """
        remaining = _REOPENS_MAX
        while True:
            damaged: BaseExceptionGroup[JournalCorruptError] | None = None
            try:
                await self._run_once()
            except* JournalCorruptError as errors:
                damaged = errors
            if damaged is None:
                return
            if damaged.split(JournalReturnedError)[1] is not None:
                if not remaining:
                    raise damaged
                remaining -= 1
            self._journal = Journal(self._journal_path, bounds=self._bounds, in_memory=self._journal.in_memory)

    async def _run_once(self) -> None:
        journal = self._journal
        try:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(supervised(journal.run(), self._on_failure))
                try:
                    async with asyncio.TaskGroup() as group:
                        self._group = group
                        self._tasks.clear()
                        for device_id in self._declared:
                            self._start(device_id, group)
                        await self._stop.wait()
                        for task in self._tasks:
                            task.cancel()
                finally:
                    self._group = None
                    journal.close()
        finally:
            journal.shut()

    def _start(self, device_id: str, group: asyncio.TaskGroup) -> None:
        kind_name, line, link, identity = self._declared[device_id]
        agent = EdgeAgent(
            device_id,
            devices.kind_named(kind_name),
            devices.role(kind_name, "driver").create,
            line,
            link,
            self._journal,
            self._clock,
            self._randomness,
            AgentSettings(
                keys=TrustedKeys(identity.verifiers, self._keys_path(device_id)),
                firmware=self._firmware,
                timing=self._timing,
                first_connect_within_s=self._first_connect_within_s,
                credentials=identity.credentials or Credentials(),
                on_failure=self._on_failure,
            ),
        )
        self._agents[device_id] = agent
        self._tasks.append(group.create_task(agent.run(), name=f"agent {device_id}"))

    def _keys_path(self, device_id: str) -> Path:
        """Beside the journal, not in it: keys that were withdrawn stay so when a damaged journal is begun anew."""
        return self._journal_path.with_name(f"command-keys-{device_id}.json")

    async def statistics(self) -> Statistics:
        """What happened so far; while the host runs."""
        in_journal = await self._journal.read(lambda store: store.counts())
        set_aside = await self._journal.read(lambda store: store.set_aside_count())
        pending = dict.fromkeys(Lane, 0)
        evicted = dict.fromkeys(Lane, 0)
        for lanes in in_journal.values():
            for lane, (rows, gone) in lanes.items():
                pending[lane] += rows
                evicted[lane] += gone
        pending[Lane.EMERGENCY] += len(self._journal.reserved_rows)
        counts: Counter[str] = Counter()
        for agent in self._agents.values():
            counts.update(agent.statistics())
        return Statistics(
            devices=len(self._agents),
            connected=sum(agent.connected for agent in self._agents.values()),
            journalled=self._journal.journalled,
            acknowledged=counts.pop("acknowledged", 0),
            pending=pending,
            evicted=evicted,
            reserved=self._journal.reserved,
            in_memory=len(self._journal.in_memory),
            reserve_skipped=self._journal.reserve_skipped,
            set_aside=set_aside,
            journal_absent=self._journal.absent,
            commits=self._journal.commits,
            counts=dict(counts),
        )
