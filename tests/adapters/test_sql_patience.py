"""A database that is away, locked or full for a moment: workers wait, requests are refused soon, nothing is doubled."""

import asyncio
import sqlite3

import psycopg
import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from cloud.adapters.sql import patience
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.adapters.sql.patience import endless
from cloud.metrics import SQL_RETRIES
from cloud.tables import spool_mark

pytest_plugins = ("tests.adapters.postgres_fixture",)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(patience, "WAIT_S_MAX", 0.01)


@pytest.fixture
def sqlite(tmp_path):
    url = f"sqlite:///{tmp_path / 'state.db'}"
    upgrade(url)
    database = SqlDatabase(url)
    yield database
    database.close()


def fill(tx):
    rows = [{"spool": f"s{number}", "name": "x" * 3000, "position": 0} for number in range(100)]
    tx.execute(insert(spool_mark), rows)


def pages(database, bound):
    """A disk that is full at `bound` pages, as SQLite sees it."""
    database.write_here(lambda tx: tx.exec_driver_sql(f"PRAGMA max_page_count={bound}"))


async def test_a_worker_waits_until_a_full_disk_has_room_again_and_a_request_does_not(sqlite):
    pages(sqlite, 1)  # SQLite makes it the present size: nothing more fits
    with pytest.raises(OperationalError, match="full"):
        await sqlite.write(fill)
    started = SQL_RETRIES._value.get()
    worker = asyncio.ensure_future(endless(sqlite.write(fill)))
    while SQL_RETRIES._value.get() < started + patience.TRIES_OF_A_REQUEST + 4:
        assert not worker.done()
        await asyncio.sleep(0.001)
    pages(sqlite, 1_000_000)
    async with asyncio.timeout(10):
        await worker
    assert await sqlite.read(lambda tx: tx.scalar(select(func.count()).select_from(spool_mark))) == 100


async def test_what_is_wrong_with_the_work_itself_is_never_tried_again(sqlite):
    tries = 0

    def wrong(tx):
        nonlocal tries
        tries += 1
        tx.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(OperationalError):
        await endless(sqlite.read(wrong))
    assert tries == 1


async def test_reads_and_writes_of_a_worker_outlive_their_killed_connections(postgresql_url):
    url = postgresql_url
    upgrade(url)
    database = SqlDatabase(url)
    killed, writes = 0, True

    def killing(tx):
        nonlocal killed
        if writes:
            fill(tx)
        if killed < 6:
            killed += 1
            pid = tx.scalar(text("SELECT pg_backend_pid()"))
            with psycopg.connect(url.replace("+psycopg", "")) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [pid])
        return tx.scalar(text("SELECT count(*) FROM spool_mark"))

    try:
        assert await endless(database.write(killing)) == 100
        assert killed == 6
        killed, writes = 0, False
        assert await endless(database.read(killing)) == 100
    finally:
        database.close()


class _Lost(psycopg.OperationalError):
    sqlstate = "57P01"


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (OperationalError("", {}, sqlite3.OperationalError("database is locked")), True),
        (OperationalError("", {}, sqlite3.OperationalError("database or disk is full")), True),
        (OperationalError("", {}, sqlite3.OperationalError("no such column: x")), False),
        (OperationalError("", {}, psycopg.OperationalError("connection refused")), True),
        (OperationalError("", {}, _Lost("terminating")), True),
        (InterfaceError("", {}, psycopg.InterfaceError("connection is closed")), True),
        (ProgrammingError("", {}, psycopg.ProgrammingError("syntax")), False),
        (IntegrityError("", {}, sqlite3.IntegrityError("UNIQUE")), False),
        (DBAPIError("", {}, psycopg.Error("x"), connection_invalidated=True), True),
        (LookupError("x"), False),
    ],
)
def test_which_errors_pass(error, passing):
    assert patience.passes(error) is passing
