"""`cloud.ports.LaneIntents`: what people do to a device's state enters its lane as a message (decision 10)."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select, update

from cloud.model import Intent
from cloud.ports import Database, IntentRefusedError
from cloud.signals import Topic, notify
from cloud.tables import intent
from fleet.clock import Clock

ANSWER_WITHIN_S: Final = 20.0
POLL_S: Final = 0.5
"""Real seconds between looks at the row: the backstop when the lane is owned by another process."""


class IntentDesk:
    """Takes acts of people, waits until the owner of the lane has committed them."""

    def __init__(self, database: Database, clock: Clock, new_id: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._waiting: dict[str, asyncio.Event] = {}
        self.on_submitted: Callable[[], None] = lambda: None
        """Set by the pipeline of this process."""

    async def submit(self, device_id: str, name: str, actor: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Put an act into the device's lane and wait for its commit; see `cloud.ports.LaneIntents`."""
        intent_id = self._new_id()
        row = {
            "id": intent_id,
            "device_id": device_id,
            "name": name,
            "actor": actor,
            "arguments": json.dumps(arguments),
            "at": self._clock.now_ms(),
        }
        committed = self._waiting[intent_id] = asyncio.Event()
        try:
            await self._database.write(lambda tx: _put(tx, row))
            self.on_submitted()
            async with asyncio.timeout(ANSWER_WITHIN_S):
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await committed.wait()
                    committed.clear()
                    found = await self._database.read(lambda tx: _answer(tx, intent_id))
                    if found is not None:
                        break
        except TimeoutError:
            # Nobody is to act on it when the asker is long gone.
            await self._database.write(lambda tx: _withdraw(tx, intent_id, self._clock.now_ms()))
            raise IntentRefusedError("the ingester did not answer in time; look again before you repeat it") from None
        finally:
            del self._waiting[intent_id]
        answer, refused = found
        if refused is not None:
            raise IntentRefusedError(refused)
        result: dict[str, Any] = msgspec.json.decode(answer)
        return result

    def settled(self, answers: Sequence[tuple[Intent, str | None, str | None]]) -> None:
        """Called by the pipeline after its commit."""
        for item, _, _ in answers:
            event = self._waiting.get(item.id)
            if event is not None:
                event.set()

    def answered(self, ids: str | None) -> None:
        """Another process committed these (joined by spaces); None: it may have been any."""
        for intent_id in list(self._waiting) if ids is None else ids.split():
            event = self._waiting.get(intent_id)
            if event is not None:
                event.set()


def _put(tx: Connection, row: dict[str, Any]) -> None:
    tx.execute(intent.insert().values(row))
    notify(tx, Topic.INTENTS)


def _withdraw(tx: Connection, intent_id: str, at: int) -> None:
    waiting = (intent.c.id == intent_id) & intent.c.done_at.is_(None)
    tx.execute(update(intent).where(waiting).values(refused="withdrawn", done_at=at))


def _answer(tx: Connection, intent_id: str) -> tuple[str, str | None] | None:
    query = select(intent.c.answer, intent.c.refused, intent.c.done_at).where(intent.c.id == intent_id)
    row = tx.execute(query).first()
    return None if row is None or row.done_at is None else (row.answer or "{}", row.refused)
