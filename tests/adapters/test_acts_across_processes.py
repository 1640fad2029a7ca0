"""Commands and acts of people when who asks, who sends and who decides are processes of their own.

Each "process" is its own set of objects on one database; nothing passes between them but rows and, where a test
says so, what a signal would say. Without it, polling must do.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import insert, select

from cloud import intents as intents_module
from cloud.device_commands.keys import OneKey
from cloud.device_commands.service import DeviceCommands
from cloud.ingest import repository as ingest_rows
from cloud.intents import IntentDesk
from cloud.model import Intent
from cloud.ports import IntentRefusedError
from cloud.tables import command, device, intent
from devices.bike.messages import Ring
from fleet.messages import Reply, ReplyStatus
from fleet.topics import DownChannel, down

pytest_plugins = ("tests.adapters.postgres_fixture",)

SOON_S = 10
NOW_MS = 1_700_000_000_000
BIKES = ("bike-001", "bike-002")


class Standing:
    """Business time that stands still; real time goes on."""

    speed = 1.0

    def __init__(self):
        self.ms = NOW_MS

    def now_ms(self):
        return self.ms

    def monotonic_s(self):
        return asyncio.get_running_loop().time()


class Ids:
    def __init__(self):
        self.last = 0

    def __call__(self):
        self.last += 1
        return f"{self.last:032x}"


class NoSigner:
    def sign(self, _data):
        return b"s" * 64


@pytest.fixture
def clock():
    return Standing()


@pytest.fixture
async def bikes(database):
    rows = [{"device_id": name, "kind": "bike", "name": name, "enrolled_at": 1, "generation": 1} for name in BIKES]
    await database.write(lambda tx: tx.execute(insert(device), rows))


class Process:
    """One `DeviceCommands`, and what it sent."""

    def __init__(self, database, clock, ids, mine=None):
        self.sent = []
        self.sent_something = asyncio.Event()
        self.commands = DeviceCommands(database, clock, self._publish, OneKey("key", NoSigner()), ids)
        if mine is not None:
            self.commands.mine = mine

    def _publish(self, messages):
        self.sent += [message.topic for message in messages]
        self.sent_something.set()


@asynccontextmanager
async def running(*coroutines):
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        async with asyncio.timeout(SOON_S):
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ring(process, name):
    return lambda tx: process.commands.order(tx, name, Ring(), actor="person-1")


@pytest.mark.usefixtures("bikes")
async def test_each_ingester_sends_to_its_own_devices_and_each_command_once(database, clock):
    ids = Ids()
    api = Process(database, clock, ids)
    one, other = (Process(database, clock, ids, lambda name, bike=bike: name == bike) for bike in BIKES)
    async with running(*(process.commands.run(expires=False) for process in (one, other))):
        for name in (*BIKES, *BIKES):
            await database.write(ring(api, name))
        while len(one.sent) + len(other.sent) < 4:  # nobody tells them: they look by themselves
            await asyncio.wait(
                [asyncio.ensure_future(process.sent_something.wait()) for process in (one, other)],
                return_when=asyncio.FIRST_COMPLETED,
            )
            one.sent_something.clear()
            other.sent_something.clear()
    assert one.sent == [down(BIKES[0], DownChannel.COMMAND)] * 2
    assert other.sent == [down(BIKES[1], DownChannel.COMMAND)] * 2
    assert api.sent == []


@pytest.mark.usefixtures("bikes")
@pytest.mark.parametrize("told", [True, False])
async def test_who_waits_hears_how_it_ended_elsewhere(database, clock, told):
    ids = Ids()
    api, ingester = Process(database, clock, ids), Process(database, clock, ids)
    command_id = await database.write(ring(api, BIKES[0]))
    async with running():
        waiting = asyncio.ensure_future(api.commands.outcome(command_id, 60))
        reply = Reply(command_id=command_id, device_id=BIKES[0], status=ReplyStatus.SUCCEEDED, at=NOW_MS)
        await database.write(lambda tx: ingester.commands.record_replies(tx, [reply], NOW_MS))
        if told:
            api.commands.settled_elsewhere(command_id)
        assert await waiting == ("succeeded", "")


@pytest.mark.usefixtures("bikes")
async def test_expiry_and_a_reply_at_the_same_moment_end_a_command_once(database, clock):
    """Whoever commits first wins; the handlers of its outcome run once."""
    ids, outcomes = Ids(), []
    handlers = {"ring": [lambda _tx, outcome: outcomes.append(outcome.status)]}
    processes = [Process(database, clock, ids) for _ in range(2)]
    for process in processes:
        process.commands._handlers = handlers
    command_id = await database.write(ring(processes[0], BIKES[0]))
    clock.ms += 600_000
    reply = Reply(command_id=command_id, device_id=BIKES[0], status=ReplyStatus.SUCCEEDED, at=NOW_MS)
    ended = await asyncio.gather(
        database.write(lambda tx: processes[0].commands.record_replies(tx, [reply], clock.ms)),
        processes[1].commands._expire(),
    )
    (status,) = await database.read(lambda tx: tx.scalars(select(command.c.status)).all())
    assert status in {"succeeded", "expired"}
    assert bool(ended[0]) == (status == "succeeded")
    assert outcomes[-1] == status  # an earlier entry can only be of a try that was rolled back


async def test_an_act_is_answered_by_another_process(database, clock):
    desk = IntentDesk(database, clock, Ids())

    async def own_the_lane():
        while not (waiting := await database.read(ingest_rows.waiting_intents)):  # noqa: ASYNC110  # it is a row
            await asyncio.sleep(0)
        assert [(one.name, one.actor) for one in waiting] == [("acknowledge_call", "person-1")]
        answers = [(waiting[0], '{"state":"acknowledged"}', None)]
        await database.write(lambda tx: ingest_rows.answer_intents(tx, answers, NOW_MS))
        desk.answered(waiting[0].id)

    async with running(own_the_lane()):
        answer = await desk.submit("room-001", "acknowledge_call", "person-1", {"call_id": "c"})
    assert answer == {"state": "acknowledged"}


async def test_an_act_that_nobody_takes_in_time_is_withdrawn(database, clock, monkeypatch):
    monkeypatch.setattr(intents_module, "ANSWER_WITHIN_S", 0.05)
    desk = IntentDesk(database, clock, Ids())
    with pytest.raises(IntentRefusedError, match="in time"):
        await desk.submit("room-001", "acknowledge_call", "person-1", {})
    assert await database.read(ingest_rows.waiting_intents) == []
    late = Intent(f"{1:032x}", "room-001", "acknowledge_call", "person-1", {}, NOW_MS)
    await database.write(lambda tx: ingest_rows.answer_intents(tx, [(late, "{}", None)], NOW_MS))
    (row,) = await database.read(lambda tx: tx.execute(select(intent)).all())
    assert row.refused == "withdrawn"
