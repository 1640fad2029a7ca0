"""A latched alarm asks for an inspection on site; work that was done there and verified is that inspection."""

import json
from typing import Any

from sqlalchemy import Connection, Row, select

from cloud.dispatch.rows import identity, insert_new
from cloud.signals import Topic, notify
from cloud.tables import alarm, intent
from fleet.incident import AlarmState

_LATCHED = frozenset({AlarmState.LATCHED_UNACKNOWLEDGED.value, AlarmState.LATCHED_ACKNOWLEDGED.value})


def ask_reset(tx: Connection, order: Row[Any], at: int) -> bool:
    """Put the reset of the order's alarm into the lane of its device, in this transaction; a repeat changes nothing.

    The actor is who did the work. Returns whether a reset was asked for.
    """
    origin, _, alarm_id = order.cause.partition(":")
    if origin != "alarm" or tx.scalar(select(alarm.c.state).where(alarm.c.id == alarm_id)) not in _LATCHED:
        return False
    arguments = {"alarm_id": alarm_id, "reason": f"work order {order.id} was done on site and verified"}
    row = {
        "id": identity("reset_latch", order.id, at), "device_id": order.device_id, "name": "reset_latch",
        "actor": order.assigned_to or "dispatch", "arguments": json.dumps(arguments), "at": at,
    }  # fmt: skip
    new = insert_new(tx, intent, [row], [intent.c.id])
    if new:
        notify(tx, Topic.INTENTS)
    return bool(new)
