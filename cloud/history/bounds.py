"""Deletes once a day what is done and old, in small batches; nothing that is open, no money, no audit."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, Connection, Table, delete, exists, func, select, tuple_

from cloud.ports import Database
from cloud.tables import (
    command,
    command_step,
    delivery_attempt,
    event,
    history_mark,
    idempotency,
    inbox,
    intent,
    outbox,
    proof_test,
    ride_step,
    session,
)
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.messages import FINAL_REPLIES

_log = structlog.get_logger(__name__)

DAY_S: Final = 86_400
DELIVERY_DAYS: Final = 90
FIRST_AFTER_S: Final = 300
"""Real seconds after a start: also a process that is restarted every night keeps its bounds."""
BATCH_ROWS: Final = 500
_ENDED: Final = tuple(status.value for status in FINAL_REPLIES)


@dataclass(frozen=True, slots=True)
class _Rule:
    table: Table
    old: ColumnElement[bool]


def rules(now_ms: int, history_days: int, queue_days: int, delivery_days: int = DELIVERY_DAYS) -> list[_Rule]:
    """What may go at `now_ms`."""
    history_ms = now_ms - history_days * DAY_S * MILLISECONDS_PER_SECOND
    delivery_ms = now_ms - delivery_days * DAY_S * MILLISECONDS_PER_SECOND
    queue_ms = now_ms - queue_days * DAY_S * MILLISECONDS_PER_SECOND
    # The last notice of an outage says whether it was announced: those few rows stay.
    remembered = outbox.c.reference.startswith("channel:") | outbox.c.reference.startswith("condition:")
    # When a button was last shown to work is known for as long as the button is there.
    later = proof_test.alias()
    is_later = (later.c.device_id == proof_test.c.device_id) & (later.c.passed == 1) & (later.c.id > proof_test.c.id)
    # Steps that are in the series by now; without a series nobody follows them, and they go with the history.
    steps = [
        _Rule(log, ((log.c.at < queue_ms) & (log.c.id <= _followed(log))) | (log.c.at < history_ms))
        for log in (ride_step, command_step)
    ]
    return [
        *steps,
        _Rule(event, event.c.received_at < history_ms),
        _Rule(command, (command.c.changed_at < history_ms) & command.c.status.in_(_ENDED)),
        _Rule(outbox, ((outbox.c.delivered_at < queue_ms) | (outbox.c.given_up_at < queue_ms)) & ~remembered),
        _Rule(delivery_attempt, delivery_attempt.c.at < delivery_ms),
        _Rule(proof_test, (proof_test.c.received_at < history_ms) & exists().where(is_later)),
        _Rule(inbox, inbox.c.created_at < queue_ms),
        _Rule(intent, intent.c.done_at < queue_ms),
        _Rule(idempotency, (idempotency.c.created_at < queue_ms) & idempotency.c.status.is_not(None)),
        _Rule(session, session.c.expires_at < now_ms),
    ]


def _followed(log: Table) -> ColumnElement[Any]:
    mark = select(history_mark.c.position).where(history_mark.c.name == log.name)
    return func.coalesce(mark.scalar_subquery(), 0)


async def keep_bounds(
    database: Database, clock: Clock, history_days: int, queue_days: int, delivery_days: int = DELIVERY_DAYS
) -> None:
    """Prune every business day until cancelled."""
    await asyncio.sleep(FIRST_AFTER_S)
    while True:
        await prune(database, clock, history_days, queue_days, delivery_days)
        await asyncio.sleep(DAY_S / clock.speed)


async def prune(
    database: Database, clock: Clock, history_days: int, queue_days: int, delivery_days: int = DELIVERY_DAYS
) -> dict[str, int]:
    """Prune once; rows deleted by table. Searching is reading, so that writers wait for short deletes only."""
    deleted: dict[str, int] = {}
    for rule in rules(clock.now_ms(), history_days, queue_days, delivery_days):
        keys = list(rule.table.primary_key.columns)

        def find(tx: Connection, rule: _Rule = rule, keys: list[Any] = keys) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in tx.execute(select(*keys).where(rule.old).limit(BATCH_ROWS))]

        while found := await database.read(find):

            def remove(
                tx: Connection, rule: _Rule = rule, keys: list[Any] = keys, found: list[tuple[Any, ...]] = found
            ) -> int:
                return tx.execute(delete(rule.table).where(tuple_(*keys).in_(found), rule.old)).rowcount

            count = await database.write(remove)
            deleted[rule.table.name] = deleted.get(rule.table.name, 0) + count
            if not count:
                break  # somebody else was faster
    if deleted:
        _log.info("old rows deleted", rows=deleted)
    return deleted
