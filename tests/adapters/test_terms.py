"""A pipeline that ends between two rounds and begins again with other shards, on the same link and the same spool."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from fleet.envelope import Lane
from fleet.topics import SHARD_COUNT, shard_of
from tests.adapters.pipeline_bench import NEVER_S, Cloud, Devices, until
from tests.device_messages import Speaker

pytestmark = pytest.mark.mosquitto

BIKE = Speaker("bike-001", "bike")
ROOM = Speaker("room-001", "nursing_room")
FLAT = BIKE.event(1, "battery_low", battery_percent=3.0)
ALL = range(SHARD_COUNT)


@pytest.fixture
async def people(production):
    async with Devices(production.port).connected() as connected:
        yield connected


@pytest.fixture
def cloud(tmp_path, production):
    made = Cloud(tmp_path, production.port, twin_flush_s=NEVER_S)
    made.enrol(BIKE, ROOM)
    yield made
    made.spool.close()
    made.sql.close()


@asynccontextmanager
async def term(cloud, shards):
    """Working on these shards; afterwards left as for a change of shares."""
    running = asyncio.ensure_future(cloud.pipeline.run(shards))
    await until(lambda: cloud.link.connected or running.done(), "the ingester to be connected")
    yield
    cloud.pipeline.leave()
    async with asyncio.timeout(5):
        await running
    assert not cloud.link.connected
    assert not cloud.pipeline.ready.is_set()


def taken(cloud):
    return {device_id: lane.telemetry_seq for device_id, lane in cloud.pipeline.lanes.items()}


async def test_what_was_spooled_before_is_there_again_and_foreign_devices_are_let_alone(cloud, people):
    assert shard_of(BIKE.device_id) != shard_of(ROOM.device_id)
    async with term(cloud, ALL):
        people.say(BIKE.telemetry(1))
        await until(lambda: taken(cloud).get("bike-001") == 1, "the first telemetry")
        await cloud.next_round()  # which may commit that one
        people.say(BIKE.telemetry(2), BIKE.telemetry(3))
        await until(lambda: taken(cloud).get("bike-001") == 3, "the rest of it")
    assert cloud.twin(BIKE).get("telemetry_seq", 0) < 3, "not committed, in the spool alone"

    async with term(cloud, ALL):
        assert taken(cloud)["bike-001"] == 3, "replayed"

    async with term(cloud, {shard_of(ROOM.device_id)}):
        assert set(cloud.pipeline.lanes) == {"room-001"}
        people.say(BIKE.telemetry(4), FLAT, ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        assert people.mark(BIKE, Lane.EVENT) == 0
    assert len(cloud.events()) == 1

    async with term(cloud, ALL):
        committed = taken(cloud)["bike-001"]
        assert committed < 3, "what another could have owned meanwhile is as it was committed"
        people.say(*(BIKE.telemetry(seq) for seq in range(committed + 1, 5)), FLAT, ROOM.emergency(1))
        await people.acknowledged(BIKE, Lane.EVENT, 1)
        await until(lambda: taken(cloud)["bike-001"] == 4, "what was never acknowledged")
        await until(lambda: cloud.twin(BIKE).get("telemetry_seq") == 4, "its commit")
    assert len(cloud.events()) == 2
    assert cloud.quarantined() == []
    assert cloud.twin(ROOM)["emergency_seq"] == 1
