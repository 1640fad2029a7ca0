"""What makes a simulated day cheap must not make it blind: rhythms, a listener in place of a log, checksums."""

import asyncio
import random

from cli.simulate.broker import Broker
from cli.simulate.ingester_link import IngesterLink
from cli.simulate.loop import VirtualLoop
from cli.simulate.series import value_of
from cli.simulate.trace import Trace
from cli.simulate.weather import Weather
from cloud.timeseries.points import SEQ_FIELD
from firmware_sim.truth import TruthMemory
from firmware_sim.world import World
from fleet import topics
from fleet.topics import SHARD_COUNT, UpChannel

STARTED_MS = 1_799_942_400_000
LINGER_S = 20.0


def channels(batch):
    return [message.topic.rpartition("/")[2] for message in batch]


def test_telemetry_waits_for_company_and_everything_else_takes_it_along():
    loop = VirtualLoop()

    async def work():
        trace = Trace(loop.time)
        broker = Broker(loop, Weather(random.Random(1)), trace)
        link = IngesterLink(broker, trace, linger_s=LINGER_S, batch_messages_max=100)
        listening = loop.create_task(link.run(lambda: None, range(SHARD_COUNT)))
        await asyncio.sleep(1.0)
        broker.route(topics.up("bike-001", UpChannel.TELEMETRY), b"1")
        await asyncio.sleep(LINGER_S - 1.0)
        assert link.take(100) == ()
        await asyncio.sleep(1.5)
        assert channels(link.take(100)) == ["telemetry"]
        broker.route(topics.up("bike-001", UpChannel.TELEMETRY), b"2")
        await asyncio.sleep(1.0)
        broker.route(topics.up("bike-001", UpChannel.REPLY), b"3")
        await asyncio.sleep(0.1)
        assert channels(link.take(100)) == ["telemetry", "reply"]
        await asyncio.sleep(2 * LINGER_S)  # the first one's time has passed: nothing is left of it
        assert link.take(100) == ()
        listening.cancel()

    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


class Ear:
    def __init__(self):
        self.lines = []

    def hear(self, lines):
        self.lines += lines


def test_a_listener_hears_what_a_log_would_say_and_no_log_is_written():
    ear, log, unused = Ear(), TruthMemory(), TruthMemory()
    counts = {"nursing_room": 2, "bike": 1}
    for arguments in ({"truth": log}, {"truth": unused, "listener": ear}):
        World(tuple(sorted(counts)), counts, 7, STARTED_MS, "demo", **arguments).run_virtual(STARTED_MS + 600_000)
    assert ear.lines
    assert ear.lines == log.lines()
    assert not unused.content


def test_equal_values_have_equal_checksums_in_a_message_and_in_its_point():
    reading = {
        "at": 5,
        "voltage": 36,
        "on": True,
        "mode": "idle",
        "nothing": None,
        "slots": ["a"],
        "gps": {"x": 1},
    }
    point = {"voltage": 36.0, "on": True, "mode": "idle", "nothing": None, "slots_count": 1, SEQ_FIELD: 9}
    assert value_of(reading) == value_of(point)
    plain = {"at": 5, "celsius": 4, "open": False}
    assert value_of(plain) == value_of({"open": False, "celsius": 4.0, SEQ_FIELD: 1})
    for changed in ({"celsius": 4.01}, {"open": None}, {"celsius": None}, {"more": 1}):
        assert value_of(plain) != value_of(plain | changed)
