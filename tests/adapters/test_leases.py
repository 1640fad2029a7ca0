"""Shards have one owner at a time, on both databases; and who lost them commits nothing any more."""

import asyncio
import threading

import pytest
from sqlalchemy import insert, select

from cloud.adapters.sql.database import SqlDatabase
from cloud.ingest.leases import LEASE_S, LeaseLostError, Leases
from cloud.tables import spool_mark

pytest_plugins = ("tests.adapters.postgres_fixture",)

SOON_S = 10


class Wall:
    """Real time that stands still until it is moved."""

    def __init__(self):
        self.ms = 1_000_000

    def __call__(self):
        return self.ms


@pytest.fixture
def wall():
    return Wall()


async def taken(database, owner, wall, shards):
    leases = Leases(database, owner, wall)
    async with asyncio.timeout(SOON_S):
        await leases.take(shards)
    return leases


def commit(leases, name):
    def work(tx):
        leases.check(tx)
        tx.execute(insert(spool_mark).values(spool="s", name=name, position=1))

    return work


def committed(tx):
    return sorted(tx.scalars(select(spool_mark.c.name)))


async def test_disjoint_shards_are_taken_side_by_side(database, wall):
    first = await taken(database, "first", wall, range(32))
    second = await taken(database, "second", wall, range(32, 64))
    await database.write(commit(first, "a"))
    await database.write(commit(second, "b"))
    assert await database.read(committed) == ["a", "b"]


async def test_an_overlap_waits_until_the_lease_has_run_out(database, wall):
    first = await taken(database, "first", wall, range(32))
    second = Leases(database, "second", wall)
    waiting = asyncio.ensure_future(second.take(range(31, 64)))
    await database.read(committed)
    assert not waiting.done()
    wall.ms += round(LEASE_S * 1000) + 1
    async with asyncio.timeout(SOON_S):
        await waiting
    await database.write(commit(second, "theirs"))
    with pytest.raises(LeaseLostError):
        await database.write(commit(first, "too late"))
    assert await database.read(committed) == ["theirs"]


async def test_an_owner_that_was_killed_has_its_own_back_at_once(database, wall):
    killed = await taken(database, "first", wall, range(64))
    again = await taken(database, "first", wall, range(64))
    await database.write(commit(again, "again"))
    with pytest.raises(LeaseLostError):
        await database.write(commit(killed, "the process before"))


async def test_what_is_let_go_is_free_at_once(database, wall):
    first = await taken(database, "first", wall, range(64))
    await first.release()
    await taken(database, "second", wall, range(64))
    with pytest.raises(LeaseLostError):
        await database.write(commit(first, "after the end"))


@pytest.mark.postgresql
async def test_a_takeover_waits_for_the_commit_that_is_under_way(postgresql_url, wall):
    from sqlalchemy import create_engine

    from cloud.tables import metadata

    engine = create_engine(postgresql_url)
    metadata.create_all(engine)
    engine.dispose()
    database = SqlDatabase(postgresql_url)
    first = await taken(database, "first", wall, range(64))
    inside, go_on = threading.Event(), threading.Event()

    def slow(tx):
        commit(first, "before the takeover")(tx)
        inside.set()
        assert go_on.wait(SOON_S)

    async with asyncio.timeout(2 * SOON_S):
        writing = asyncio.ensure_future(database.write(slow))
        await asyncio.to_thread(inside.wait, SOON_S)
        wall.ms += round(LEASE_S * 1000) + 1
        second = Leases(database, "second", wall)
        taking = asyncio.ensure_future(second.take(range(64)))
        await asyncio.to_thread(_somebody_waits_for_a_lock, database)
        assert not taking.done()
        go_on.set()
        await writing
        await taking
    # Whoever took over reads what was committed until then, and nothing comes after it.
    assert await database.read(committed) == ["before the takeover"]
    with pytest.raises(LeaseLostError):
        await database.write(commit(first, "after it"))
    database.close()


def _somebody_waits_for_a_lock(database):
    from sqlalchemy import text

    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while not database.read_here(lambda tx: tx.scalar(query)):
        pass
