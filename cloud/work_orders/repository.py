"""Work orders in SQL, for reading; they are written through `cloud.dispatch.orders`."""

from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, update

from cloud import audit
from cloud.dispatch.states import OPEN_STATES
from cloud.tables import (
    device,
    order_note,
    order_photo,
    person,
    preventive_plan,
    work_order,
    work_order_transition,
)


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


def device_row(tx: Connection, device_id: str) -> Row[Any] | None:
    """One device, or None."""
    return tx.execute(select(device).where(device.c.device_id == device_id)).one_or_none()


def notes(tx: Connection, order_id: str) -> list[Row[Any]]:
    """What was written down, oldest first."""
    joined = order_note.outerjoin(person, person.c.id == order_note.c.author)
    statement = select(*order_note.c, person.c.name.label("author_name")).select_from(joined)
    return list(tx.execute(statement.where(order_note.c.order_id == order_id).order_by(order_note.c.id)))


def photos(tx: Connection, order_id: str) -> list[Row[Any]]:
    """Its photos, oldest first."""
    joined = order_photo.outerjoin(person, person.c.id == order_photo.c.author)
    statement = select(*order_photo.c, person.c.name.label("author_name")).select_from(joined)
    order = (order_photo.c.at, order_photo.c.id)
    return list(tx.execute(statement.where(order_photo.c.order_id == order_id).order_by(*order)))


def plans(tx: Connection) -> list[Row[Any]]:
    """All preventive plans, by id."""
    return list(tx.execute(select(preventive_plan).order_by(preventive_plan.c.id)))


def plan(tx: Connection, plan_id: str) -> Row[Any] | None:
    """One preventive plan, or None."""
    return tx.execute(select(preventive_plan).where(preventive_plan.c.id == plan_id)).one_or_none()


def change_plan(tx: Connection, plan_id: str, wanted: dict[str, Any], actor: str, at: int) -> bool:
    """Change a preventive plan with its audit line; False if there is none."""
    before = plan(tx, plan_id)
    if before is None:
        return False
    values = {**wanted, **({"enabled": int(wanted["enabled"])} if "enabled" in wanted else {})}
    tx.execute(update(preventive_plan).where(preventive_plan.c.id == plan_id).values(**values, changed_at=at))
    detail = {"before": {name: getattr(before, name) for name in values}, "after": values}
    audit.record(tx, at, actor, "preventive_plan.change", plan_id, detail)
    return True
