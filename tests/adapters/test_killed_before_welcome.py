"""An agent killed while emergencies leave before its first welcome keeps its storage; an old copy does not.

Real: Mosquitto, the pipeline on SQLite, the agent as a process of its own and its kill -9.
"""

import asyncio
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pipeline_bench import KEY_ID, Cloud

from cloud.tables import call, device
from tests.device_messages import NOW_MS, Speaker, hex_id

pytestmark = pytest.mark.mosquitto

ROOM = Speaker("room-001", "nursing_room")
AGENT = """
import asyncio, random, sys, time
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from devices.nursing_room import frames
from devices.nursing_room.messages import Pressed
from edge.host import EdgeHost
from edge.identity import Identity
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.timing import Timing
from edge.transports import memory_pair

class Clock:
    speed = 1.0
    monotonic_s = staticmethod(time.monotonic)
    def now_ms(self):
        return {now_ms}

async def main(folder, port, event_ids):
    timing = Timing(first_welcome_s=0.0, hello_retry_s=0.2, reconnect_jitter_s=0.02)
    host = EdgeHost(Clock(), random.Random(1), Path(folder) / "journal.sqlite", timing=timing)
    edge_end, hardware_end = memory_pair()
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key()
    link = MqttLink("room-001", BrokerAddress("127.0.0.1", int(port)), None)
    host.add("room-001", "nursing_room", edge_end, link, Identity(None, {{{key_id!r}: key}}))
    for event_id in event_ids:
        hardware_end.write(frames.encode_event({now_ms}, Pressed(event_id=event_id, press_id=event_id)))
    async with asyncio.TaskGroup() as group:
        group.create_task(host.run())
        told = None
        while True:
            agent = host.agents.get("room-001")
            up = agent and agent.uplink
            now = up and (
                up.generation, up.welcomed, up.emergency_waiting.is_set(), up.counts["storages_begun"],
                host.journal.journalled,
            )
            if now != told:
                told = now
                print(*(now or ()), flush=True)
            await asyncio.sleep(0.01)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
"""


async def until(condition, what):
    """Processes start slowly on a busy machine."""
    try:
        async with asyncio.timeout(45):
            while not condition():  # noqa: ASYNC110  # conditions over foreign objects have no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


class Agent:
    """The process: what it says of itself, and its end."""

    def __init__(self, process):
        self.process = process
        self.said = []

    @property
    def now(self):
        """Generation, welcomed, emergency waiting, storages begun, journalled."""
        return [int(word) if word.isdigit() else word == "True" for word in self.said[-1]] if self.said else None

    async def listen(self):
        async for line in self.process.stdout:
            if words := line.decode().split():
                self.said.append(words)


@asynccontextmanager
async def agent(folder, port, *presses):
    folder.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT.format(now_ms=NOW_MS, key_id=KEY_ID), str(folder), str(port),
        *(hex_id("press", number) for number in presses), stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip
    running = Agent(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(running.listen())
        try:
            yield running
        finally:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.fixture
def cloud(tmp_path, broker):
    made = Cloud(tmp_path, broker.port)
    made.enrol(ROOM, granted=False)
    return made


def mute(cloud, monkeypatch):
    """The cloud acts on what it hears and answers no hello."""
    monkeypatch.setattr(cloud.pipeline._acknowledger, "welcome", lambda *_: None)


def calls(cloud):
    return {row["id"] for row in cloud.rows(call)}


def heard(cloud):
    return {event_id for event_id, _ in cloud.events()}


async def test_a_kill_before_the_first_welcome_begins_no_new_storage(tmp_path, broker, cloud, monkeypatch):
    folder = tmp_path / "box"
    async with cloud.running():
        async with agent(folder, broker.port, "1") as box:
            await until(lambda: box.now and box.now[1] and not box.now[2] and box.now[4] == 1, "the first press")
        with monkeypatch.context() as patch:
            mute(cloud, patch)
            for number in ("2", "3"):  # killed twice, each time with a press that the cloud has and nobody confirmed
                async with agent(folder, broker.port, number):
                    await until(lambda number=number: hex_id("press", number) in heard(cloud), f"press {number}")
                    await until(lambda: cloud.pipeline.lanes["room-001"].emergency_seq == int(number), "its turn")  # noqa: B023
        async with agent(folder, broker.port, "4") as box:
            await until(lambda: box.now and box.now[1] and not box.now[2] and box.now[4] == 1, "the welcome")
            assert box.now[3] == 0, "no new storage"
    assert cloud.rows(device)[0]["generation"] == 1
    assert heard(cloud) == {hex_id("press", number) for number in ("1", "2", "3", "4")}
    assert len(cloud.events()) == 4


async def test_a_copy_that_lacks_what_was_sent_before_the_kill_begins_a_new_storage(
    tmp_path, broker, cloud, monkeypatch
):
    folder, old = tmp_path / "box", tmp_path / "old"
    async with cloud.running():
        async with agent(folder, broker.port, "1") as box:
            await until(lambda: box.now and box.now[1] and not box.now[2] and box.now[4] == 1, "the first press")
        shutil.copytree(folder, old)
        with monkeypatch.context() as patch:
            mute(cloud, patch)
            async with agent(folder, broker.port, "2"):
                await until(lambda: cloud.pipeline.lanes["room-001"].emergency_seq == 2, "press 2")
        async with agent(old, broker.port, "3") as box:  # under the number of press 2
            await until(lambda: box.now and box.now[0] == 2 and box.now[1] and not box.now[2], "generation 2")
    assert heard(cloud) >= {hex_id("press", number) for number in ("1", "2", "3")}
    assert len(heard(cloud)) == len(cloud.events())
