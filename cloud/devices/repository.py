"""SQL of devices, twins, events, commands and quarantine: reads, and the rows that admins make."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    exists,
    false,
    func,
    insert,
    not_,
    or_,
    select,
    true,
    update,
)

from cloud.synthetic import is_real
from cloud.tables import alarm, call, command, device, event, quarantine, twin, work_order
from fleet.incident import AlarmState, CallState, OrderState

# By name, not as "anything but": so the indices find the few among all that ever were.
CALL_OPEN = call.c.state.in_([one.value for one in CallState if one not in {CallState.IDLE, CallState.CLEARED}])
ALARM_OPEN = alarm.c.state.in_([one.value for one in AlarmState if one is not AlarmState.NORMAL])
ORDER_OPEN = work_order.c.state.in_(
    [one.value for one in OrderState if one not in {OrderState.DONE, OrderState.CANCELLED}]
)
PAYLOAD_SHOWN_BYTES = 512


def is_online(heard_since: Mapping[str, int]) -> ColumnElement[bool]:
    """The link is up and something was heard; `heard_since`: kind → business ms of the oldest message that counts."""
    fresh = [and_(device.c.kind == kind, twin.c.last_heard_at >= since) for kind, since in heard_since.items()]
    # Without a twin the columns are NULL, and neither a condition nor its opposite would hold.
    return func.coalesce(and_(twin.c.online == 1, or_(*fresh, false())), false())


def count_by_kind(tx: Connection, heard_since: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Kind → (devices that are not retired, those online)."""
    rows = tx.execute(
        select(device.c.kind, func.count(), func.sum(case((is_online(heard_since), 1), else_=0)))
        .select_from(device.outerjoin(twin, twin.c.device_id == device.c.device_id))
        .where(device.c.retired_at.is_(None), is_real(device.c.device_id))
        .group_by(device.c.kind)
    )
    return {kind: (total, int(online)) for kind, total, online in rows}


def count_open(tx: Connection) -> tuple[int, int, int]:
    """Open calls, alarms and work orders."""
    return (
        tx.scalar(select(func.count()).select_from(call).where(CALL_OPEN, call.c.purpose == "help")) or 0,
        tx.scalar(select(func.count()).select_from(alarm).where(ALARM_OPEN)) or 0,
        tx.scalar(select(func.count()).select_from(work_order).where(ORDER_OPEN)) or 0,
    )


def _lines(heard_since: Mapping[str, int]) -> Select[Any]:
    calls = select(func.count()).where(call.c.device_id == device.c.device_id, CALL_OPEN).scalar_subquery()
    alarms = select(func.count()).where(alarm.c.device_id == device.c.device_id, ALARM_OPEN).scalar_subquery()
    return select(
        device,
        twin.c.state,
        twin.c.last_heard_at,
        twin.c.last_reading_at,
        twin.c.online.label("link_online"),
        twin.c.link_changed_at,
        twin.c.presence,
        is_online(heard_since).label("is_online"),
        calls.label("open_calls"),
        alarms.label("open_alarms"),
    ).select_from(device.outerjoin(twin, twin.c.device_id == device.c.device_id))


def lines(
    tx: Connection, heard_since: Mapping[str, int], *, kind: str, words: str, status: str, after: str, limit: int
) -> list[Row[Any]]:
    """Devices ordered by id. `status`: `online`, `silent`, `retired`, `alarm`, or empty for all not retired."""
    query = _lines(heard_since).where(device.c.device_id > after, is_real(device.c.device_id))
    query = query.where(device.c.retired_at.is_not(None) if status == "retired" else device.c.retired_at.is_(None))
    if kind:
        query = query.where(device.c.kind == kind)
    if words:
        query = query.where(
            or_(device.c.device_id.contains(words, autoescape=True), device.c.name.contains(words, autoescape=True))
        )
    if status == "online":
        query = query.where(is_online(heard_since))
    elif status == "silent":
        query = query.where(not_(is_online(heard_since)))
    elif status == "alarm":
        query = query.where(
            or_(
                exists().where(call.c.device_id == device.c.device_id, CALL_OPEN),
                exists().where(alarm.c.device_id == device.c.device_id, ALARM_OPEN),
            )
        )
    return list(tx.execute(query.order_by(device.c.device_id).limit(limit)))


