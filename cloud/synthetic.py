"""The room that is none: through it the deployment calls itself, all day, to see that the way of a call is whole.

It never appears in what people see or count, gets no alarms and no orders, and pages nobody (ADR 0024). Its device id
is taken in every deployment, so that no real room can have it.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement

ROOM: Final = "synthetic-room"
ROOM_KIND: Final = "nursing_room"
"""The kind whose calls are supervised; the room speaks its messages."""
PROBE_CHANNEL: Final = "probe"
"""Notification channel of the room's calls, and of nothing else."""


def is_synthetic(device_id: str) -> bool:
    """Whether this is the room of the deployment itself."""
    return device_id == ROOM


def is_real(device_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """SQL condition: the column names a device that people know."""
    return device_id != ROOM
