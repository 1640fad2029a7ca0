"""kill -9 of the ingester at random moments while presses and telemetry flow: nothing is lost, nothing is doubled.

The moments come from a seed, which a failure prints. Devices go back to their mark when nothing is heard.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter, defaultdict

import msgspec
import pytest
from pipeline_bench import Cloud, Devices, until

from cloud.tables import call, call_transition
from fleet.envelope import Lane
from tests.adapters import ingest_process
from tests.device_messages import Speaker, hex_id

pytestmark = pytest.mark.mosquitto

KILLS = 12
LIFE_S = (0.15, 1.0)
WINDOW = 12
PATIENCE_S = 0.4
FINISH_S_MAX = 25.0
BIKES = [Speaker(f"bike-{number:03}", "bike") for number in range(1, 7)]
ROOMS = [Speaker(f"room-{number:03}", "nursing_room") for number in range(1, 5)]
CYCLE = ("pressed", "pressed", "attended", "cleared_at_origin")


@pytest.fixture
def broker(production):
    return production


class Sender:
    """One lane of one device: a growing journal, a window, and the way back to the mark."""

    def __init__(self, people, speaker, lane):
        self.people, self.speaker, self.lane = people, speaker, lane
        self.journal = []
        self.sent = 0
        self.mark = 0
        self.progress_s = time.monotonic()

    def grow(self):
        seq, now_ms = len(self.journal) + 1, time.time_ns() // 1_000_000
        if self.lane is Lane.TELEMETRY:
            message = self.speaker.telemetry(seq, at=now_ms, odometer_metres=float(seq))
        else:
            cycle, step = divmod(seq - 1, len(CYCLE))
            of = CYCLE[step]
            message = self.speaker.emergency(seq, of, at=now_ms, event_id=hex_id(self.speaker.device_id, cycle, step))
        self.journal.append(message)

    def pump(self):
        now_s = time.monotonic()
        mark = self.people.mark(self.speaker, self.lane)
        if mark > self.mark:
            self.mark, self.progress_s = mark, now_s
        if now_s - self.progress_s > PATIENCE_S:
            self.sent, self.progress_s = self.mark, now_s
        self.sent = max(self.sent, self.mark)
        last = min(len(self.journal), self.mark + WINDOW)
        if self.sent < last:
            self.people.say(*self.journal[self.sent : last])
            self.sent = last

    @property
    def finished(self):
        return self.mark == len(self.journal)


def state_at_the_end(sender):
    """What the room shows after everything it said: its call's state, None without one."""
    last = CYCLE[(len(sender.journal) - 1) % len(CYCLE)]
    return {"attended": "attended", "cleared_at_origin": None}.get(last, "calling")


async def test_kill_9_at_random_moments_loses_and_doubles_nothing(tmp_path, broker):
    seed = int(os.environ.get("FLEET_TEST_SEED", "20261121"))
    print(f"FLEET_TEST_SEED={seed}")
    chance = random.Random(seed)
    base = Cloud(tmp_path, broker.port)
    base.enrol(*BIKES, *ROOMS)
    base.spool.close()
    acknowledged_at_kills = []

    async with Devices(broker.port).connected() as people:
        senders = [Sender(people, bike, Lane.TELEMETRY) for bike in BIKES]
        senders += [Sender(people, room, Lane.EMERGENCY) for room in ROOMS]
        process = await asyncio.to_thread(ingest_process.start, tmp_path, broker.port)
        try:
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(
                    _kill_often(chance, tmp_path, broker.port, process, acknowledged_at_kills, people)
                )
                while not killing.done():
                    for sender in senders:
                        if len(sender.journal) < sender.mark + 3 * WINDOW:
                            sender.grow()
                        sender.pump()
                    await asyncio.sleep(0.02)
            process = killing.result()
            deadline = time.monotonic() + FINISH_S_MAX
            while not all(sender.finished for sender in senders):
                for sender in senders:
                    sender.pump()
                assert time.monotonic() < deadline, [(s.speaker.device_id, s.mark, len(s.journal)) for s in senders]
                await asyncio.sleep(0.02)
        finally:
            process.kill()
            process.join()

    assert len(acknowledged_at_kills) == KILLS
    assert acknowledged_at_kills[-1] > acknowledged_at_kills[0], "work went on between the kills"
    assert min(len(sender.journal) for sender in senders) > KILLS
    _compare(tmp_path, broker.port, senders)
    base.sql.close()


async def _kill_often(chance, folder, port, process, acknowledged, people):
    for _ in range(KILLS):
        before = sum(len(told) for told in people.told.values())
        await asyncio.sleep(chance.uniform(*LIFE_S))
        if chance.random() < 0.7:  # most of the time in the middle of work, else perhaps while it starts
            await until(lambda: sum(len(told) for told in people.told.values()) > before)  # noqa: B023
            await asyncio.sleep(chance.uniform(0.0, 0.1))
        process.kill()
        await asyncio.to_thread(process.join)
        acknowledged.append(sum(len(told) for told in people.told.values()))
        process = await asyncio.to_thread(ingest_process.start, folder, port)
    return process


def _compare(folder, port, senders):
    """What the devices know they said, with what is on the disk after the last kill."""
    cloud = Cloud(folder, port)
    paged = Counter(row["event_id"] for row in cloud.rows(call_transition) if row["step"] == "press")
    open_calls = {row["device_id"]: row["state"] for row in cloud.rows(call) if row["state"] != "cleared"}
    spooled = defaultdict(list)
    for data in cloud.spooled():
        envelope = msgspec.json.decode(data)
        spooled[envelope["device_id"]].append((envelope["seq"], data))
    for sender in senders:
        device_id, count = sender.speaker.device_id, len(sender.journal)
        row = cloud.twin(sender.speaker)
        said = [(seq, data) for seq, (_, data) in enumerate(sender.journal, 1)]
        if sender.lane is Lane.TELEMETRY:
            assert row["telemetry_seq"] == count
            assert json.loads(row["state"])["reading"]["odometer_metres"] == float(count)
            assert spooled[device_id] == said, "every message once and in order"
        else:
            assert row["emergency_seq"] == count
            stored = cloud.events(device_id=device_id)
            wanted = [(json.loads(data)["payload"]["event_id"], seq) for seq, data in said]
            # A press behind a hole is heard before its turn, so rows may stand in another order.
            assert sorted(stored, key=lambda row: row[1]) == wanted, "every event once"
            presses = [event for (event, _), (_, data) in zip(wanted, said, strict=True) if b'"pressed"' in data]
            assert [paged[event] for event in presses] == [1] * len(presses), "every press pages once"
            assert open_calls.get(device_id) == state_at_the_end(sender)
    assert cloud.quarantined() == []
    cloud.spool.close()
    cloud.sql.close()
