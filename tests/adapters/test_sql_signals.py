"""Processes that share a real PostgreSQL hear of each other's commits, also after they lost their connection."""

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest
from sqlalchemy import create_engine

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.signals import WAITING_MAX, PostgresSignals
from cloud.api.changes import RELOAD, Changes
from cloud.dispatch.planner import Dispatch
from cloud.signals import PAYLOAD_BYTES_MAX, Topic, notify
from cloud.tables import metadata
from tests.unit.dispatch_cases import NOW, SOON_S, decided, press

pytest_plugins = ("tests.adapters.postgres_fixture",)
pytestmark = pytest.mark.postgresql


class NoJitter:
    def uniform(self, low, _high):
        return low


class Ear:
    """What one subscriber heard."""

    def __init__(self):
        self.heard = asyncio.Queue()

    def __call__(self, payload):
        self.heard.put_nowait(payload)

    async def next(self):
        async with asyncio.timeout(SOON_S):
            return await self.heard.get()


@asynccontextmanager
async def running(*all_signals):
    tasks = [asyncio.ensure_future(signals.run()) for signals in all_signals]
    try:
        for signals in all_signals:
            async with asyncio.timeout(SOON_S):
                await signals.listening.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def database(postgresql_url):
    engine = create_engine(postgresql_url)
    metadata.create_all(engine)
    engine.dispose()
    opened = SqlDatabase(postgresql_url)
    yield opened
    opened.close()


def signals_of(url, name):
    return PostgresSignals(url, name, NoJitter())


async def test_a_commit_elsewhere_wakes_the_workers_here(postgresql_url, database):
    here, outbox = signals_of(postgresql_url, "here"), Ear()
    here.subscribe(Topic.OUTBOX, outbox)
    async with running(here):
        assert await outbox.next() is None  # it listens: look once, for what was committed before
        for number in (1, 2):
            await database.write(lambda tx, n=number: Dispatch().plan(tx, decided(press(n)), NOW))
            assert await outbox.next() == ""
        await asyncio.to_thread(kill_listeners, postgresql_url)
        assert await outbox.next() is None  # it listens again, and may have missed something
        await database.write(lambda tx: Dispatch().plan(tx, decided(press(3)), NOW))
        assert await outbox.next() == ""


async def test_ids_travel_with_the_commit_and_not_without_it(postgresql_url, database):
    here, settled = signals_of(postgresql_url, "here"), Ear()
    here.subscribe(Topic.SETTLED, settled)
    ids = [f"{number:032x}" for number in range(250)]

    def fails(tx):
        notify(tx, Topic.SETTLED, ["never"])
        raise LookupError

    async with running(here):
        await settled.next()
        with pytest.raises(LookupError):
            await database.write(fails)
        await database.write(lambda tx: notify(tx, Topic.SETTLED, ids))
        heard = []
        while len(heard) < len(ids):
            heard += (await settled.next()).split()
    assert heard == ids


async def test_live_changes_reach_the_pages_of_every_other_process_once(postgresql_url):
    first, second = signals_of(postgresql_url, "first"), signals_of(postgresql_url, "second")
    here, there = Changes(signals=first), Changes(signals=second)
    async with running(first, second):
        with here.subscribe() as own, there.subscribe() as other:
            here.publish("call", {"id": "c-1", "state": "calling"})
            here.publish_here("ride", {"id": "not for others"})
            here.publish("inbox", {"id": "n-1", "text": "长" * PAYLOAD_BYTES_MAX})
            there.publish("call", {"id": "c-2"})
            async with asyncio.timeout(SOON_S):
                told = [await other.next() for _ in range(3)]
                seen = [await own.next() for _ in range(4)]
    assert ("call", {"id": "c-1", "state": "calling"}) in [(change.topic, change.facts) for change in told]
    assert ("inbox", {"id": "n-1"}) in [(change.topic, change.facts) for change in told]  # too long to travel whole
    assert sorted(change.facts["id"] for change in told) == ["c-1", "c-2", "n-1"]
    assert sorted(change.facts["id"] for change in seen) == ["c-1", "c-2", "n-1", "not for others"]


async def test_pages_load_again_after_more_than_could_be_kept(postgresql_url):
    first, second = signals_of(postgresql_url, "first"), signals_of(postgresql_url, "second")
    here, there = Changes(signals=first), Changes(signals=second)
    for number in range(WAITING_MAX + 10):  # nothing is sent yet
        here.publish("call", {"id": str(number)})
    async with running(second):
        with there.subscribe() as other:
            async with running(first), asyncio.timeout(SOON_S):
                assert (await other.next()).topic == RELOAD


def kill_listeners(url):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
        killed = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        ).fetchall()
        assert killed
