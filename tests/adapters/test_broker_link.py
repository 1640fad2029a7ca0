"""Two connections to a real Mosquitto: emergencies come first and are acknowledged where they came from."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest
from mosquitto_fixture import tls_of
from pipeline_bench import Devices, until

from cloud.adapters.mqtt.link import BrokerLink
from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.model import Downstream
from fleet.envelope import Acknowledgement, Lane, encode
from fleet.topics import SHARD_COUNT, DownChannel, down, shard_of
from tests.device_messages import Speaker

pytestmark = pytest.mark.mosquitto

BIKE = Speaker("bike-001", "bike")
ROOM = Speaker("room-001", "nursing_room")


@pytest.fixture
def broker(production):
    return production


@asynccontextmanager
async def linked(broker, shards=range(SHARD_COUNT)):
    options = ReceiverOptions(client_id="link", port=broker.port, tls=tls_of(broker.port), reconnect_base_s=0.05)
    link = BrokerLink(options, random.Random(1), batch_messages_max=100, linger_s=0.01)
    woken = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.run(woken.set, shards))
        await until(lambda: link.connected)
        try:
            yield link, woken
        finally:
            task.cancel()


@pytest.fixture
async def people(broker):
    async with Devices(broker.port).connected() as connected:
        yield connected


def seqs(link, count):
    """Everything that was received so far, as (channel, number), taken in small batches."""
    found = []
    while batch := link.take(count):
        found.append([(item.topic.rpartition("/")[2], item.payload) for item in batch])
        link.acknowledge(batch)
    return found


async def test_an_emergency_overtakes_a_flood_that_came_before_it(broker, people):
    async with linked(broker) as (link, woken):
        people.say(*(BIKE.telemetry(seq) for seq in range(1, 501)))
        await until(lambda: link.routine.statistics.messages_received == 500)
        people.say(ROOM.emergency(1))
        await until(lambda: link._waiting[link.emergency] and link._waiting[link.routine])
        assert woken.is_set()
        first = link.take(1000)
        assert [item.topic for item in first] == [ROOM.topic(Lane.EMERGENCY)], "a batch of its own"
        link.acknowledge(first)
        assert link.emergency.statistics.messages_acknowledged == 1
        assert link.routine.statistics.messages_acknowledged == 0


async def test_everything_is_handed_over_once_in_order_and_acknowledged_after(broker, people):
    async with linked(broker) as (link, _woken):
        said = [BIKE.telemetry(seq) for seq in range(1, 301)]
        people.say(*said)
        received = []

        def collected():
            for batch in seqs(link, 7):
                assert len(batch) <= 7
                received.extend(data for _, data in batch)
            return len(received) >= 300

        await until(collected)
        assert received == [data for _, data in said]
        assert link.routine.statistics.messages_acknowledged == 300
        assert link.take(10) == ()


async def test_only_the_leased_shards_are_heard(broker, people):
    async with linked(broker, [shard_of("bike-001")]) as (link, _woken):
        assert shard_of("room-001") != shard_of("bike-001")
        people.say(ROOM.emergency(1), ROOM.telemetry(1), BIKE.telemetry(1))
        await people.heard_by_broker()
        (batch,) = await until(lambda: seqs(link, 10))
        assert [channel for channel, _ in batch] == ["telemetry"]
        assert link.emergency.statistics.messages_received == 0


async def test_what_is_published_reaches_the_device(broker, people):
    async with linked(broker) as (link, _woken):
        message = Acknowledgement(generation=1, marks={Lane.EVENT: 3})
        link.publish([Downstream(down("bike-001", DownChannel.ACK), encode(message))])
        await until(lambda: people.told["bike-001"] == [message])


async def test_the_link_says_when_the_broker_is_gone_and_back(broker, people):
    async with linked(broker) as (link, woken):
        broker.kill()
        await until(lambda: not link.connected)
        woken.clear()
        broker.start()
        await until(lambda: link.connected and people.client.connected)
        await until(woken.is_set)
        people.say(ROOM.emergency(1))
        await until(lambda: seqs(link, 10))
