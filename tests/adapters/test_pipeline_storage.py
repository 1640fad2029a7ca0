"""A device that lost its storage, or could not have it for a while: nothing is acted on or stored twice."""

import pytest
from pipeline_bench import Cloud, Devices, until

from cloud.tables import call, outbox
from fleet.envelope import Lane
from tests.device_messages import Speaker, hex_id

pytestmark = pytest.mark.mosquitto

ROOM = Speaker("room-001", "nursing_room")


@pytest.fixture
async def people(production):
    async with Devices(production.port).connected() as connected:
        yield connected


@pytest.fixture
def cloud(tmp_path, production):
    made = Cloud(tmp_path, production.port)
    made.enrol(ROOM)
    return made


async def test_what_comes_again_after_a_device_lost_its_storage_is_not_acted_on_twice(cloud, people):
    async with cloud.running():
        people.say(ROOM.emergency(1), ROOM.emergency(2, "attended"), ROOM.emergency(3, "cleared_at_origin"))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 3)
        assert [row["state"] for row in cloud.rows(call)] == ["cleared"]
        pages = [row["id"] for row in cloud.rows(outbox) if row["urgent"]]
        await people.welcome(ROOM, "9" * 32, storage_id="f" * 32)
        reborn = Speaker("room-001", "nursing_room", generation=2)
        people.told.clear()
        people.say(reborn.emergency(1, event_id=hex_id("room-001", "pressed", 1)))
        await people.acknowledged(reborn, Lane.EMERGENCY, 1)
        await cloud.pass_time(130)
        assert [row["state"] for row in cloud.rows(call)] == ["cleared"], "no call out of an old press"
        assert [row["id"] for row in cloud.rows(outbox) if row["urgent"]] == pages
        assert len(cloud.events()) == 3
        people.say(reborn.emergency(2, event_id=hex_id("new")))
        await people.acknowledged(reborn, Lane.EMERGENCY, 2)
        assert sorted(row["state"] for row in cloud.rows(call)) == ["calling", "cleared"]


async def test_a_start_on_a_full_disk_stores_no_reading_and_no_press_twice(cloud, people):
    """The box speaks from memory for a while; then its own storage sends again what nobody had acknowledged to it."""
    async with cloud.running():
        assert (await people.welcome(ROOM, "7" * 32)).generation == 1
        people.say(ROOM.telemetry(1), ROOM.telemetry(2), ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.TELEMETRY, 2)
        stood_in = Speaker("room-001", "nursing_room", generation=2)
        welcome = await people.welcome(ROOM, "8" * 32, storage_id="f" * 32, generation=0, temporary=True)
        assert (welcome.generation, welcome.marks[Lane.TELEMETRY]) == (2, 0)
        people.say(stood_in.emergency(1, event_id=hex_id("new")), stood_in.status(online=True))
        await people.acknowledged(stood_in, Lane.EMERGENCY, 1)
        again = await people.welcome(ROOM, "9" * 32)
        assert again.generation == 1
        assert again.marks == {Lane.EMERGENCY: 1, Lane.EVENT: 0, Lane.TELEMETRY: 2}
        people.told.clear()
        people.say(ROOM.telemetry(1), ROOM.telemetry(2), ROOM.telemetry(3), ROOM.emergency(1))
        people.say(ROOM.emergency(2, event_id=hex_id("new")), ROOM.status(online=False))
        await people.acknowledged(ROOM, Lane.TELEMETRY, 3)
        await people.acknowledged(ROOM, Lane.EMERGENCY, 2)
        assert cloud.spooled() == [ROOM.telemetry(number)[1] for number in (1, 2, 3)]
        assert len(cloud.events()) == 2
        await until(lambda: not cloud.twin(ROOM)["online"], "its own word on the link to count again")
        assert (await people.welcome(ROOM, "6" * 32, storage_id="e" * 32)).generation == 3
