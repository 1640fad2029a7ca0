"""Whether a device is back to normal: the second half of the proof that work was done."""

import json
from typing import Any

from sqlalchemy import Connection, Row, select

from cloud.tables import alarm, preventive_plan, twin
from fleet.incident import ALARM_TRUE

_TRUE = frozenset(state.value for state in ALARM_TRUE)


def is_normal(tx: Connection, order: Row[Any]) -> bool:
    """The alarm returned, or the need is gone, or what a preventive plan proves was seen since the order was made."""
    origin, _, rest = order.cause.partition(":")
    if origin == "alarm":
        state = tx.scalar(select(alarm.c.state).where(alarm.c.id == rest))
        return state is None or state not in _TRUE
    if origin == "need":
        needs = _desk(tx, order.device_id).get("needs") or {}
        return order.subject not in needs
    if origin == "plan":
        return _is_proven(tx, order)
    return True  # a person asked for it, and the scan is the proof


def _is_proven(tx: Connection, order: Row[Any]) -> bool:
    key = tx.scalar(select(preventive_plan.c.proves).where(preventive_plan.c.id == order.subject))
    if not key:
        return True
    held = select(alarm.c.id).where(
        alarm.c.device_id == order.device_id, alarm.c.key == key, alarm.c.state.in_(sorted(_TRUE))
    )
    if tx.scalar(held.limit(1)) is not None:
        return False
    proven_at = (_desk(tx, order.device_id).get("button") or {}).get("proven_at")
    return proven_at is None or proven_at >= order.created_at


def _desk(tx: Connection, device_id: str) -> dict[str, Any]:
    text = tx.scalar(select(twin.c.desk).where(twin.c.device_id == device_id))
    found: dict[str, Any] = json.loads(text) if text else {}
    return found
