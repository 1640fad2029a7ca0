"""A storage that is set back, against the real pipeline and a real Mosquitto: nothing is lost or doubled."""

import asyncio
import random
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
from pipeline_bench import KEY_ID, Cloud, until

from cloud.tables import call, device, gap
from devices.nursing_room import frames
from devices.nursing_room.messages import Attended, ClearedAtOrigin, Pressed, RoomReading
from edge.host import EdgeHost
from edge.identity import Identity
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.transports import memory_pair
from fleet.envelope import Lane, decode
from tests.device_messages import NOW_MS, Speaker, hex_id
from tests.edge_support import QUICK

pytestmark = pytest.mark.mosquitto

ROOM = Speaker("room-001", "nursing_room")
TIMING = replace(QUICK, first_welcome_s=10.0)  # or else presses are heard out of turn, under call ids of their own


class Hardware:
    """A room's controller that says what a test wants."""

    def __init__(self, line):
        self.line = line
        self.said = 0

    def press(self, number):
        self._event(Pressed(event_id=hex_id("press", number), press_id=hex_id("press", number)))

    def attend(self, number):
        self._event(Attended(event_id=hex_id("attend", number), press_id=hex_id("press", number)))

    def clear(self, number):
        self._event(ClearedAtOrigin(event_id=hex_id("clear", number), press_id=hex_id("press", number)))

    def read(self, at):
        self.line.write(frames.encode_reading(RoomReading(**ROOM.reading(at))))

    def _event(self, event):
        self.line.write(frames.encode_event(NOW_MS + self.said, event))
        self.said += 1

    async def listen(self):
        while await self.line.read():
            pass


class Edge:
    """One agent on the storage in `folder`."""

    def __init__(self, folder, cloud, port):
        self.host = EdgeHost(cloud.clock, random.Random(1), folder / "journal.sqlite", timing=TIMING)
        edge_end, hardware_end = memory_pair()
        self.hardware = Hardware(hardware_end)
        link = MqttLink("room-001", BrokerAddress("127.0.0.1", port), None)
        identity = Identity(None, {KEY_ID: cloud.key.public_key()})
        self.host.add("room-001", "nursing_room", edge_end, link, identity)

    @property
    def agent(self):
        return self.host.agents["room-001"]

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self.hardware.listen())
            running = group.create_task(self.host.run())
            await until(lambda: "room-001" in self.host.agents)
            try:
                yield self
            finally:
                self.host.stop()
                await running
                listening.cancel()

    async def journalled(self, count):
        await until(lambda: self.host.journal.journalled >= count, f"{count} journalled")


def copy_of(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        shutil.copy(file, target / file.name)
    return target


@pytest.fixture
def cloud(tmp_path, broker):
    made = Cloud(tmp_path, broker.port)
    made.enrol(ROOM, granted=False)
    return made


def calls(cloud):
    return {row["id"]: row["state"] for row in cloud.rows(call)}


@pytest.mark.parametrize("restarts_offline", [0, 2])
async def test_what_an_old_copy_journals_under_used_numbers_arrives_once_and_is_acted_on(
    tmp_path, broker, cloud, restarts_offline
):
    first = tmp_path / "first"
    async with cloud.running():
        async with Edge(first, cloud, broker.port).running() as edge:
            edge.hardware.press(1)
            await until(lambda: calls(cloud) == {hex_id("press", 1): "calling"})
        old = copy_of(first, tmp_path / "old")
        async with Edge(first, cloud, broker.port).running() as edge:  # goes on beyond the copy
            edge.hardware.clear(1)
            for number in range(2, 7):
                edge.hardware.press(number)
                edge.hardware.clear(number)
            edge.hardware.press(7)
            await until(lambda: len(calls(cloud)) == 7 and list(calls(cloud).values()).count("calling") == 1)
            await until(lambda: not edge.agent.uplink.emergency_waiting.is_set())
    # The copy is put back, and the device works on without the cloud, under numbers that the cloud has seen.
    async with Edge(old, cloud, broker.port).running() as edge:
        edge.hardware.clear(7)
        for number in range(8, 12):
            edge.hardware.press(number)
            edge.hardware.clear(number)
        edge.hardware.press(12)
        await edge.journalled(10)
    for _ in range(restarts_offline):
        async with Edge(old, cloud, broker.port).running() as edge:
            await until(lambda: edge.agent.uplink is not None)
    again = Cloud(tmp_path, broker.port, clock=cloud.clock)
    async with again.running(), Edge(old, again, broker.port).running() as edge:
        await until(lambda: len(again.events()) == 23 and not edge.agent.uplink.emergency_waiting.is_set())
        assert edge.agent.uplink.counts["storages_begun"] == 1
        states = calls(again)
        assert len(states) == 12, "every press was heard"
        assert [key for key, state in states.items() if state != "cleared"] == [hex_id("press", 12)]
        assert again.rows(device)[0]["generation"] == 2
        assert again.rows(gap) == []
        assert len({event_id for event_id, _ in again.events()}) == 23


async def test_telemetry_of_an_old_copy_arrives_once(tmp_path, broker, cloud):
    first = tmp_path / "first"

    def read(edge, *numbers):
        for number in numbers:
            edge.hardware.read(NOW_MS - 100_000 + number)

    def arrived(where):
        return [reading["at"] - NOW_MS + 100_000 for raw in where.spooled() for reading in readings_of(raw)]

    async with cloud.running():
        async with Edge(first, cloud, broker.port).running() as edge:
            read(edge, 1, 2, 3)
            await until(lambda: arrived(cloud) == [1, 2, 3])
            await until(lambda: edge.agent.uplink.counts["acknowledged"] >= 1)
        old = copy_of(first, tmp_path / "old")
        async with Edge(first, cloud, broker.port).running() as edge:
            for number in range(4, 10):
                read(edge, number)
                await until(lambda number=number: arrived(cloud)[-1] == number)
    for number in (20, 21, 22):  # one message each: no message is formed in a run that ends offline, but at its 64th
        async with Edge(old, cloud, broker.port).running() as edge:
            read(edge, *range(number * 64, number * 64 + 64))
            await edge.journalled(1)
    again = Cloud(tmp_path, broker.port, clock=cloud.clock)
    async with again.running(), Edge(old, again, broker.port).running():
        expected = [*range(1, 10), *range(20 * 64, 23 * 64)]
        await until(lambda: len(arrived(again)) >= len(expected))
        assert arrived(again) == expected


def readings_of(raw):
    envelope = decode(raw)
    assert envelope.lane is Lane.TELEMETRY
    return msgspec.json.decode(envelope.payload)["readings"]
