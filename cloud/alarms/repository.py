"""Alarms in SQL, for reading; their only writer is dispatch, inside the pipeline's commit."""

from typing import Any, Final

from sqlalchemy import Connection, Row, Select, case, select, tuple_

from cloud.api.paging import mark, older, place_of
from cloud.tables import alarm, alarm_transition, device, person, work_order
from fleet.incident import AlarmState, Priority

_ranks: Final = {
    (priority.value, seen): number + len(Priority) * seen
    for number, priority in enumerate(Priority)
    for seen in (False, True)
}
_is_seen = alarm.c.state == AlarmState.ACKNOWLEDGED.value
_rank = case(
    *(
        ((alarm.c.priority == priority) & (_is_seen if seen else ~_is_seen), rank)
        for (priority, seen), rank in _ranks.items()
    ),
    else_=len(_ranks),
)


def _lines() -> Select[Any]:
    joined = alarm.outerjoin(device, device.c.device_id == alarm.c.device_id).outerjoin(
        person, person.c.id == alarm.c.acknowledged_by
    )
    columns = (*alarm.c, device.c.name.label("device_name"), person.c.name.label("acknowledged_by_name"))
    return select(*columns).select_from(joined)


def alarms(tx: Connection, *, wanted: dict[str, str], is_open: bool, before: str | None, limit: int) -> list[Row[Any]]:
    """Newest first. `wanted` maps columns (`state`, `kind`, `priority`, `device_id`) to values."""
    statement = _lines()
    for column, value in wanted.items():
        statement = statement.where(alarm.c[column] == value)
    if is_open:
        statement = statement.where(alarm.c.state != AlarmState.NORMAL.value)
    if before is not None:
        statement = statement.where(older(alarm.c.activated_at, alarm.c.id, before))
    return list(tx.execute(statement.order_by(alarm.c.activated_at.desc(), alarm.c.id.desc()).limit(limit)))


def open_alarms(tx: Connection, after: str | None, limit: int) -> list[Row[Any]]:
    """What is not back to normal, in the order in which it needs people: see `urgency_of`. `after` is a mark of it."""
    place = (_rank, -alarm.c.activated_at, alarm.c.id)
    statement = _lines().where(alarm.c.state != AlarmState.NORMAL.value)
    if after is not None:
        rank, activated_at, alarm_id = place_of(after, 2)
        statement = statement.where(tuple_(*place) > tuple_(rank, -activated_at, alarm_id))
    return list(tx.execute(statement.order_by(*place).limit(limit)))


def urgency_of(row: Row[Any]) -> str:
    """The mark of an open alarm: what nobody has seen first, then by priority, then the newest."""
    return mark(_ranks[row.priority, row.state == AlarmState.ACKNOWLEDGED.value], row.activated_at, row.id)


def alarm_by_id(tx: Connection, alarm_id: str) -> Row[Any] | None:
    """One alarm, or None."""
    return tx.execute(_lines().where(alarm.c.id == alarm_id)).one_or_none()


def transitions(tx: Connection, alarm_id: str) -> list[Row[Any]]:
    """Its history, oldest first."""
    columns = alarm_transition.c
    return list(tx.execute(select(alarm_transition).where(columns.alarm_id == alarm_id).order_by(columns.id)))


def order_of(tx: Connection, cause: str) -> str | None:
    """The work order made for a cause."""
    found: str | None = tx.scalar(select(work_order.c.id).where(work_order.c.cause == cause))
    return found
