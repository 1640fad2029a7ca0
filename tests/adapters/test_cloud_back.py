"""Presses made while no ingester runs: the broker keeps nothing for it, and the devices are in their longest pauses.

Real: Mosquitto, the pipeline on SQLite, agents over MQTT.
"""

import asyncio
import random
import time
from dataclasses import replace

import pytest
from pipeline_bench import KEY_ID, Cloud, until

from devices.nursing_room import frames
from devices.nursing_room.messages import Pressed
from edge.host import EdgeHost
from edge.identity import Identity
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.transports import memory_pair
from tests.device_messages import NOW_MS, Speaker, hex_id
from tests.edge_support import QUICK, each_lane

pytestmark = pytest.mark.mosquitto

ROOMS = [Speaker(f"room-{number:03}", "nursing_room") for number in range(1, 6)]
LONG_S = 60.0
"""The pauses that devices have reached in a long outage, made so long that they cannot end within the test."""
TIMING = replace(
    QUICK, resend_first_s=each_lane(LONG_S), resend_most_s=each_lane(LONG_S), go_back_pause_s=0.5,
    hello_retry_most_s=LONG_S,
)  # fmt: skip
PROMISE_S = 5.0


def welcomed(agent):
    """On the connection that follows the first grant."""
    return agent.uplink is not None and agent.uplink.welcomed


async def listen(line):
    while await line.read():
        pass


async def test_presses_made_while_the_cloud_was_away_are_heard_as_soon_as_it_is_back(tmp_path, broker):
    cloud = Cloud(tmp_path, broker.port)
    cloud.enrol(*ROOMS, granted=False)
    host = EdgeHost(cloud.clock, random.Random(1), tmp_path / "journal.sqlite", timing=TIMING)
    lines = {}
    for room in ROOMS:
        edge_end, lines[room.device_id] = memory_pair()
        link = MqttLink(room.device_id, BrokerAddress("127.0.0.1", broker.port), None)
        host.add(room.device_id, "nursing_room", edge_end, link, Identity(None, {KEY_ID: cloud.key.public_key()}))
    async with asyncio.TaskGroup() as group:
        listening = [group.create_task(listen(line)) for line in lines.values()]
        running = group.create_task(host.run())
        async with cloud.running():
            await until(lambda: len(host.agents) == len(ROOMS) and all(map(welcomed, host.agents.values())))
            connects = {name: agent.counts["connects"] for name, agent in host.agents.items()}
        presses = {}
        for number, (name, line) in enumerate(lines.items()):
            presses[name] = press = hex_id(name, number)
            line.write(frames.encode_event(NOW_MS + number, Pressed(event_id=press, press_id=press)))
        await until(lambda: all(agent.uplink.counts["sent"] for agent in host.agents.values()), "presses to nobody")
        again = Cloud(tmp_path, broker.port, clock=cloud.clock)
        async with again.running():
            back_s = time.monotonic()
            await until(lambda: len(again.events()) == len(presses), "every press")
            assert time.monotonic() - back_s < PROMISE_S
            await until(lambda: not any(agent.uplink.emergency_waiting.is_set() for agent in host.agents.values()))
        assert sorted(event_id for event_id, _ in again.events()) == sorted(presses.values())
        assert {name: agent.counts["connects"] for name, agent in host.agents.items()} == connects, "no link broke"
        host.stop()
        await running
        for task in listening:
            task.cancel()