def line(tx: Connection, heard_since: Mapping[str, int], device_id: str) -> Row[Any] | None:
    mine = (device.c.device_id == device_id) & is_real(device.c.device_id)
    return tx.execute(_lines(heard_since).where(mine)).one_or_none()


def device_row(tx: Connection, device_id: str) -> Row[Any] | None:
    return tx.execute(select(device).where(device.c.device_id == device_id)).one_or_none()


def open_calls(tx: Connection, device_id: str) -> list[Row[Any]]:
    query = select(call).where(call.c.device_id == device_id, CALL_OPEN)
    return list(tx.execute(query.order_by(call.c.pressed_at).limit(50)))


def open_alarms(tx: Connection, device_id: str) -> list[Row[Any]]:
    query = select(alarm).where(alarm.c.device_id == device_id, ALARM_OPEN)
    return list(tx.execute(query.order_by(alarm.c.activated_at).limit(50)))


def open_orders(tx: Connection, device_id: str) -> list[Row[Any]]:
    query = select(work_order).where(work_order.c.device_id == device_id, ORDER_OPEN)
    return list(tx.execute(query.order_by(work_order.c.due_at).limit(50)))


def events_of(tx: Connection, device_id: str, before: int | None, limit: int) -> list[Row[Any]]:
    """Newest first by arrival; `before` is an event's row id."""
    query = select(event).where(event.c.device_id == device_id, true() if before is None else event.c.id < before)
    return list(tx.execute(query.order_by(event.c.id.desc()).limit(limit)))


def events_after(tx: Connection, after: int, limit: int) -> list[Row[Any]]:
    """All devices' events in the order they were stored."""
    columns = (event.c.id, event.c.device_id, event.c.type, event.c.event_id, event.c.occurred_at, event.c.received_at)
    return list(
        tx.execute(
            select(*columns).where(event.c.id > after, is_real(event.c.device_id)).order_by(event.c.id).limit(limit)
        )
    )


def _commands(heard_since: Mapping[str, int]) -> Select[Any]:
    """Commands, each with whether its device can be reached (`reachable`)."""
    reachable = is_online(heard_since).label("reachable")
    return select(command, reachable).select_from(
        command.join(device, device.c.device_id == command.c.device_id).outerjoin(
            twin, twin.c.device_id == device.c.device_id
        )
    )


def commands_of(
    tx: Connection, heard_since: Mapping[str, int], device_id: str, before: int | None, limit: int,
    *, statuses: Collection[str] = (), action: str = "",
) -> list[Row[Any]]:  # fmt: skip
    """Commands of a device issued before `before`, newest first; all statuses and actions, or the named ones."""
    query = _commands(heard_since).where(command.c.device_id == device_id)
    if before is not None:
        query = query.where(command.c.issued_at < before)
    if statuses:
        query = query.where(command.c.status.in_(sorted(statuses)))
    if action:
        query = query.where(command.c.action == action)
    return list(tx.execute(query.order_by(command.c.issued_at.desc()).limit(limit)))


def command_row(tx: Connection, heard_since: Mapping[str, int], command_id: str) -> Row[Any] | None:
    return tx.execute(_commands(heard_since).where(command.c.id == command_id)).one_or_none()


def quarantined(tx: Connection, before: int | None, limit: int) -> list[Row[Any]]:
    """Newest first; `before` is a row id."""
    query = select(quarantine).where(true() if before is None else quarantine.c.id < before)
    return list(tx.execute(query.order_by(quarantine.c.id.desc()).limit(limit)))


def add_device(tx: Connection, **columns: Any) -> None:
    """Raises IntegrityError if the id is taken."""
    tx.execute(insert(device).values(**columns))


def retire(tx: Connection, device_id: str, now_ms: int) -> bool:
    """Mark as retired unless a call is open; False if a call is."""
    if open_calls(tx, device_id):
        return False
    tx.execute(
        update(device).where(device.c.device_id == device_id, device.c.retired_at.is_(None)).values(retired_at=now_ms)
    )
    return True
