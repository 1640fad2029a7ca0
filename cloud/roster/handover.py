"""Handing over at the end of a shift: what is open is listed by itself, the next one confirms having read it."""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from cloud.tables import alarm, call, device, duty_handover, person, work_order
from fleet.incident import AlarmState, CallState, OrderState

ITEMS_MAX: Final = 100
"""Of each sort; the counts say how many there are."""
KEPT_SHOWN: Final = 20

_OVER: Final = (
    (call, "call", {CallState.IDLE.value, CallState.CLEARED.value}, call.c.pressed_at),
    (alarm, "alarm", {AlarmState.NORMAL.value}, alarm.c.activated_at),
    (work_order, "order", {OrderState.DONE.value, OrderState.CANCELLED.value}, work_order.c.created_at),
)


def open_items(tx: Connection) -> list[dict[str, Any]]:
    """Calls, alarms and orders that are not over, oldest first: what the next one has to know."""
    found: list[dict[str, Any]] = []
    for table, sort, over, since in _OVER:
        priority = table.c.priority if "priority" in table.c else None
        columns = [table.c.id, table.c.device_id, table.c.state, since.label("since"), device.c.name]
        columns += [] if priority is None else [priority]
        columns += [work_order.c.title_zh, work_order.c.title_en] if table is work_order else []
        columns += [alarm.c.key, alarm.c.kind] if table is alarm else []
        statement = (
            select(*columns)
            .select_from(table.outerjoin(device, device.c.device_id == table.c.device_id))
            .where(table.c.state.not_in(sorted(over)), *([call.c.purpose == "help"] if table is call else []))
            .order_by(since, table.c.id)
            .limit(ITEMS_MAX)
        )
        found.extend(
            {
                "sort": sort,
                "id": row["id"],
                "device_id": row["device_id"],
                "device_name": row["name"] or row["device_id"],
                "state": row["state"],
                "since": row["since"],
                "priority": row.get("priority", "emergency"),
                "title_zh": row.get("title_zh", row.get("key", "")),
                "title_en": row.get("title_en", row.get("key", "")),
            }
            for row in tx.execute(statement).mappings()
        )
    return found


def leave(tx: Connection, identity: str, tier: str, person_id: str, note: str, now_ms: int) -> None:
    """Store a hand-over with what is open now."""
    tx.execute(
        insert(duty_handover).values(
            id=identity,
            tier=tier,
            left_by=person_id,
            left_at=now_ms,
            note=note,
            open_items=msgspec.json.encode(open_items(tx)).decode(),
        )
    )


def confirm(tx: Connection, identity: str, person_id: str, now_ms: int) -> bool:
    """Whoever confirms first has; returns whether that was this one."""
    mine = (duty_handover.c.id == identity) & duty_handover.c.confirmed_at.is_(None)
    done = tx.execute(update(duty_handover).where(mine).values(confirmed_by=person_id, confirmed_at=now_ms))
    return bool(done.rowcount)


def one(tx: Connection, identity: str) -> Row[Any] | None:
    """One hand-over with names."""
    return tx.execute(_lines().where(duty_handover.c.id == identity)).one_or_none()


def latest(tx: Connection, limit: int = KEPT_SHOWN) -> list[Row[Any]]:
    """The latest first."""
    return list(tx.execute(_lines().order_by(duty_handover.c.left_at.desc(), duty_handover.c.id).limit(limit)))


def _lines() -> Any:
    by, confirmer = person.alias("by"), person.alias("confirmer")
    joined = duty_handover.join(by, by.c.id == duty_handover.c.left_by).outerjoin(
        confirmer, confirmer.c.id == duty_handover.c.confirmed_by
    )
    names = (by.c.name.label("left_by_name"), confirmer.c.name.label("confirmed_by_name"))
    return select(*duty_handover.c, *names).select_from(joined)
