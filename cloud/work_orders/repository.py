"""Work orders in SQL, for reading; they are written through `cloud.dispatch.orders`."""

from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from cloud.dispatch.orders import OPEN_STATES
from cloud.tables import device, person, work_order, work_order_transition


def _lines() -> Select[Any]:
    joined = work_order.outerjoin(device, device.c.device_id == work_order.c.device_id).outerjoin(
        person, person.c.id == work_order.c.assigned_to
    )
    columns = (
        *work_order.c,
        device.c.name.label("device_name"),
        device.c.latitude,
        device.c.longitude,
        person.c.name.label("assigned_to_name"),
    )
    return select(*columns).select_from(joined)


def orders(
    tx: Connection, *, wanted: dict[str, str], is_open: bool, limit: int, offset: int = 0
) -> tuple[list[Row[Any]], int]:
    """The most pressing first, and how many match. `wanted` maps columns to values."""
    conditions = [work_order.c[column] == value for column, value in wanted.items()]
    if is_open:
        conditions.append(work_order.c.state.in_(OPEN_STATES))
    statement = _lines().where(*conditions).order_by(work_order.c.due_at, work_order.c.id)
    total = tx.scalar(select(func.count()).select_from(work_order).where(*conditions)) or 0
    return list(tx.execute(statement.limit(limit).offset(offset))), total


def order_by_id(tx: Connection, order_id: str) -> Row[Any] | None:
    """One order, or None."""
    return tx.execute(_lines().where(work_order.c.id == order_id)).one_or_none()


def order_for_change(tx: Connection, order_id: str) -> Row[Any] | None:
    """One order, locked until the transaction ends."""
    return tx.execute(select(work_order).where(work_order.c.id == order_id).with_for_update()).one_or_none()


def transitions(tx: Connection, order_id: str) -> list[Row[Any]]:
    """Its history, oldest first."""
    columns = work_order_transition.c
    joined = work_order_transition.outerjoin(person, person.c.id == columns.actor)
    statement = select(*columns, person.c.name.label("actor_name")).select_from(joined)
    return list(tx.execute(statement.where(columns.order_id == order_id).order_by(columns.id)))


def is_crew(tx: Connection, person_id: str) -> bool:
    """Whether somebody is a member of the crew whose account is open."""
    row = tx.execute(select(person.c.role, person.c.disabled_at).where(person.c.id == person_id)).one_or_none()
    return row is not None and row.role == "crew" and row.disabled_at is None
