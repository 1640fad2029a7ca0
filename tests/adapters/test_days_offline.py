"""72 hours offline at production intervals, then the real pipeline: everything once and in order, and live soon."""

import asyncio
import json
import random
import time
from collections import defaultdict
from contextlib import asynccontextmanager

import msgspec
import pytest
from pipeline_bench import KEY_ID, Cloud, until

from cloud.tables import gap
from edge.host import EdgeHost
from edge.identity import Identity
from edge.link import LinkError
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.records import Bounds
from edge.telemetry_keeper import TelemetryKeeper
from edge.timing import Timing
from edge.transports import memory_pair
from firmware_sim.world import World
from fleet.envelope import Lane, decode
from tests.device_messages import NOW_MS, Speaker

pytestmark = pytest.mark.mosquitto

HOURS = 72
STEP_MS = 15 * 60_000
STALE_S_MAX = 60.0
"""Real seconds after the reconnection until the newest reading is what people see."""
KINDS = {"room-001": "nursing_room", "meal-001": "meal_machine", "bike-001": "bike"}


class Gate:
    """A link that is down until it is opened."""

    def __init__(self, link):
        self._link = link
        self.open = False

    @asynccontextmanager
    async def connect(self, will, keep_alive_s):
        if not self.open:
            raise LinkError("offline")
        async with self._link.connect(will, keep_alive_s) as session:
            yield session


class BoxClock:
    """A box in the same business time: its monotonic clock lives through the days, and then through real seconds."""

    speed = 1.0

    def __init__(self, clock):
        self.now_ms = clock.now_ms
        self._began_ms = clock.now_ms()
        self.online_since_s = None

    def monotonic_s(self):
        online_s = 0.0 if self.online_since_s is None else time.monotonic() - self.online_since_s
        return (self.now_ms() - self._began_ms) / 1000 + online_s


class Line:
    """The edge's end is in memory; the hardware's end is a simulated device."""

    def __init__(self, line, hardware_end):
        self._line = line
        self._hardware_end = hardware_end
        line.attach(hardware_end.write)

    async def run(self):
        while True:
            self._line.from_driver(await self._hardware_end.read())


async def test_three_days_offline_arrive_once_in_order_and_the_present_is_seen_soon(tmp_path, broker, monkeypatch):
    monkeypatch.setattr("edge.journal.COMMIT_WITHIN_S", dict.fromkeys(Lane, 0.0))  # time passes faster than it writes
    said = remembered(monkeypatch)
    cloud = Cloud(tmp_path, broker.port)
    cloud.enrol(*(Speaker(device_id, kind) for device_id, kind in KINDS.items()), granted=False)
    clock = cloud.clock
    clock._now_ms = NOW_MS - HOURS * 3_600_000
    world = World(tuple(KINDS.values()), dict.fromkeys(KINDS.values(), 1), 7, clock.now_ms())
    box_clock = BoxClock(clock)
    host = EdgeHost(box_clock, random.Random(1), tmp_path / "journal.sqlite", timing=Timing(reconnect_jitter_s=0.05))
    gates = {}
    async with asyncio.TaskGroup() as group:
        wires = []
        for device_id, kind in KINDS.items():
            edge_end, hardware_end = memory_pair()
            wires.append(group.create_task(Line(world.line(device_id), hardware_end).run()))
            gates[device_id] = Gate(MqttLink(device_id, BrokerAddress("127.0.0.1", broker.port), None))
            host.add(device_id, kind, edge_end, gates[device_id], Identity(None, {KEY_ID: cloud.key.public_key()}))
        running = group.create_task(host.run())
        await until(lambda: len(host.agents) == 3 and all(agent.uplink for agent in host.agents.values()))
        while clock.now_ms() < NOW_MS:
            await advance(world, clock, STEP_MS)
            if clock.now_ms() == NOW_MS - 3_600_000:
                world.act("room-001", "press")
        size = sum(path.stat().st_size for path in tmp_path.glob("journal.sqlite*"))
        assert size < 2 * Bounds().bytes_max, "on the disk"
        pending = await host.journal.read(
            lambda store: store._connection.execute("SELECT device_id, sum(byte_count) FROM lane GROUP BY 1").fetchall()
        )
        assert max(count for _, count in pending) < 0.8 * Bounds().bytes_max, f"room to spare: {pending}"
        async with cloud.running():
            for gate in gates.values():
                gate.open = True
            opened_s = box_clock.online_since_s = time.monotonic()
            await until(lambda: cloud.events(device_id="room-001", lane="emergency"), "the press")
            pressed_s = time.monotonic() - opened_s
            stale_s = {}
            while len(stale_s) < len(KINDS):
                for device_id in KINDS:
                    newest = said[device_id][-1]["at"]
                    if device_id not in stale_s and cloud.twin(SPEAKERS[device_id]).get("last_reading_at") == newest:
                        stale_s[device_id] = round(time.monotonic() - opened_s, 1)
                await asyncio.sleep(0.1)
                assert time.monotonic() - opened_s < STALE_S_MAX, f"still stale: {stale_s}"
            print(f"72 h delivered: press {pressed_s:.2f} s, present after {stale_s}, journals {size} bytes, {pending}")
            assert pressed_s < 5
            assert cloud.rows(gap) == []
            arrived = readings_by_device(cloud)
            for device_id in KINDS:
                assert arrived[device_id] == said[device_id], device_id
            intact = [line.device_id for line in world.truth.lines() if (line.what, line.line) == ("reading", "intact")]
            assert {name: intact.count(name) for name in set(intact)}.items() <= {
                name: len(readings) for name, readings in arrived.items()
            }.items()
            assert len(arrived["room-001"]) >= HOURS * 240
        host.stop()
        await running
        for wire in wires:
            wire.cancel()


SPEAKERS = {device_id: Speaker(device_id, kind) for device_id, kind in KINDS.items()}


async def advance(world, clock, step_ms):
    """Let hardware and edge live through a step; the edge journals before the next one."""
    clock.advance(seconds=step_ms / 1000)
    world.run_virtual(clock.now_ms())
    for _ in range(40):
        await asyncio.sleep(0)
    await asyncio.sleep(0.004)


def remembered(monkeypatch):
    """Every reading the drivers pass on, by device, in order."""
    said, add = defaultdict(list), TelemetryKeeper.add

    def note(keeper, readings, clock=0):
        said[keeper._device_id] += [json.loads(reading.model_dump_json()) for reading in readings]
        add(keeper, readings, clock)

    monkeypatch.setattr(TelemetryKeeper, "add", note)
    return said


def readings_by_device(cloud):
    found = defaultdict(list)
    for raw in cloud.spooled():
        message = decode(raw)
        found[message.device_id] += msgspec.json.decode(message.payload)["readings"]
    return found
