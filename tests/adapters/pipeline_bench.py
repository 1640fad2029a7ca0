"""The ingesting half of the cloud as bootstrap joins it, over a real Mosquitto and a real SQLite, with a clock
that stands still; and the devices, as one connection that says what a test wants."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

import devices
from cloud.adapters.mqtt.link import BrokerLink
from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.adapters.mqtt.receiver import MqttReceiver
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.device_commands.keys import OneKey
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.planner import Dispatch
from cloud.identity.desk import IdentityDesk
from cloud.ingest import repository as ingest_rows
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.leases import Leases
from cloud.intents import IntentDesk
from cloud.model import Downstream
from cloud.pipeline import Pipeline, PipelineLimits
from cloud.ports import SigningKeys
from cloud.tables import device, event, quarantine, twin
from cloud.timeseries.spool import Spool
from fleet.envelope import Acknowledgement, Lane, Welcome, decode_downlink
from fleet.topics import SHARD_COUNT
from tests.adapters.mosquitto_fixture import PUBLISHER, tls_of
from tests.device_messages import NOW_MS, Speaker, hex_id

SOON_S = 15.0
KEY_ID = "test"
NEVER_S = 3600.0


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """The first truthy answer; fails after `SOON_S`."""
    deadline = time.monotonic() + SOON_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what or condition}"
        await asyncio.sleep(0.005)
    return found


class SteadyClock:
    """Business time stands still until it is advanced; real time goes on, for beats and leases."""

    speed = 1.0

    def __init__(self) -> None:
        self._now_ms = NOW_MS

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return time.monotonic()

    def advance(self, *, seconds: float) -> None:
        self._now_ms += round(seconds * 1000)


class CountingLink(BrokerLink):
    """The link, which also counts the rounds of whoever takes from it."""

    rounds = 0

    def take(self, messages_max: int) -> Any:
        self.rounds += 1
        return super().take(messages_max)


class FailingDatabase:
    """The database, of which every write fails while `failing` is set."""

    def __init__(self, inner: SqlDatabase) -> None:
        self._inner = inner
        self.failing = False
        self.failures = 0

    async def write(self, work: Any) -> Any:
        if self.failing:
            self.failures += 1
            raise OperationalError("COMMIT", {}, Exception("database or disk is full"))
        return await self._inner.write(work)

    async def read(self, work: Any) -> Any:
        return await self._inner.read(work)


class Changes:
    """What open pages would be told."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []

    def publish(self, topic: str, facts: dict[str, Any]) -> None:
        self.published.append((topic, facts))


