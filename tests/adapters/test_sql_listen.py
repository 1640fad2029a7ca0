"""Workers of another process hear of a commit on a real PostgreSQL, also after they lost their connection."""

import asyncio

import psycopg
import pytest
from sqlalchemy import create_engine

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.listen import listen
from cloud.dispatch.planner import Dispatch
from cloud.tables import metadata
from tests.unit.dispatch_cases import NOW, SOON_S, decided, press

pytest_plugins = ("tests.adapters.postgres_fixture",)
pytestmark = pytest.mark.postgresql


class NoJitter:
    def uniform(self, low, _high):
        return low


async def test_a_commit_elsewhere_wakes_the_workers_here(postgresql_url):
    engine = create_engine(postgresql_url)
    metadata.create_all(engine)
    engine.dispose()
    database = SqlDatabase(postgresql_url)
    woken = asyncio.Event()

    async def wakes_by(number):
        woken.clear()
        await database.write(lambda tx: Dispatch().plan(tx, decided(press(number)), NOW))
        async with asyncio.timeout(SOON_S):
            await woken.wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(listen(postgresql_url, woken.set, NoJitter()))
        async with asyncio.timeout(SOON_S):
            await woken.wait()  # it listens
        await wakes_by(1)
        await wakes_by(2)
        woken.clear()
        await asyncio.to_thread(kill_listeners, postgresql_url)
        async with asyncio.timeout(SOON_S):
            await woken.wait()  # it listens again
        await wakes_by(3)
        task.cancel()
    database.close()


def kill_listeners(url):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
        killed = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        ).fetchall()
        assert killed
