"""One suite for the SQL adapter on both databases."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from cloud.adapters.sql.database import SqlDatabase
from cloud.tables import ledger_account, ledger_entry, ledger_transaction, quarantine, ride, spool_mark

pytest_plugins = ("tests.adapters.postgres_fixture",)


def mark(tx, name, position=1):
    tx.execute(insert(spool_mark).values(spool="s", name=name, position=position))


def marks(tx):
    return sorted(tx.scalars(select(spool_mark.c.name)))


async def test_what_is_written_is_read(database):
    assert await database.write(lambda tx: (mark(tx, "twin"), "answer")[1]) == "answer"
    assert await database.read(marks) == ["twin"]


async def test_a_transaction_that_fails_leaves_nothing(database):
    def work(tx):
        mark(tx, "twin")
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await database.write(work)
    assert await database.read(marks) == []


async def test_what_a_reader_writes_is_never_kept(database):
    try:
        await database.read(lambda tx: mark(tx, "twin"))
    except DBAPIError:
        assert database.is_sqlite  # refused there; rolled back on PostgreSQL
    assert await database.read(marks) == []


async def test_writers_and_readers_together_lose_nothing(database):
    await database.write(lambda tx: mark(tx, "twin", 0))

    def add(tx):
        tx.execute(update(spool_mark).values(position=spool_mark.c.position + 1))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(60):
            tasks.create_task(database.write(add))
            tasks.create_task(database.read(marks))
    assert await database.read(lambda tx: tx.scalar(select(spool_mark.c.position))) == 60


async def test_a_reader_is_not_kept_waiting_by_a_writer(database):
    inside, go_on = threading.Event(), threading.Event()

    def slow(tx):
        mark(tx, "twin")
        inside.set()
        assert go_on.wait(10)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(database.write(slow))
        await asyncio.to_thread(inside.wait, 10)
        assert await database.read(marks) == []
        go_on.set()
        await writing
    assert await database.read(marks) == ["twin"]


async def test_committed_rows_are_there_after_the_next_start(database):
    await database.write(lambda tx: mark(tx, "series"))
    again = SqlDatabase(database.url.render_as_string(hide_password=False))
    assert await again.read(marks) == ["series"]
    again.close()


def test_wrong_types_and_broken_rules_are_refused(database):
    def refused(work):
        with pytest.raises((IntegrityError, DBAPIError)):
            database.write_here(work)

    refused(lambda tx: tx.execute(text("INSERT INTO spool_mark VALUES ('s', 'n', 'not a number')")))
    refused(lambda tx: tx.execute(insert(ledger_entry).values(transaction_id="none", account_id="none", amount_fen=1)))
    account = {"id": "wallet:p", "balance_fen": -1, "may_be_negative": 0}
    refused(lambda tx: tx.execute(insert(ledger_account).values(account)))
    one = {
        "person_id": "p",
        "device_id": "bike-001",
        "state": "riding",
        "asked_at": 1,
        "deadline_at": 1,
        "changed_at": 1,
    }
    database.write_here(lambda tx: tx.execute(insert(ride).values({**one, "id": "1", "command_id": "1"})))
    refused(lambda tx: tx.execute(insert(ride).values({**one, "id": "2", "command_id": "2", "person_id": "q"})))
    refused(lambda tx: tx.execute(insert(ride).values({**one, "id": "2", "command_id": "2", "device_id": "bike-2"})))
    ended = {**one, "id": "2", "command_id": "2", "state": "ended"}
    database.write_here(lambda tx: tx.execute(insert(ride).values(ended)))


def test_the_ledger_is_append_only(database):
    row = {"id": "t", "cause": "c", "at": 1}
    database.write_here(lambda tx: tx.execute(insert(ledger_transaction).values(row)))
    for statement in (update(ledger_transaction).values(cause="d"), text("DELETE FROM ledger_transaction")):
        with pytest.raises(DBAPIError, match="append-only"):
            database.write_here(lambda tx, statement=statement: tx.execute(statement))


def test_numbers_and_bytes_keep_their_size(database):
    payload, moment = bytes(range(256)), 253_402_300_799_000
    row = {"received_at": moment, "topic": "t", "reason": "r", "payload": payload, "seq": 2**53}
    database.write_here(lambda tx: tx.execute(insert(quarantine).values(row)))
    (stored,) = database.read_here(lambda tx: tx.execute(select(quarantine)).all())
    assert (stored.received_at, bytes(stored.payload), stored.seq) == (moment, payload, 2**53)


def test_sqlite_is_set_up_to_be_durable(tmp_path):
    database = SqlDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    settings = database.read_here(
        lambda tx: [
            tx.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys", "query_only")
        ]
    )
    assert settings == ["wal", 2, 1, 1]
    assert database.write_here(lambda tx: tx.scalar(text("PRAGMA synchronous"))) == 2
    database.close()


async def test_two_that_decide_by_what_they_read_do_not_both_win(database):
    """Without serializable writes both see an empty table, and both take the only place."""
    together = threading.Barrier(2)

    def take_the_only_place(tx, name):
        taken = tx.scalar(select(func.count()).select_from(spool_mark))
        with suppress(threading.BrokenBarrierError):
            together.wait(0.5 if database.is_sqlite else 10)  # there the other one can't even begin
        if taken:
            return False
        mark(tx, name)
        return True

    async with asyncio.TaskGroup() as tasks:
        tries = [
            tasks.create_task(database.write(lambda tx, name=name: take_the_only_place(tx, name))) for name in "ab"
        ]
    assert sorted(one.result() for one in tries) == [False, True]
    assert len(await database.read(marks)) == 1


async def test_a_reader_sees_one_moment(database):
    await database.write(lambda tx: mark(tx, "before"))
    between, go_on = threading.Event(), threading.Event()

    def read_twice(tx):
        first = marks(tx)
        between.set()
        assert go_on.wait(10)
        return first, marks(tx)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(database.read(read_twice))
        await asyncio.to_thread(between.wait, 10)
        await database.write(lambda tx: mark(tx, "meanwhile"))
        go_on.set()
    assert reading.result() == (["before"], ["before"])


def test_those_who_open_a_new_file_together_all_get_in(tmp_path):
    """Of four that change a new file's journal at the same moment, SQLite refuses one in about ten files at once."""
    barrier = threading.Barrier(4)

    def opened(database):
        barrier.wait()
        return database.write_here(lambda tx: tx.scalar(text("PRAGMA journal_mode")))

    with ThreadPoolExecutor(4) as pool:
        for number in range(30):
            together = [SqlDatabase(f"sqlite:///{tmp_path}/{number}.db") for _ in range(4)]
            assert list(pool.map(opened, together)) == ["wal"] * 4
            for database in together:
                database.close()
