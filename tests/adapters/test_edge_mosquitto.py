"""The agent over a real Mosquitto 2 with mutual TLS, against a small scripted cloud on the same broker."""

import asyncio
import contextlib
import random
import shutil
import socket

import aiomqtt
import pytest
from secure_broker import SecureBroker

from cloud.identity.pki_folder import PkiFolder
from edge.host import EdgeHost
from edge.identity import Identity, load_tls_context
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.transports import memory_pair
from fleet import envelope, topics
from fleet.envelope import Lane
from fleet.topics import DownChannel
from tests.edge_support import QUICK, Bell, Cloud, SystemClock, doorbell_kind, eventually

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(
        shutil.which("mosquitto") is None, reason="Mosquitto is not installed (apt-get install mosquitto)"
    ),
]

DEVICES = ("bell-001", "bell-002", "bell-003")
STRANGER = "bell-009"


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


class Broker:
    """The broker of production, which may be killed and started again on its ports."""

    def __init__(self, folder, device_ids):
        self.secure = SecureBroker(folder, device_ids)
        self.port = self.secure.process.port

    async def start(self):
        await asyncio.to_thread(self.secure.process.start)

    def kill(self):
        self.secure.process.kill()

    def context(self, name):
        return context_of(self.secure.folder, self.secure.folder, name)


def context_of(trusting, folder, name):
    """A device's context: the identity `name` of one folder, trusting the services of another."""
    files = folder / "identities"
    return load_tls_context(
        PkiFolder(trusting / "pki").root_file("services"), files / f"{name}.pem", files / f"{name}.key"
    )


class MqttCloud(Cloud):
    """The scripted cloud with a subscription; starts again when the broker is gone."""

    def __init__(self, clock, broker):
        super().__init__(clock)
        self.port = broker.secure.process.services_port
        self.tls = broker.secure.context(topics.INGESTER_NAME)
        self.client = None

    async def run(self):
        # The library may swallow the cancellation that ends a test; the task still knows of it.
        while not asyncio.current_task().cancelling():
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    "127.0.0.1",
                    self.port,
                    identifier="fleet.scripted-cloud",
                    tls_context=self.tls,
                    protocol=aiomqtt.ProtocolVersion.V5,
                    timeout=1.0,  # the library does not notice that a dying broker resets the connection
                ) as self.client:
                    await self.client.subscribe("f/+/+/up/#", qos=1)
                    async for message in self.client.messages:
                        topic = topics.parse_up(message.topic.value)
                        for answer in self.answer(topic.device_id, topic.channel, message.payload):
                            await self.send(topic.device_id, DownChannel.ACK, envelope.encode(answer))
            await asyncio.sleep(0.02)

    async def send(self, device_id, channel, data):
        await self.client.publish(topics.down(device_id, channel), data, qos=1)


@contextlib.asynccontextmanager
async def everything(tmp_path, device_ids=DEVICES, context=None, connect_s_max=10.0):
    broker = Broker(tmp_path / "broker", (*DEVICES, STRANGER))
    await broker.start()
    clock = SystemClock()
    cloud = MqttCloud(clock, broker)
    host = EdgeHost(clock, random.Random(1), tmp_path / "journal.sqlite", timing=QUICK)
    bells = {}
    for device_id in device_ids:
        tls = (context or broker.context)(device_id)
        edge_end, hardware_end = memory_pair()
        bells[device_id] = Bell(hardware_end)
        link = MqttLink(device_id, BrokerAddress("127.0.0.1", broker.port), tls, connect_s_max=connect_s_max)
        host.add(device_id, "doorbell", edge_end, link, Identity(tls, cloud.verifiers))
    async with asyncio.TaskGroup() as group:
        side = [group.create_task(bell.listen()) for bell in bells.values()]
        side.append(group.create_task(cloud.run()))
        running = group.create_task(host.run())
        try:
            yield broker, cloud, host, bells
        finally:
            host.stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(running), 5)
            for task in side:
                task.cancel()
            broker.kill()


def connected(host):
    return lambda: len(host.agents) > 0 and all(agent.connected for agent in host.agents.values())


