"""Commands over a real broker between the real cloud, a real agent and a simulated lock: keys, lateness, absence."""

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import devices
from cli.sim import WorldLine
from cloud.device_commands.keys import KeyRingFile
from cloud.device_commands.service import ACCEPT_GRACE_S
from cloud.model import Downstream
from cloud.tables import command, device
from devices.bike.messages import Ring
from edge.host import EdgeHost
from edge.identity import Identity
from edge.mqtt_link import BrokerAddress, MqttLink
from firmware_sim import live
from firmware_sim.scenario import QUIET
from firmware_sim.truth import TruthMemory
from firmware_sim.world import World
from fleet.topics import DownChannel, down
from tests.adapters.pipeline_bench import Cloud, Devices, until
from tests.device_messages import NOW_MS, Speaker
from tests.edge_support import QUICK

BIKE = Speaker("bike-001", "bike")
YEARS_MS = 10 * 365 * 86_400_000


class Clock:
    """Goes on by itself, and can be set."""

    speed = 1.0

    def __init__(self):
        self.set_by_ms = 0
        self._began_s = time.monotonic()

    def now_ms(self):
        return NOW_MS + self.set_by_ms + round((time.monotonic() - self._began_s) * 1000)

    def monotonic_s(self):
        return time.monotonic()


class Bike:
    """A simulated bike whose agent can be stopped and started on the same storage."""

    def __init__(self, folder, port, verifiers):
        self.clock = Clock()
        self.folder = folder
        self.host = None
        self.truth = TruthMemory()
        self._port = port
        self._verifiers = verifiers
        self._hardware_clock = Clock()
        self._world = World(
            tuple(devices.kinds()), {"bike": 1}, 1, NOW_MS, QUIET, truth=self.truth, clock=self._hardware_clock
        )

    @asynccontextmanager
    async def online(self):
        host = self.host = EdgeHost(self.clock, random.Random(1), self.folder / "agent.sqlite", timing=QUICK)
        link = MqttLink(BIKE.device_id, BrokerAddress("127.0.0.1", self._port), None)
        line = WorldLine(self._world.line(BIKE.device_id))
        host.add(BIKE.device_id, "bike", line, link, Identity(None, self._verifiers))
        async with asyncio.TaskGroup() as group:
            living = group.create_task(live.run(self._world, self._hardware_clock))
            running = group.create_task(host.run())
            await until(lambda: BIKE.device_id in host.agents and self.agent.connected, "the agent to be welcomed")
            try:
                yield self
            finally:
                host.stop()
                await running
                living.cancel()

    @property
    def agent(self):
        return self.host.agents[BIKE.device_id]

    def rung(self):
        """Command id → how often the lock's controller carried it out."""
        return Counter(line.facts["command_id"] for line in self.truth.lines() if line.what == "command")


@pytest.fixture
def keys(tmp_path):
    return KeyRingFile(tmp_path / "command.key")


@pytest.fixture
def cloud_at(tmp_path, broker, keys):
    """Another process of the cloud on the same data, with the clock given."""
    (tmp_path / "cloud").mkdir()
    return lambda clock: Cloud(tmp_path / "cloud", broker.port, clock=clock, keys=KeyRingFile(keys.path))


@pytest.fixture
def bike(tmp_path, broker, keys):
    (key,) = keys.ring.active
    return Bike(tmp_path, broker.port, {key.id: key.private.public_key()})


async def ring(cloud):
    command_id = await cloud.database.write(
        lambda tx: cloud.commands.order(tx, BIKE.device_id, Ring(duration_seconds=1), actor="p1")
    )
    cloud.commands.after_commit()
    return command_id


def trusted(cloud):
    return cloud.rows(device)[0]["command_keys"]


def rotate(keys):
    keys.replace(keys.ring.with_new_key(Ed25519PrivateKey.generate(), keys.ring.version + 1))
    return keys.ring.active[-1].id


def ignored(bike):
    return {
        name: count for name, count in bike.agent.downlink.counts.items() if name.startswith(("ignored", "refused"))
    }


async def test_keys_rotate_while_commands_flow_and_none_is_refused_or_doubled(cloud_at, keys, bike):
    cloud = cloud_at(bike.clock)
    cloud.enrol(BIKE)
    ids, stop = [], asyncio.Event()

    async def flow():
        while not stop.is_set():
            ids.append(await ring(cloud))
            assert await cloud.commands.outcome(ids[-1], 10.0) == ("succeeded", "")

    async with cloud.running(), bike.online():
        (old,) = keys.announced_ids
        assert trusted(cloud) == old
        async with asyncio.TaskGroup() as group:
            group.create_task(flow())
            new = rotate(keys)
            await until(lambda: trusted(cloud) == " ".join(sorted((old, new))), "the device to know both")
            count = len(ids)
            await until(lambda: len(ids) > count + 3, "commands under the new key")
            keys.replace(keys.ring.retired(old, keys.ring.version + 1))
            await until(lambda: trusted(cloud) == new, "the device to drop the old one")
            count = len(ids)
            await until(lambda: len(ids) > count + 3, "commands under the new key alone")
            stop.set()
        assert ignored(bike) == {}
        assert bike.agent.downlink._keys.ids == (new,)
    async with cloud_at(bike.clock).running() as again, bike.online():  # both start anew
        ids.append(await ring(again))
        assert await again.commands.outcome(ids[-1], 10.0) == ("succeeded", "")
        assert bike.agent.downlink._keys.ids == (new,)
    assert bike.rung() == dict.fromkeys(ids, 1)


