"""One at a time among all processes on one database, for work whose effects lie outside of it.

SQLite has one process (decision 11). On PostgreSQL it is a session's advisory lock: it ends with the connection, so a
killed process holds up nobody.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import Connection, func, select

from cloud.adapters.sql.database import SqlDatabase

POLL_S: Final = 0.2
ROLLUP: Final = 0x526F6C6C
"""Key of the lock under which the series is rolled up."""


@asynccontextmanager
async def one_at_a_time(database: SqlDatabase, key: int) -> AsyncIterator[None]:
    """Held inside; waits for its turn. Raises what the database raises while it is away."""
    if database.is_sqlite:
        yield
        return
    connection = await asyncio.to_thread(_connect, database)
    try:
        while not await asyncio.to_thread(_take, connection, key):  # noqa: ASYNC110  # another process holds it
            await asyncio.sleep(POLL_S)
        try:
            yield
        finally:
            await asyncio.to_thread(_give_back, connection, key)
    finally:
        await asyncio.to_thread(connection.close)


def _connect(database: SqlDatabase) -> Connection:
    return database.reader.connect().execution_options(isolation_level="AUTOCOMMIT")


def _take(connection: Connection, key: int) -> bool:
    return bool(connection.scalar(select(func.pg_try_advisory_lock(key))))


def _give_back(connection: Connection, key: int) -> None:
    connection.scalar(select(func.pg_advisory_unlock(key)))
