"""`cloud.ports.Database` on SQLAlchemy Core, in threads (ADR 0003).

SQLite: all writes go through one thread and one connection (`BEGIN IMMEDIATE`, WAL,
`synchronous=FULL`); reads have a small pool. PostgreSQL: a pool for both; writes are serializable, so that
what holds on SQLite because nobody else writes holds here as well (ADR 0009).
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloud.adapters.sql import patience
from cloud.metrics import SQL_CONFLICTS, SQL_RETRIES

_log = structlog.get_logger(__name__)

T = TypeVar("T")

READERS: Final = 4
POSTGRESQL_WRITERS: Final = 4
POSTGRESQL_SPARE: Final = 2
"""Connections beyond the pools' threads, for `read_here` and `write_here` on others; more wait for one to be free."""
BUSY_TIMEOUT_MS: Final = 10_000
CONFLICTS_MAX: Final = 50
"""Tries of one transaction on PostgreSQL; each failed one means that another transaction went through."""
_CONFLICTS: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock


class SqlDatabase:
    """A database by URL: `sqlite:////path/state.db` or `postgresql+psycopg://user@host/name`."""

    def __init__(self, url: str, idle_s_max: float = 0.0) -> None:
        """`idle_s_max`: PostgreSQL ends a connection that does nothing for so long amid a transaction; 0: the server's.

        A process that was frozen, or a machine that is gone, would otherwise hold its locks until it is back.
        """
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.writer, self.reader = _sqlite_engine(url), _sqlite_engine(url, query_only=True)
        else:
            self.writer = create_engine(
                url, pool_size=POSTGRESQL_WRITERS + READERS, max_overflow=POSTGRESQL_SPARE, pool_pre_ping=True,
                isolation_level="SERIALIZABLE",
            )  # fmt: skip
            if idle_s_max:
                _bound_idling(self.writer, idle_s_max)
            self.reader = self.writer.execution_options(isolation_level="REPEATABLE READ")
        writers = 1 if self.is_sqlite else POSTGRESQL_WRITERS
        self._write_pool = ThreadPoolExecutor(writers, thread_name_prefix="sql-write")
        self._read_pool = ThreadPoolExecutor(READERS, thread_name_prefix="sql-read")

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and commit it durably; roll back and re-raise what it raises.

        `work` may run again, so its only effects are in SQL: on PostgreSQL when another transaction came in between,
        on both when the database is away, locked or full (`patience`). Where a commit got no answer, a worker's runs
        again, being idempotent; a request's does not.
        """
        done = False

        def noted(connection: Connection) -> T:
            nonlocal done
            done = False
            answer = work(connection)
            done = True
            return answer

        return await self._patiently(self._write_pool, lambda: self.write_here(noted), lambda: done)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot."""
        return await self._patiently(self._read_pool, lambda: self.read_here(work), lambda: False)

    async def _patiently(
        self, pool: ThreadPoolExecutor, run: Callable[[], T], may_be_committed: Callable[[], bool]
    ) -> T:
        tries = 0
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, run)
            except (DBAPIError, PoolTimeoutError) as error:
                tries += 1
                unsure = may_be_committed() and not self.is_sqlite and not patience.is_endless()
                if unsure or not patience.may_try_again(error, tries):
                    raise
                SQL_RETRIES.inc()
                if tries == 1:
                    _log.warning("the database is away, locked or full; trying again", error=str(error).splitlines()[0])
            await asyncio.sleep(patience.wait_s(tries))

    def write_here(self, work: Callable[[Connection], T]) -> T:
        """`write` on the calling thread: for the write thread itself, start-up and command line tools."""
        conflicts = 0
        while True:
            try:
                with self.writer.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                conflicts += 1
                if getattr(error.orig, "sqlstate", None) not in _CONFLICTS or conflicts >= CONFLICTS_MAX:
                    raise
                SQL_CONFLICTS.inc()

    @contextmanager
    def schema_change(self) -> Iterator[Connection]:
        """A transaction in which each statement sees what others committed before it, also while it waited."""
        isolation = {} if self.is_sqlite else {"isolation_level": "READ COMMITTED"}
        with self.writer.execution_options(**isolation).begin() as connection:
            yield connection

    def read_here(self, work: Callable[[Connection], T]) -> T:
        """`read` on the calling thread."""
        with self.reader.connect() as connection:
            return work(connection)

    def close(self) -> None:
        """Finish what runs, then close every connection."""
        self._write_pool.shutdown()
        self._read_pool.shutdown()
        self.writer.dispose()
        self.reader.dispose()


def _bound_idling(engine: Engine, idle_s_max: float) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute(f"SET idle_in_transaction_session_timeout = {round(idle_s_max * 1000)}")
        connection.commit()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Have the file written by a write-ahead log, waiting for others up to `BUSY_TIMEOUT_MS`.

    Of several connections that change a new file's journal at the same moment SQLite refuses all but one at once,
    whatever `busy_timeout` says.
    """
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    for tries in count(1):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            threading.Event().wait(patience.wait_s(tries))
        else:
            return


def _sqlite_engine(url: str, *, query_only: bool = False) -> Engine:
    engine = create_engine(url, connect_args={"check_same_thread": False, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA journal_size_limit=67108864")
        if query_only:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer late can fail at once; take the lock first.
        connection.exec_driver_sql("BEGIN" if query_only else "BEGIN IMMEDIATE")

    return engine
