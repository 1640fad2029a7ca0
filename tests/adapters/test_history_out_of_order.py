"""PostgreSQL commits rows out of the order of their ids: the feed misses none of them, and waits for nobody else."""

import random
import threading
from contextlib import contextmanager

import psycopg
import pytest
from history_cases import NOW_MS, Follower, add_call, add_call_step
from sqlalchemy import select, text

from cloud.adapters.sql.database import SqlDatabase
from cloud.history.horizon import Horizon
from cloud.tables import call_transition, metadata

pytest_plugins = ("tests.adapters.postgres_fixture",)
pytestmark = pytest.mark.postgresql

TABLE = "call_transition"


@contextmanager
def opened_schema(server):
    """The schema in a database of its own, on the server at `host:port`."""
    with psycopg.connect(f"postgresql://fleet@{server}/postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE out_of_order")
        opened = SqlDatabase(f"postgresql+psycopg://fleet@{server}/out_of_order")
        try:
            opened.write_here(metadata.create_all)
            opened.write_here(lambda tx: tx.execute(text("ALTER TABLE call DISABLE TRIGGER ALL")))  # calls are guarded
            yield opened
        finally:
            opened.close()
            admin.execute("DROP DATABASE out_of_order WITH (FORCE)")


def begin_anew(database):
    """One call with its press, which is row 1, and nothing followed."""
    emptied = "TRUNCATE call, call_transition, history_mark, audit RESTART IDENTITY"
    database.write_here(lambda tx: tx.execute(text(emptied)))
    database.write_here(lambda tx: add_call(tx, "c1"))


@pytest.fixture(scope="module")
def schema(postgresql_server):
    with opened_schema(postgresql_server) as opened:
        yield opened


@pytest.fixture
def postgresql(schema):
    begin_anew(schema)
    return schema


class Slow:
    """A transaction that stays open between its statements."""

    def __init__(self, database):
        self.connection = database.writer.execution_options(isolation_level="READ COMMITTED").connect()
        self.number = self.connection.scalar(text("SELECT 1"))

    def step(self, number):
        add_call_step(self.connection, "c1", "escalate", "calling", "calling", NOW_MS + number, f"escalation:{number}")

    def commit(self):
        self.connection.commit()
        self.connection.close()

    def roll_back(self):
        self.connection.rollback()
        self.connection.close()


def committed(database, number):
    slow = Slow(database)
    slow.step(number)
    slow.commit()


async def seen(it):
    await it.follow()
    return sorted(at_ms - NOW_MS for _, at_ms, _ in it.store.of("call_step"))


async def test_following_the_highest_id_would_miss_a_row_that_commits_later(postgresql):
    """What the horizon is for: the row with the smaller id becomes visible after the one with the greater."""
    slow = Slow(postgresql)
    slow.step(1)
    committed(postgresql, 2)
    ids = await postgresql.read(
        lambda tx: list(tx.scalars(select(call_transition.c.id).order_by(call_transition.c.id)))
    )
    slow.commit()
    later = await postgresql.read(
        lambda tx: list(tx.scalars(select(call_transition.c.id).where(call_transition.c.id.not_in(ids))))
    )
    assert later
    assert later[0] < ids[-1]


async def test_a_row_that_commits_after_a_later_one_is_followed(postgresql):
    it = Follower(postgresql)
    assert await seen(it) == [0]
    slow = Slow(postgresql)
    slow.step(1)
    committed(postgresql, 2)
    assert await seen(it) == [0]  # the one that could be overtaken waits
    committed(postgresql, 3)
    assert await seen(it) == [0]
    slow.commit()
    assert await seen(it) == [0, 1, 2, 3]


async def test_a_row_of_a_transaction_that_was_rolled_back_is_not_waited_for(postgresql):
    it = Follower(postgresql)
    slow = Slow(postgresql)
    slow.step(1)
    committed(postgresql, 2)
    assert await seen(it) == []
    slow.roll_back()
    assert await seen(it) == [0, 2]


async def test_writers_that_overlap_without_end_do_not_stop_the_feed(postgresql):
    """Who began after a look is not waited for by that look."""
    it = Follower(postgresql)
    running = Slow(postgresql)
    running.step(1)
    for number in range(2, 12):
        following = Slow(postgresql)
        following.step(number)  # begins before the other one ends
        assert max(await seen(it), default=0) < number
        running.commit()
        running = following
        last = await seen(it)
    assert len(last) >= 10 - 1
    running.commit()
    assert await seen(it) == list(range(12))


async def test_readers_and_writers_of_other_tables_hold_nothing_up(postgresql):
    it = Follower(postgresql)
    reader, writer = postgresql.reader.connect(), postgresql.writer.connect()
    reader.execute(select(call_transition)).all()  # a dump may take an hour
    writer.execute(text("INSERT INTO audit (at, actor, action, object, detail) VALUES (1, 'a', 'b', 'c', 'd')"))
    committed(postgresql, 1)
    assert await seen(it) == [0, 1]
    for connection in (reader, writer):
        connection.rollback()
        connection.close()


async def test_a_transaction_that_took_an_id_but_wrote_nothing_yet_is_seen(postgresql):
    """A transaction has no id of its own when its INSERT takes the number of its row: only its lock shows it."""
    it = Follower(postgresql)
    assert await seen(it) == [0]
    slow = postgresql.writer.execution_options(isolation_level="READ COMMITTED").connect()
    slow.execute(text("LOCK TABLE call_transition IN ROW EXCLUSIVE MODE"))  # as an INSERT does before it begins
    taken = slow.scalar(text("SELECT nextval(pg_get_serial_sequence('call_transition', 'id'))"))
    committed(postgresql, 2)
    assert await seen(it) == [0]
    slow.execute(
        text(
            "INSERT INTO call_transition (id, call_id, step, before, after, at, received_at, actor, event_id) VALUES "
            "(:id, 'c1', 'escalate', 'calling', 'calling', :at, :at, '', 'escalation:1')"
        ),
        {"id": taken, "at": NOW_MS + 1},
    )
    slow.commit()
    slow.close()
    assert await seen(it) == [0, 1, 2]


async def test_random_transactions_of_many_writers_are_all_followed_while_they_run(postgresql):
    rng = random.Random(7)
    numbers, counter = [], iter(range(1, 10_000))
    lock, stop = threading.Lock(), threading.Event()
    pauses = [rng.uniform(0, 0.01) for _ in range(64)]

    def work(worker):
        turn = worker
        while not stop.is_set():
            with lock:
                mine = [next(counter) for _ in range(1 + turn % 3)]
            slow = Slow(postgresql)
            for number in mine:
                slow.step(number)
                stop.wait(pauses[turn % len(pauses)])
            if turn % 5:
                slow.commit()
                with lock:
                    numbers.extend(mine)
            else:
                slow.roll_back()
            turn += 7

    writers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    it = Follower(postgresql, batch_rows=5)
    for writer in writers:
        writer.start()
    try:
        while len(numbers) < 60:
            await it.step()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert await seen(it) == sorted([0, *numbers])


async def test_nothing_is_known_of_a_table_that_somebody_writes_at_the_first_look(postgresql):
    slow = Slow(postgresql)
    slow.step(1)
    horizon = Horizon(postgresql, [TABLE])
    assert await horizon.look() == {}
    slow.commit()
    assert await horizon.look() == {TABLE: 2}
