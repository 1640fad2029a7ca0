"""Wills and flapping links through a real Mosquitto: what a broker really says of connections, and when."""

import socket
import struct

import pytest
from mqtt5 import ConnectPacket, PublishPacket, QoS, Will
from pipeline_bench import Cloud, Devices, until

from cloud.presence import DROPS_UNSTABLE
from cloud.tables import alarm, outbox
from fleet.envelope import Lane
from tests.device_messages import Speaker

pytestmark = pytest.mark.mosquitto

ROOM = Speaker("room-001", "nursing_room")
FLAPS = 90


class Connection:
    """One MQTT connection of a device with its last will, on a plain socket, so that it can be torn."""

    def __init__(self, port, speaker, number):
        self._speaker, self._number = speaker, number
        topic, gone = speaker.status(online=False, connection=number)
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(10)
        will = Will(topic, payload=gone, qos=QoS.AT_LEAST_ONCE)
        self._socket.sendall(ConnectPacket(speaker.device_id, clean_start=True, keep_alive=60, will=will).write())
        assert self._socket.recv(1024)[0] == 0x20, "CONNACK"

    def say(self, *messages):
        for topic, payload in messages:
            self._socket.sendall(PublishPacket(topic, payload=payload).write())

    def arrive(self):
        """As an agent begins: hello, then the link's state."""
        self.say(self._speaker.hello(), self._speaker.status(online=True, connection=self._number))

    def tear(self):
        """The connection is gone without a word: a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


@pytest.fixture
async def cloud(tmp_path, broker):
    made = Cloud(tmp_path, broker.port)
    made.enrol(ROOM)
    async with made.running():
        yield made


def lane(cloud):
    return cloud.pipeline.lanes[ROOM.device_id]


async def link_is(cloud, online, connection):
    await until(
        lambda: (lane(cloud).online, lane(cloud).link_connection) == (online, connection),
        f"connection {connection} to be {'up' if online else 'down'}",
    )


async def test_a_torn_connection_is_told_by_its_will_and_no_alarm(cloud, broker):
    first = Connection(broker.port, ROOM, 1)
    first.arrive()
    await link_is(cloud, True, 1)
    first.tear()
    await link_is(cloud, False, 1)
    await cloud.next_round()
    assert cloud.rows(alarm) == []
    assert lane(cloud).presence.drops == 1


async def test_after_a_fast_reconnect_the_old_connections_will_changes_nothing(cloud, broker):
    """The new connection takes over the old one that the broker still holds: the broker publishes the old will then."""
    first = Connection(broker.port, ROOM, 1)
    first.arrive()
    await link_is(cloud, True, 1)
    second = Connection(broker.port, ROOM, 2)
    second.arrive()
    await link_is(cloud, True, 2)
    async with Devices(broker.port).connected() as others:  # what a broker that lags would deliver late, and twice
        late = ROOM.status(online=False, connection=1)
        others.say(late, late)
        await others.heard_by_broker()
        marker = ROOM.hello("f" * 32)
        others.say(marker)
        await until(lambda: lane(cloud).presence.hello_at, "the marker behind them")
        await cloud.next_round()
    assert lane(cloud).online
    second.tear()
    await link_is(cloud, False, 2)
    first.tear()


async def test_a_will_of_an_older_boot_is_stale_whatever_its_connection_number(cloud, broker):
    old = Speaker("room-001", "nursing_room", boots=1)
    new = Speaker("room-001", "nursing_room", boots=2)
    connection = Connection(broker.port, new, 1)
    connection.arrive()
    await link_is(cloud, True, 1)
    async with Devices(broker.port).connected() as others:
        others.say(old.status(online=False, connection=99))
        await others.heard_by_broker()
        others.say(new.telemetry(1))
        await others.acknowledged(new, Lane.TELEMETRY, 1)
    assert lane(cloud).online
    connection.tear()


async def test_a_device_that_flaps_once_a_second_is_one_alarm_and_one_notice(cloud, broker):
    seq = 0
    for number in range(1, FLAPS + 1):
        connection = Connection(broker.port, ROOM, number)
        connection.arrive()
        if number % 10 == 1:
            seq += 1
            connection.say(ROOM.telemetry(seq, at=cloud.clock.now_ms()))
        await link_is(cloud, True, number)
        connection.tear()
        await link_is(cloud, False, number)
        await cloud.pass_time(1)
    assert lane(cloud).presence.drops == FLAPS > DROPS_UNSTABLE
    told = await until(lambda: cloud.rows(alarm), "the alarm")
    assert [row["key"] for row in told] == ["unstable_link"]
    assert len({row["reference"] for row in cloud.rows(outbox)}) == 1
    await cloud.pass_time(40)
    keys = [row["key"] for row in await until(lambda: len(cloud.rows(alarm)) == 2 and cloud.rows(alarm), "its silence")]
    assert sorted(keys) == ["silent", "unstable_link"], "a device that dies while it flaps is announced"


async def test_a_broker_that_dies_is_no_loss_of_any_devices_link(cloud, broker):
    first = Connection(broker.port, ROOM, 1)
    first.arrive()
    await link_is(cloud, True, 1)
    broker.kill()
    await until(lambda: not cloud.link.connected, "the loss to be seen")
    broker.start()
    await until(lambda: cloud.link.connected, "the broker to be back")
    await cloud.next_round()
    assert lane(cloud).presence.drops == 0
    first.tear()
    second = Connection(broker.port, ROOM, 2)
    second.arrive()
    await link_is(cloud, True, 2)
    second.tear()
