"""PostgreSQL tells this process that another one committed something: LISTEN (decision 13).

Only roles in separate processes need it; within one process an event does. Polling stays the backstop,
so a lost connection delays and loses nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import psycopg
import structlog
from psycopg import sql
from sqlalchemy.engine import make_url

from cloud.dispatch.notices import WAKE_CHANNEL
from fleet.randomness import Randomness

log = structlog.get_logger(__name__)

RECONNECT_S_MAX: Final = 15.0


async def listen(database_url: str, wake: Callable[[], None], randomness: Randomness) -> None:
    """Call `wake` for each notice on the outbox's channel, until cancelled; reconnect with full jitter."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(WAKE_CHANNEL)))
                wake()  # for what was committed while nobody listened
                async for _ in connection.notifies():
                    wake()
        except psycopg.OperationalError as error:
            log.warning("outbox_listener_lost", error=str(error))
        await asyncio.sleep(randomness.uniform(0.0, RECONNECT_S_MAX))
