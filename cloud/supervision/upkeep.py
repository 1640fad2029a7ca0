"""The deployment's own room: made where it is wanted, and its traces removed after an hour."""

import asyncio
from typing import Final

from sqlalchemy import Connection, delete, select

from cloud.dispatch.rows import insert_new
from cloud.ports import Database
from cloud.synthetic import PROBE_CHANNEL, ROOM, ROOM_KIND
from cloud.tables import call, call_transition, device, event, outbox
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.incident import CallState

KEPT_S: Final = 3_600.0
BATCH_ROWS: Final = 500
EVERY_S: Final = 60.0


def ensure_room(tx: Connection, now_ms: int) -> None:
    """Enrol the synthetic room; again it changes nothing."""
    row = {"device_id": ROOM, "kind": ROOM_KIND, "name": "synthetic", "enrolled_at": now_ms}
    insert_new(tx, device, [row], [device.c.device_id])


def prune(tx: Connection, now_ms: int) -> int:
    """Delete a batch of old traces of synthetic calls that are cleared; returns the rows."""
    before_ms = now_ms - round(KEPT_S * MILLISECONDS_PER_SECOND)
    over = (call.c.purpose == "synthetic") & (call.c.state == CallState.CLEARED.value) & (call.c.changed_at < before_ms)
    ids = list(tx.scalars(select(call.c.id).where(over).limit(BATCH_ROWS)))
    rows = 0
    if ids:
        rows += tx.execute(delete(call_transition).where(call_transition.c.call_id.in_(ids))).rowcount
        rows += tx.execute(delete(call).where(call.c.id.in_(ids), over)).rowcount
    old_events = select(event.c.id).where(event.c.device_id == ROOM, event.c.received_at < before_ms).limit(BATCH_ROWS)
    rows += tx.execute(delete(event).where(event.c.id.in_(list(tx.scalars(old_events))))).rowcount
    # Also those that nobody took: without a probe address they would wait for ever.
    old = (outbox.c.channel == PROBE_CHANNEL) & (outbox.c.created_at < before_ms)
    old_rows = select(outbox.c.id).where(old).limit(BATCH_ROWS)
    return rows + tx.execute(delete(outbox).where(outbox.c.id.in_(list(tx.scalars(old_rows))))).rowcount


async def keep_room(database: Database, clock: Clock) -> None:
    """Make the room, then prune its traces until cancelled."""
    await database.write(lambda tx: ensure_room(tx, clock.now_ms()))
    while True:
        while await database.write(lambda tx: prune(tx, clock.now_ms())) >= BATCH_ROWS:
            continue
        await asyncio.sleep(EVERY_S)
