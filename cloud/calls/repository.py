"""Calls in SQL, for reading; their only writer is dispatch, inside the pipeline's commit."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, case, select, tuple_

from cloud.api.paging import mark, older, place_of
from cloud.tables import call, call_transition, delivery_attempt, device, person, twin
from fleet.incident import CallState

HELP: Final = "help"
SYNTHETIC: Final = "synthetic"
ATTEMPTS_MAX: Final = 500
# By name, not as "anything but cleared": so the index finds the few among all that ever were.
_is_open = call.c.state.in_([state.value for state in CallState if state is not CallState.CLEARED])


def _lines() -> Select[Any]:
    joined = call.outerjoin(device, device.c.device_id == call.c.device_id).outerjoin(
        person, person.c.id == call.c.acknowledged_by
    )
    columns = (*call.c, device.c.name.label("device_name"), person.c.name.label("acknowledged_by_name"))
    return select(*columns).select_from(joined)


def calls(
    tx: Connection, *, is_open: bool | None, device_id: str | None, before: str | None, limit: int
) -> list[Row[Any]]:
    """Newest first; `is_open` False gives the history of cleared ones, None both."""
    statement = _lines().where(call.c.purpose != SYNTHETIC)
    if is_open is not None:
        statement = statement.where(_is_open if is_open else call.c.state == CallState.CLEARED.value)
    if device_id is not None:
        statement = statement.where(call.c.device_id == device_id)
    if before is not None:
        statement = statement.where(older(call.c.pressed_at, call.c.id, before))
    return list(tx.execute(statement.order_by(call.c.pressed_at.desc(), call.c.id.desc()).limit(limit)))


def open_calls(tx: Connection, after: str | None, limit: int) -> list[Row[Any]]:
    """Calls that are not cleared: those that nobody accepted first, then who has waited longest. `after` is a mark."""
    place = (case((call.c.state == CallState.CALLING.value, 0), else_=1), call.c.pressed_at, call.c.id)
    statement = _lines().where(_is_open, call.c.purpose == HELP)
    if after is not None:
        statement = statement.where(tuple_(*place) > tuple_(*place_of(after, 2)))
    return list(tx.execute(statement.order_by(*place).limit(limit)))


def urgency_of(row: Row[Any]) -> str:
    """The mark of a call in the order of `open_calls`."""
    return mark(int(row.state != CallState.CALLING.value), row.pressed_at, row.id)


def call_by_id(tx: Connection, call_id: str) -> Row[Any] | None:
    """One call, or None."""
    return tx.execute(_lines().where(call.c.id == call_id, call.c.purpose != SYNTHETIC)).one_or_none()


def steps(tx: Connection, call_ids: Sequence[str]) -> list[Row[Any]]:
    """Every step of these calls, in the order they were committed."""
    joined = call_transition.outerjoin(person, person.c.id == call_transition.c.actor)
    columns = call_transition.c
    statement = select(*columns, person.c.name.label("actor_name")).select_from(joined)
    return list(tx.execute(statement.where(columns.call_id.in_(call_ids)).order_by(columns.id)))


def attempts(tx: Connection, call_id: str) -> list[Row[Any]]:
    """Every attempt to tell somebody of this call, in their order."""
    columns = delivery_attempt.c
    joined = delivery_attempt.outerjoin(person, person.c.id == columns.recipient)
    statement = select(*columns, person.c.name.label("recipient_name")).select_from(joined)
    return list(tx.execute(statement.where(columns.reference == call_id).order_by(columns.id).limit(ATTEMPTS_MAX)))


def desks(tx: Connection, device_ids: Sequence[str]) -> dict[str, str]:
    """What the rules remember of these rooms, as JSON."""
    query = select(twin.c.device_id, twin.c.desk).where(twin.c.device_id.in_(sorted(set(device_ids))))
    return {row.device_id: row.desk for row in tx.execute(query)}
