"""What the database says about a synthetic press that did not come back. The watchdog asks, not the cloud."""

from sqlalchemy import Connection, select

from cloud.supervision.chain import Delivery
from cloud.synthetic import PROBE_CHANNEL
from cloud.tables import call_transition, outbox


def delivery_of(tx: Connection, event_id: str) -> Delivery | None:
    """The outbox row of that press, or None: not committed, or nothing was planned for it."""
    call_id = tx.scalar(select(call_transition.c.call_id).where(call_transition.c.event_id == event_id))
    if call_id is None:
        return None
    mine = (outbox.c.channel == PROBE_CHANNEL) & (outbox.c.reference == call_id)
    row = tx.execute(select(outbox).where(mine).order_by(outbox.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else Delivery(attempts=row.attempts, error=row.last_error or "")


def may_write(tx: Connection) -> None:
    """Raises what a commit would meet: on SQLite the transaction has taken the write lock by now."""
    tx.execute(select(outbox.c.id).limit(1))