async def test_press_to_light_over_mutual_tls(tmp_path):
    clock = SystemClock()
    async with everything(tmp_path) as (_, cloud, host, bells):
        await eventually(connected(host))
        started_s = clock.monotonic_s()
        for number, bell in enumerate(bells.values()):
            bell.say(f"R {number}.25")
            bell.say(f"P {number}{'1' * 31}")
        await eventually(lambda: all(bell.heard(f"L {n}{'1' * 31}") == 1 for n, bell in enumerate(bells.values())))
        assert clock.monotonic_s() - started_s < 2
        await eventually(lambda: len(cloud.readings()) == len(DEVICES))
        assert {message.device_id for message in cloud.committed} == set(DEVICES)
        await cloud.send("bell-002", DownChannel.COMMAND, cloud.command("bell-002", {"action": "ring"}))
        await eventually(lambda: bells["bell-002"].heard(f"C {'c' * 32} 1"))
        bells["bell-002"].say(f"D {'c' * 32}")
        await eventually(lambda: [reply.status for reply in cloud.replies][-1:] == ["succeeded"])
        assert bells["bell-001"].told.count(b"C ") == 0
        host.stop()  # a stopped agent says good-bye
        await eventually(
            lambda: {status.device_id: status.online for status in cloud.statuses} == dict.fromkeys(DEVICES, False)
        )


async def test_a_broker_killed_with_presses_under_way_loses_and_doubles_nothing(tmp_path):
    async with everything(tmp_path) as (broker, cloud, host, bells):
        await eventually(connected(host))
        pressed = {device_id: [] for device_id in DEVICES}
        for round_number in range(30):
            for device_id, bell in bells.items():
                event_id = f"{round_number:032x}"
                pressed[device_id].append(event_id)
                bell.say(f"P {event_id}")
            if round_number % 10 == 4:
                broker.kill()
            if round_number % 10 == 7:
                await broker.start()
            await asyncio.sleep(0)
        await eventually(lambda: len(cloud.event_ids(Lane.EMERGENCY)) == 90, within_s=20)
        for device_id in DEVICES:
            assert [
                envelope.msgspec.json.decode(message.payload)["event_id"]
                for message in cloud.committed
                if message.device_id == device_id and message.lane is Lane.EMERGENCY
            ] == pressed[device_id]
        assert any(not status.online for status in cloud.statuses) or host.agents["bell-001"].counts["disconnects"]


async def test_the_broker_speaks_for_a_device_that_vanished(tmp_path):
    async with everything(tmp_path, DEVICES[:1]) as (_, cloud, host, _bells):
        await eventually(connected(host))
        agent = host.agents["bell-001"]
        before = len(cloud.statuses)
        client = await _client_of(agent)
        client._client._sock.shutdown(socket.SHUT_RDWR)  # the network is gone, nobody says good-bye
        await eventually(lambda: any(not status.online for status in cloud.statuses[before:]))
        await eventually(lambda: agent.connected and cloud.statuses[-1].online and cloud.statuses[-1].connection >= 3)
        will = next(status for status in cloud.statuses[before:] if not status.online)
        again = [status for status in cloud.statuses if status.online][-1]
        assert (again.boot_epoch, again.connection) > (will.boot_epoch, will.connection)


async def _client_of(agent):
    """The MQTT client of the current connection, found among the tasks' objects."""
    import gc

    (session,) = [
        thing
        for thing in gc.get_objects()
        if type(thing).__name__ == "_MqttSession" and agent.connected and not thing._client._disconnected.done()
    ]
    return session._client


async def test_a_certificate_of_another_authority_never_connects(tmp_path):
    stranger = SecureBroker(tmp_path / "stranger", DEVICES[:1])

    def context(name):
        return context_of(tmp_path / "broker", stranger.folder, name)

    async with everything(tmp_path, DEVICES[:1], context, connect_s_max=0.3) as (_, cloud, host, _bells):
        await eventually(lambda: host.agents and host.agents["bell-001"].counts["disconnects"] >= 3)
        assert host.agents["bell-001"].counts["connects"] == 0
        assert cloud.hellos == []


async def test_a_device_cannot_speak_for_another(tmp_path):
    async with everything(tmp_path, DEVICES[:1]) as (broker, cloud, host, bells):
        await eventually(connected(host))
        thief = MqttLink("bell-002", BrokerAddress("127.0.0.1", broker.port), broker.context(STRANGER))
        count = len(cloud.hellos)
        will = envelope.Status("bell-002", 0, 1, online=False)
        async with thief.connect(will, 5) as session:
            hello = envelope.Hello(1, "doorbell", "bell-002", "a" * 32, 0, 0, "b" * 32, "", "c" * 32)
            await session.publish(
                topics.UpChannel.HELLO, envelope.encode(hello)
            )  # acknowledged by the broker, and dropped
        bells["bell-001"].say(f"P {'1' * 32}")
        await eventually(lambda: bells["bell-001"].heard(f"L {'1' * 32}"))  # whatever came before has been delivered
        assert len(cloud.hellos) == count
