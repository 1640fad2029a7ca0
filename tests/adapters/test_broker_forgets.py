"""The broker's database is deleted again and again while devices report: nothing is lost, nothing comes twice."""

import asyncio
import random

import pytest
from mosquitto_fixture import Mosquitto
from pipeline_bench import KEY_ID, Cloud, until

from cloud.tables import gap
from devices.nursing_room import frames
from devices.nursing_room.messages import Pressed
from edge.host import EdgeHost
from edge.identity import Identity
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.transports import memory_pair
from tests.device_messages import NOW_MS, Speaker, hex_id
from tests.edge_support import QUICK

pytestmark = pytest.mark.mosquitto

DELETIONS = 100
ROOMS = [Speaker(f"room-{number:03}", "nursing_room") for number in range(1, 4)]


@pytest.fixture
def forgetful(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    server = Mosquitto(folder, f"persistence true\nautosave_interval 1\npersistence_location {folder}/\n")
    yield server, folder
    server.close()


async def test_a_broker_that_forgets_everything_a_hundred_times_loses_and_doubles_nothing(tmp_path, forgetful):
    broker, folder = forgetful
    cloud = Cloud(tmp_path, broker.port)
    cloud.enrol(*ROOMS, granted=False)
    host = EdgeHost(cloud.clock, random.Random(1), tmp_path / "journal.sqlite", timing=QUICK)
    ends = {}
    for room in ROOMS:
        edge_end, ends[room.device_id] = memory_pair()
        link = MqttLink(room.device_id, BrokerAddress("127.0.0.1", broker.port), None)
        host.add(room.device_id, "nursing_room", edge_end, link, Identity(None, {KEY_ID: cloud.key.public_key()}))

    async def listen(line):
        while await line.read():
            pass

    pressed = set()
    async with cloud.running(), asyncio.TaskGroup() as group:
        listening = [group.create_task(listen(line)) for line in ends.values()]
        running = group.create_task(host.run())
        await until(lambda: len(host.agents) == len(ROOMS))
        for number in range(DELETIONS):
            for device_id, line in ends.items():
                press = hex_id(device_id, number)
                pressed.add(press)
                line.write(frames.encode_event(NOW_MS + number, Pressed(event_id=press, press_id=press)))
            broker.kill()
            for file in folder.glob("*.db*"):
                file.unlink()
            broker.start()
            if number % 10 == 0:  # now and then let everybody come back
                await until(lambda: all(agent.connected for agent in host.agents.values()))
            await asyncio.sleep(0.03)
        await until(lambda: len(cloud.events()) >= len(pressed), "every press")
        found = [event_id for event_id, _ in cloud.events()]
        assert sorted(found) == sorted(pressed)
        assert cloud.rows(gap) == []
        host.stop()
        await running
        for task in listening:
            task.cancel()
