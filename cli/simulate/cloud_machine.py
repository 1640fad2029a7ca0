"""The cloud's process: the parts of `cloud.bootstrap` with a link, a receiver and a series in memory."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import OperationalError

import devices
from cli.simulate.ingester_link import IngesterLink
from cli.simulate.keys import KEY_ID
from cli.simulate.machines import Machine
from cloud.adapters.notify.inbox import InboxChannel
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.adapters.sql.patience import endless
from cloud.api.changes import Changes
from cloud.device_commands.keys import OneKey
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.planner import Dispatch
from cloud.drain_rows import DrainPosition, Quarantine
from cloud.ingest import repository as ingest_rows
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.leases import Leases
from cloud.intents import IntentDesk
from cloud.model import Notification
from cloud.pipeline import Pipeline, PipelineLimits
from cloud.ports import Database, NotDeliveredError, NotificationChannel
from cloud.tables import device
from cloud.timeseries.drain import DrainOptions, SeriesDrain
from cloud.timeseries.spool import Spool
from fleet.topics import SHARD_COUNT

if TYPE_CHECKING:
    from cli.simulate.simulation import Simulation

SPOOL_NAME: Final = "ingester"
RECEIVER: Final = "webhook"
_ANSWER_S_MAX: Final = 0.5
_ASKED_MAX: Final = 1_000


class PatchyDatabase:
    """The real database; while the disk is full it refuses every write as SQLite would."""

    def __init__(self, inner: SqlDatabase, is_full: Callable[[], bool]) -> None:
        self._inner = inner
        self._is_full = is_full

    async def write(self, work: Callable[[Any], Any]) -> Any:
        """See cloud.ports.Database."""
        while self._is_full():  # noqa: ASYNC110  # the real one asks again as well (`patience.endless`)
            await asyncio.sleep(0.5)

        def unless_full(connection: Any) -> Any:
            if self._is_full():
                raise OperationalError("COMMIT", {}, Exception("database or disk is full"))
            return work(connection)

        return await self._inner.write(unless_full)

    async def read(self, work: Callable[[Any], Any]) -> Any:
        """See cloud.ports.Database."""
        return await self._inner.read(work)


class Receiver:
    """The other end of the web hook: a machine of its own, which accepts, refuses, or hangs."""

    name = RECEIVER

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """See cloud.ports.NotificationChannel."""
        simulation = self._simulation
        await asyncio.sleep(min(_ANSWER_S_MAX, simulation.broker.weather.delay_s()))
        if simulation.receiver_hangs:
            await asyncio.sleep(3600.0)
        if simulation.receiver_down:
            raise NotDeliveredError("503")
        simulation.oracle.notified(notification, delivery_id)
        await asyncio.sleep(min(_ANSWER_S_MAX, simulation.broker.weather.delay_s()))


class CloudMachine(Machine):
    """All roles in one process, on SQLite."""

    def __init__(self, simulation: "Simulation", name: str = "cloud") -> None:
        super().__init__(simulation, name)
        self.link: IngesterLink | None = None
        self.commands: DeviceCommands | None = None
        self.intents: IntentDesk | None = None
        self.database: Database | None = None
        self.pipeline: Pipeline | None = None
        self.drain: SeriesDrain | None = None
        self._asked: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(_ASKED_MAX)
        shutil.copyfile(_template(simulation), self.disk.folder / "state.db")

    async def live(self) -> None:
        """See Machine."""
        simulation, plan = self.simulation, self.simulation.plan
        self._asked = asyncio.Queue(_ASKED_MAX)
        sql = SqlDatabase(f"sqlite:///{self.disk.folder / 'state.db'}")
        spool: Spool | None = None
        try:
            database = self.database = PatchyDatabase(sql, lambda: self.disk.full)
            randomness = simulation.randomness("cloud", str(self.kills))
            link = self.link = IngesterLink(
                simulation.broker, simulation.trace, linger_s=plan.linger_s, batch_messages_max=plan.batch_messages_max
            )
            changes = Changes()
            numbers = iter(range(1 << 40))
            new_id = lambda: f"{self.kills:08x}{next(numbers):024x}"  # noqa: E731
            commands = self.commands = DeviceCommands(
                database, self.clock, link.publish, OneKey(KEY_ID, simulation.key), new_id
            )
            intents = self.intents = IntentDesk(database, self.clock, new_id)
            channels: list[NotificationChannel] = [InboxChannel(database, changes), Receiver(simulation)]
            outbox = Outbox(
                database, self.clock, channels, real_now_ms=self.clock.now_ms, randomness=randomness,
                owner=f"cloud-{self.kills}", sole_owner=True, poll_s=plan.poll_s,
            )  # fmt: skip
            marks = [
                sql.read_here(partial(ingest_rows.spool_position, spool=SPOOL_NAME, name=one))
                for one in ("twin", "series")
            ]
            spool = Spool(
                self.disk.folder / "spool", consumers=("twin", "series"), free_bytes_min=0, position_min=max(marks),
                segment_bytes_max=plan.segment_bytes_max,
            )  # fmt: skip
            leases = Leases(database, SPOOL_NAME, self.clock.now_ms)
            pipeline = self.pipeline = Pipeline(
                kinds=devices.kinds(), link=link, spool=spool, spool_name=SPOOL_NAME, database=database,
                leases=leases, dispatch=Dispatch([channel.name for channel in channels]), commands=commands,
                acknowledger=Acknowledger(OneKey(KEY_ID, simulation.key)), intents=intents, event_handlers={},
                changes=changes, wake_outbox=outbox.wake, clock=self.clock,
                limits=PipelineLimits(
                    batch_messages_max=plan.batch_messages_max, twin_flush_s=plan.twin_flush_s
                ),
            )  # fmt: skip
            drain = self.drain = SeriesDrain(
                spool, simulation.series, positions=DrainPosition(database, SPOOL_NAME),
                quarantine=Quarantine(database), randomness=randomness,
                options=DrainOptions(interval_s=plan.drain_interval_s),
            )  # fmt: skip
            async with asyncio.TaskGroup() as group:
                group.create_task(endless(pipeline.run(range(SHARD_COUNT))))
                group.create_task(endless(drain.run()))
                group.create_task(endless(outbox.run()))
                group.create_task(endless(commands.run()))
                group.create_task(self._serve_people(group))
        finally:
            if spool is not None:
                spool.close()
            sql.close()

    async def _serve_people(self, group: asyncio.TaskGroup) -> None:
        while True:
            work = await self._asked.get()
            group.create_task(_quietly(work))

    def ask(self, work: Callable[[], Awaitable[None]]) -> None:
        """A person's request, as the web server would run it; lost if nobody is there."""
        if self.alive and not self._asked.full():
            self._asked.put_nowait(work)

    def sever(self) -> None:
        """See Machine."""
        if self.link is not None:
            self.link.dead = True
            self.link.broken()
        self.database = self.commands = self.intents = self.pipeline = self.drain = self.link = None


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception as error:  # noqa: BLE001  # a person is told, and tries again or not
        del error


@cache
def _schema() -> bytes:
    """An empty database; migrations take longer than an hour of a small fleet."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def _template(simulation: "Simulation") -> Path:
    """A database with the fleet enrolled."""
    copy = simulation.root / "enrolled.db"
    copy.write_bytes(_schema())
    sql = SqlDatabase(f"sqlite:///{copy}")
    world = simulation.world
    rows = [
        {"device_id": one, "kind": world.kind_of(one), "name": one, "enrolled_at": world.started_ms}
        for one in world.device_ids
    ]
    sql.write_here(lambda tx: tx.execute(device.insert(), rows))
    sql.close()
    return copy
