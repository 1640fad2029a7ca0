"""`cloud.ports.Signals` by LISTEN and NOTIFY on PostgreSQL.

Two connections, each kept by its own task: one listens, one says what has no transaction to say it in. After a
reconnect every listener is told that it may have missed something. Polling stays the backstop, so a lost
connection delays and loses nothing.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Final

import psycopg
import structlog
from psycopg import sql
from sqlalchemy.engine import make_url

from cloud.metrics import SIGNALS_DROPPED
from cloud.signals import PAYLOAD_BYTES_MAX, Heard, Topic
from fleet.randomness import Randomness

_log = structlog.get_logger(__name__)

RECONNECT_S_MAX: Final = 5.0
WAITING_MAX: Final = 1000
"""Payloads that wait to be said; at the bound the listeners of their topics are told that they missed some."""
KEEPALIVE_S: Final = 10
_MISSED: Final = "!"


class PostgresSignals:
    """One instance per process. All methods belong to the event loop's thread."""

    def __init__(self, database_url: str, name: str, randomness: Randomness) -> None:
        """`name` tells this process from all others and holds no space."""
        self._url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._name = name
        self._randomness = randomness
        self._heard: defaultdict[Topic, list[Heard]] = defaultdict(list)
        self._waiting: deque[tuple[Topic, str]] = deque()
        self._something_waits = asyncio.Event()
        self.listening = asyncio.Event()

    def subscribe(self, topic: Topic, heard: Heard) -> None:
        """Hear what other processes say; to be called before `run`."""
        self._heard[topic].append(heard)

    def publish(self, topic: Topic, payload: str) -> None:
        """Tell other processes soon; never blocks. For what is not part of a transaction (else `signals.notify`)."""
        if len(payload.encode()) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a signal of {len(payload.encode())} bytes; at most {PAYLOAD_BYTES_MAX} can be sent")
        if len(self._waiting) >= WAITING_MAX:
            SIGNALS_DROPPED.inc(len(self._waiting))
            topics = dict.fromkeys([topic for topic, _ in self._waiting])
            self._waiting = deque((topic, _MISSED) for topic in topics)
        self._waiting.append((topic, payload))
        self._something_waits.set()

    async def run(self) -> None:
        """Listen and say until cancelled; reconnects with full jitter, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(self._listen))
            group.create_task(self._keep(self._say))

    async def _keep(self, work: Callable[[psycopg.AsyncConnection], Awaitable[None]]) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, keepalives_idle=KEEPALIVE_S, keepalives_interval=2, keepalives_count=3
                ) as connection:
                    await work(connection)
            except psycopg.OperationalError as error:
                _log.warning("signals lost, polling goes on", error=str(error))
            await asyncio.sleep(self._randomness.uniform(0.0, RECONNECT_S_MAX))

    async def _listen(self, connection: psycopg.AsyncConnection) -> None:
        try:
            for topic in self._heard:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(topic.value)))
            for topic in self._heard:
                self._tell(topic, None)  # for what was said while nobody listened
            self.listening.set()
            async for notice in connection.notifies():
                self._take(Topic(notice.channel), notice.payload)
        finally:
            self.listening.clear()

    def _take(self, topic: Topic, payload: str) -> None:
        name, _, said = payload.partition(" ")
        if name != self._name:  # what we publish was told here before we said it
            self._tell(topic, None if said == _MISSED else said)

    def _tell(self, topic: Topic, payload: str | None) -> None:
        for heard in self._heard[topic]:
            heard(payload)

    async def _say(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            while not self._waiting:
                self._something_waits.clear()
                await self._something_waits.wait()
            batch = list(self._waiting)
            rows = [(topic.value, f"{self._name} {payload}") for topic, payload in batch]
            async with connection.cursor() as cursor, connection.transaction():
                await cursor.executemany("SELECT pg_notify(%s, %s)", rows)
            for said in batch:
                if self._waiting and self._waiting[0] is said:
                    self._waiting.popleft()