async def test_a_device_that_was_away_for_two_rotations_learns_by_the_key_it_knows(cloud_at, keys, bike):
    cloud = cloud_at(bike.clock)
    cloud.enrol(BIKE)
    async with cloud.running():
        async with bike.online():
            pass
        (old,) = keys.announced_ids
        middle = rotate(keys)
        keys.replace(keys.ring.retired(old, keys.ring.version + 1))
        new = rotate(keys)
        keys.replace(keys.ring.without(middle, keys.ring.version + 1))
        async with bike.online():
            await until(lambda: trusted(cloud) == new, "the device to have learnt the newest")
            assert await cloud.commands.outcome(await ring(cloud), 10.0) == ("succeeded", "")
            assert ignored(bike) == {}


async def test_a_removed_key_moves_nothing_any_more(cloud_at, keys, bike):
    cloud = cloud_at(bike.clock)
    cloud.enrol(BIKE)
    async with cloud.running(), bike.online():
        stolen = keys.ring.active[0]
        new = rotate(keys)
        await until(lambda: new in trusted(cloud), "the device to know the new key")
        keys.replace(keys.ring.without(stolen.id, keys.ring.version + 1))
        await until(lambda: trusted(cloud) == new, "the device to drop the stolen one")
        cloud.commands._keys = type("Thief", (), {
            "version": 0, "announced_ids": (), "refresh": lambda _: False,
            "for_command": lambda *_: (stolen.id, stolen.private),
        })()  # fmt: skip
        await ring(cloud)
        await until(lambda: ignored(bike) == {"ignored_unknown_key": 1}, "the stolen key's command to be ignored")
        assert not bike.rung()


@pytest.mark.parametrize(
    ("edge_ms", "cloud_ms"),
    [(0, 0), (YEARS_MS, 0), (-YEARS_MS, 0), (0, YEARS_MS), (0, -YEARS_MS)],
    ids=["clocks right", "edge ahead", "edge behind", "cloud ahead", "cloud behind"],
)
async def test_a_command_to_an_offline_device_ends_expired_and_never_fires(cloud_at, bike, broker, edge_ms, cloud_ms):
    clock = Clock()
    cloud = cloud_at(clock)
    cloud.enrol(BIKE)
    observer = Devices(broker.port)
    async with observer.connected():
        async with cloud.running():
            async with bike.online():
                pass
            command_id = await ring(cloud)
            await until(lambda: cloud.rows(command)[0]["status"] == "sent", "the command to leave")
            (missed,) = await until(lambda: observer.orders[BIKE.device_id], "the broker to have had it")
        clock.set_by_ms += cloud_ms  # the cloud is restarted, and its clock was set meanwhile
        async with cloud_at(clock).running() as again:
            clock.set_by_ms += round((10 + ACCEPT_GRACE_S + 1) * 1000)
            assert await again.commands.outcome(command_id, 10.0) == ("expired", "expired")
            bike.clock.set_by_ms = edge_ms
            async with bike.online():
                observer.client.publish([Downstream(down(BIKE.device_id, DownChannel.COMMAND), missed)])
                alive = await ring(again)
                assert await again.commands.outcome(alive, 10.0) == ("succeeded", "")
                assert bike.rung() == {alive: 1}
                # By the word of a cloud whose clock went back it is not old, but from a future that nobody vouches for.
                late = "refused_untrusted_time" if cloud_ms < 0 else "refused_expired"
                assert bike.agent.downlink.counts[late] == 1
            statuses = {row["id"]: row["status"] for row in again.rows(command)}
            assert statuses == {command_id: "expired", alive: "succeeded"}


async def test_the_broker_keeps_no_command_for_anybody(cloud_at, broker, bike):
    cloud = cloud_at(bike.clock)
    cloud.enrol(BIKE)
    async with cloud.running():
        first = Devices(broker.port)
        async with first.connected():
            await ring(cloud)
            await until(lambda: first.orders[BIKE.device_id], "the command")
        late = Devices(broker.port)
        async with late.connected():
            await ring(cloud)
            await until(lambda: late.orders[BIKE.device_id], "the next command")
            assert len(late.orders[BIKE.device_id]) == 1
