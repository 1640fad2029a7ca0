"""Ingesters that share the shards through the database: one comes, one goes, one dies; two look at the same moment."""

import asyncio
import threading

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError

from cloud.adapters.sql import patience
from cloud.adapters.sql.database import SqlDatabase
from cloud.ingest.leases import LeaseLostError, Leases
from cloud.ingest.shares import SEAT_FIRST, Shares
from cloud.tables import metadata, shard_lease, spool_mark
from fleet.topics import SHARD_COUNT

pytest_plugins = ("tests.adapters.postgres_fixture",)

SOON_S = 10
LEASE_S = 0.3
LONG_MS = 60_000
IDLE_S = 1.0


class Wall:
    """Real time that stands still until it is moved."""

    def __init__(self):
        self.ms = 1_000_000

    def __call__(self):
        return self.ms


@pytest.fixture
def wall():
    return Wall()


class Member:
    """An ingester as far as its shards go."""

    def __init__(self, database, name, wall):
        self.shares = Shares(database, name, wall, LEASE_S)
        self.leases = Leases(database, name, wall, LEASE_S)
        self.sit = self.shares.sit
        self._database = database

    async def take(self):
        async with asyncio.timeout(SOON_S):
            held = await self.shares.take()
            await self.leases.take(held)
        return held

    async def commits(self):
        try:
            await self._database.write(self.leases.check)
        except LeaseLostError:
            return False
        return True


async def test_a_second_one_gets_its_half_as_soon_as_the_first_lets_go(database, wall):
    first, second = Member(database, "first", wall), Member(database, "second", wall)
    await first.sit()
    assert await first.take() == frozenset(range(SHARD_COUNT))
    await second.sit()
    waiting = asyncio.ensure_future(second.take())
    async with asyncio.timeout(SOON_S):
        await first.shares.changed(frozenset(range(SHARD_COUNT)))
    assert not waiting.done()
    assert await first.take() == frozenset(range(32))
    assert await waiting == frozenset(range(32, SHARD_COUNT))
    assert await first.commits()
    assert await second.commits()


async def test_what_a_dead_one_held_is_taken_and_when_it_wakes_it_commits_nothing(database, wall):
    first, second = Member(database, "first", wall), Member(database, "second", wall)
    await first.sit()
    await second.sit()
    assert len(await first.take()) == len(await second.take()) == 32
    wall.ms += LONG_MS
    await first.sit()
    async with asyncio.timeout(SOON_S):
        await first.shares.changed(first.leases.shards)
    assert await first.take() == frozenset(range(SHARD_COUNT))
    assert not await second.commits()
    assert await first.commits()
    # Awake, it asks for its share like anybody else.
    await second.sit()
    assert len(await first.take()) == 32
    assert len(await second.take()) == 32


async def test_what_another_took_while_one_was_stopped_before_its_leases_is_given_up(database, wall):
    """`first` was stopped between claiming a share and taking its leases; it may not wait for these for ever."""
    first, second = Member(database, "first", wall), Member(database, "second", wall)
    await first.sit()
    await second.sit()
    claimed = await first.shares.take()
    await second.take()
    wall.ms += LONG_MS
    await second.sit()
    assert await second.take() == frozenset(range(SHARD_COUNT))
    await first.sit()  # awake again, with a claim that another has made its own
    assert await second.take() == claimed, "it keeps the lowest"
    told = asyncio.Event()
    waiting = asyncio.ensure_future(first.leases.take(claimed, told.is_set))
    async with asyncio.timeout(SOON_S):
        await first.shares.changed(claimed)
        told.set()  # what `Pipeline.leave` does
        assert not await waiting
        assert first.leases.shards == frozenset()
    assert await first.take() == frozenset(range(SHARD_COUNT)) - claimed
    assert await first.commits()
    assert await second.commits()


async def test_who_leaves_is_not_waited_for(database, wall):
    first, second = Member(database, "first", wall), Member(database, "second", wall)
    await first.sit()
    await second.sit()
    await first.take()
    await second.take()
    await second.leases.release()
    await second.shares.leave()
    async with asyncio.timeout(SOON_S):
        await first.shares.changed(first.leases.shards)
    assert await first.take() == frozenset(range(SHARD_COUNT))


async def test_many_that_look_at_the_same_moment_never_own_the_same_shard(database, wall):
    members = [Member(database, f"member-{number}", wall) for number in range(5)]
    for one in members:
        await one.sit()
    held = await asyncio.gather(*(one.take() for one in members))
    assert sorted(shard for one in held for shard in one) == list(range(SHARD_COUNT))
    assert {len(one) for one in held} == {12, 13}
    assert all([await one.commits() for one in members])


async def test_a_seat_of_somebody_dead_is_used_again(database, wall):
    for number in range(3):
        await Member(database, f"member-{number}", wall).sit()
        wall.ms += LONG_MS
    seats = await database.read(lambda tx: tx.scalars(select(shard_lease.c.shard)).all())
    assert seats == [SEAT_FIRST]


@pytest.mark.postgresql
async def test_one_that_is_stopped_amid_a_commit_holds_up_only_its_own_shards_and_not_for_long(postgresql_url, wall):
    made = SqlDatabase(postgresql_url)
    made.write_here(metadata.create_all)
    theirs, ours = SqlDatabase(postgresql_url, idle_s_max=IDLE_S), made
    frozen, living = Member(theirs, "frozen", wall), Member(ours, "living", wall)
    await frozen.sit()
    await living.sit()
    assert len(await frozen.take()) == len(await living.take()) == 32
    inside, wake = threading.Event(), threading.Event()

    def commit(tx):
        frozen.leases.check(tx)
        inside.set()
        assert wake.wait(SOON_S)
        tx.execute(insert(spool_mark).values(spool="s", name="too late", position=1))

    async with asyncio.timeout(2 * SOON_S):
        committing = asyncio.ensure_future(asyncio.to_thread(theirs.write_here, commit))
        await asyncio.to_thread(inside.wait, SOON_S)
        wall.ms += LONG_MS
        await living.sit()
        # While the frozen one's locks are there, nothing is to be gained: the living one is not told to stop.
        began_s = asyncio.get_running_loop().time()
        await living.shares.changed(living.leases.shards)
        assert asyncio.get_running_loop().time() - began_s >= IDLE_S - LEASE_S
        assert len(await living.take()) == SHARD_COUNT
        wake.set()
        with pytest.raises(DBAPIError) as gone:
            await committing
        assert patience.passes(gone.value)  # a worker tries again, and then learns that its shards are gone
    assert await living.commits()
    assert not await frozen.commits()
    assert ours.read_here(lambda tx: tx.scalars(select(spool_mark.c.name)).all()) == []
    theirs.close()
    ours.close()