class Cloud:
    """One ingester on the data in `folder`; make another on the same folder to start it again after a crash."""

    def __init__(
        self, folder: Path, port: int, *, clock: SteadyClock | None = None, owner: str = "ingester-a",
        twin_flush_s: float = 0.05, spool_bytes_max: int = 100_000_000, real_now_ms: Callable[[], int] | None = None,
        keys: SigningKeys | None = None, identity: IdentityDesk | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock or SteadyClock()
        self.url = f"sqlite:///{folder / 'state.db'}"
        upgrade(self.url)
        self.sql = SqlDatabase(self.url)
        self.database = FailingDatabase(self.sql)
        self.key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.keys = keys or OneKey(KEY_ID, self.key)
        options = ReceiverOptions(client_id=owner, port=port, tls=tls_of(port), reconnect_base_s=0.05)
        self.link = CountingLink(options, random.Random(1), batch_messages_max=1000, linger_s=0.005)
        self.changes = Changes()
        self.handled: list[Any] = []
        self.outcomes: list[Any] = []
        numbers = iter(range(1_000_000))
        new_id = lambda: hex_id(owner, time.monotonic_ns(), next(numbers))  # noqa: E731
        actions = ("unlock", "ring", "show_help_coming", "start_self_test")
        self.commands = DeviceCommands(
            self.database, self.clock, self.link.publish, self.keys, new_id,
            {action: [self._on_outcome] for action in actions},
        )  # fmt: skip
        self.intents = IntentDesk(self.database, self.clock, new_id)
        marks = self.sql.read_here(lambda tx: ingest_rows.spool_position(tx, owner, "twin"))
        self.spool = Spool(
            folder / "spool", consumers=("twin",), bytes_max=spool_bytes_max, free_bytes_min=0, position_min=marks
        )
        self.leases = Leases(self.database, owner, real_now_ms or (lambda: time.time_ns() // 1_000_000))
        self.pipeline = Pipeline(
            kinds=devices.kinds(), link=self.link, spool=self.spool, spool_name=owner, database=self.database,
            leases=self.leases, dispatch=Dispatch(["inbox", "webhook"]), commands=self.commands,
            acknowledger=Acknowledger(self.keys), intents=self.intents,
            event_handlers={("bike", "fall"): [self._on_event], ("nursing_room", "pressed"): [self._on_event]},
            changes=self.changes, wake_outbox=lambda: None, clock=self.clock,
            limits=PipelineLimits(twin_flush_s=twin_flush_s), identity=identity,
        )  # fmt: skip

    def _on_event(self, _tx: Connection, stored: Any) -> None:
        self.handled.append(stored.event_id)

    def _on_outcome(self, _tx: Connection, outcome: Any) -> None:
        self.outcomes.append((outcome.command_id, outcome.status, outcome.reason))

    async def run(self) -> None:
        """Until cancelled or until something dies, as the process would."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.pipeline.run(range(SHARD_COUNT)))
                group.create_task(self.commands.run())
        finally:
            self.spool.close()
            self.sql.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Cloud"]:
        """Ready and connected; leaving is a crash: nothing is finished or flushed."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.run())
            await until(lambda: self.link.connected or task.done(), "the ingester to be connected")
            try:
                yield self
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def pass_time(self, seconds: float) -> None:
        """Let business time pass in steps that do not look like a clock that was set."""
        while seconds > 0:
            step = min(seconds, 1.5)
            self.clock.advance(seconds=step)
            seconds -= step
            await self.next_round()

    async def next_round(self) -> None:
        """Until a whole round was done that began after now."""
        for _ in range(2):  # the second one begins when the first is done
            began = self.link.rounds
            self.pipeline.intents_waiting()
            await until(lambda: self.link.rounds > began, "a round of the pipeline")  # noqa: B023

    # --- looking ---------------------------------------------------------------------------------------------------

    def enrol(self, *speakers: Speaker, granted: bool = True) -> None:
        rows = [
            {
                "device_id": speaker.device_id, "kind": speaker.kind, "name": speaker.device_id, "enrolled_at": NOW_MS,
                "storage_id": speaker.storage_id if granted else None, "generation": 1 if granted else 0,
            }
            for speaker in speakers
        ]  # fmt: skip
        self.sql.write_here(lambda tx: tx.execute(device.insert(), rows))

    def rows(self, table: Any, **where: Any) -> list[dict[str, Any]]:
        query = select(table).filter_by(**where).order_by(*table.primary_key.columns)
        return self.sql.read_here(lambda tx: [dict(row) for row in tx.execute(query).mappings()])

    def twin(self, speaker: Speaker) -> dict[str, Any]:
        return (self.rows(twin, device_id=speaker.device_id) or [{}])[0]

    def events(self, **where: Any) -> list[tuple[str, int]]:
        return [(row["event_id"], row["seq"]) for row in self.rows(event, **where)]

    def quarantined(self) -> list[dict[str, Any]]:
        return self.rows(quarantine)

    def spooled(self) -> list[bytes]:
        found, position = [], 0
        while (batch := self.spool.read(position)).envelopes:
            found += batch.envelopes
            position = batch.next_position
        return found


class Devices:
    """All devices on one connection; keeps what each of them is told."""

    def __init__(self, port: int) -> None:
        tls = tls_of(port, PUBLISHER)
        options = ReceiverOptions(client_id="devices", port=port, tls=tls, coalesce_s=0.0, reconnect_base_s=0.05)
        self.client = MqttReceiver(options, ("f/+/+/down/+",), random.Random(2))
        self.told: dict[str, list[Any]] = defaultdict(list)
        self.orders: dict[str, list[bytes]] = defaultdict(list)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Devices"]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.client.run()), group.create_task(self._listen())]
            await self.client.wait_connected()
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    async def _listen(self) -> None:
        while True:
            messages = await self.client.next_batch(1000, 0.0)
            for message in messages:
                device_id, channel = message.topic.split("/")[2], message.topic.rpartition("/")[2]
                if channel == "ack":
                    self.told[device_id].append(decode_downlink(message.payload))
                else:
                    self.orders[device_id].append(message.payload)
            self.client.acknowledge(messages)

    def say(self, *messages: tuple[str, bytes]) -> None:
        self.client.publish([Downstream(topic, data) for topic, data in messages])

    async def heard_by_broker(self) -> None:
        """Until the broker has taken everything that was said."""
        await until(lambda: self.client.publishes_waiting == 0, "the broker")

    def mark(self, speaker: Speaker, lane: Lane) -> int:
        """Highest number that was acknowledged."""
        acknowledgements = [item for item in self.told[speaker.device_id] if isinstance(item, Acknowledgement)]
        return max((item.marks.get(lane, 0) for item in acknowledgements), default=0)

    async def acknowledged(self, speaker: Speaker, lane: Lane, seq: int) -> None:
        await until(
            lambda: self.mark(speaker, lane) >= seq, f"{speaker.device_id} {lane.value} {seq} to be acknowledged"
        )

    def refused(self, speaker: Speaker) -> list[tuple[Lane, int]]:
        found = [item for item in self.told[speaker.device_id] if isinstance(item, Acknowledgement)]
        return [(refusal.lane, refusal.seq) for item in found for refusal in item.refused]

    async def welcome(self, speaker: Speaker, nonce: str = "0" * 32, **changes: Any) -> Welcome:
        """Say hello and wait for the answer to this very nonce."""
        self.say(speaker.hello(nonce, **changes))
        mine = lambda item: isinstance(item, Welcome) and item.nonce == nonce  # noqa: E731
        return await until(lambda: next(filter(mine, self.told[speaker.device_id]), None), "a welcome")
