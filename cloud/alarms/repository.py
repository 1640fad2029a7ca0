"""Alarms in SQL, for reading; their only writer is dispatch, inside the pipeline's commit."""

from typing import Any

from sqlalchemy import Connection, Row, Select, select

from cloud.tables import alarm, alarm_transition, device, person, work_order
from fleet.incident import AlarmState


def _lines() -> Select[Any]:
    joined = alarm.outerjoin(device, device.c.device_id == alarm.c.device_id).outerjoin(
        person, person.c.id == alarm.c.acknowledged_by
    )
    columns = (*alarm.c, device.c.name.label("device_name"), person.c.name.label("acknowledged_by_name"))
    return select(*columns).select_from(joined)


def alarms(tx: Connection, *, wanted: dict[str, str], is_open: bool, before: int | None, limit: int) -> list[Row[Any]]:
    """Newest first. `wanted` maps columns (`state`, `kind`, `priority`, `device_id`) to values."""
    statement = _lines()
    for column, value in wanted.items():
        statement = statement.where(alarm.c[column] == value)
    if is_open:
        statement = statement.where(alarm.c.state != AlarmState.NORMAL.value)
    if before is not None:
        statement = statement.where(alarm.c.activated_at < before)
    return list(tx.execute(statement.order_by(alarm.c.activated_at.desc(), alarm.c.id).limit(limit)))


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
