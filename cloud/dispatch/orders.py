"""Work orders: made exactly once per cause, and moved along their lifecycle with all that hangs on a move."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from cloud import audit
from cloud.dispatch import reasons, service_levels
from cloud.dispatch.assignment import assign
from cloud.dispatch.rows import identity, insert_new
from cloud.dispatch.states import DISPATCHER, OPEN_STATES, OrderMove
from cloud.model import AlarmChange, NeedChange
from cloud.tables import audit as audit_lines
from cloud.tables import device, work_order, work_order_transition
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import ORDER, OrderEvent, OrderState
from fleet.kind import Need

__all__ = ["DISPATCHER", "OPEN_STATES", "OrderMove", "assign"]

_NOBODY_COMMITTED: Final = (OrderState.DISPATCHABLE.value, OrderState.ASSIGNED.value)


class NotProvenError(ValueError):
    """Work is done only after the device's code was scanned on site."""


def order_id_of(cause: str) -> str:
    """The only order that may exist for a cause."""
    return identity("order", cause)


def alarm_cause(alarm_id: str) -> str:
    """An alarm asks for one order from its activation to its end, however often it flaps."""
    return f"alarm:{alarm_id}"


def order_id_of_alarm(change: AlarmChange) -> str | None:
    """The order an alarm asks for, if it does."""
    return order_id_of(alarm_cause(change.alarm_id)) if change.definition.skill is not None else None


def need_prefix(device_id: str, cause: str) -> str:
    """What the causes of all orders for one need of one device begin with."""
    return f"need:{device_id}:{cause}:"


def for_alarms(tx: Connection, changes: Sequence[AlarmChange]) -> list[OrderMove]:
    """Make an order for each newly active alarm that asks for a skill; returns the new ones."""
    rows: list[dict[str, Any]] = []
    for change in changes:
        definition = change.definition
        if definition.skill is None:
            continue
        cause = alarm_cause(change.alarm_id)
        rows.append(
            {
                "id": order_id_of(cause),
                "cause": cause,
                "device_id": change.device_id,
                "kind": change.kind,
                "skill": definition.skill,
                "subject": definition.key,
                "title_zh": definition.title.zh,
                "title_en": definition.title.en,
                "instructions_zh": definition.action.zh,
                "instructions_en": definition.action.en,
                "items": "{}",
                "priority": definition.priority.value,
                "created_at": change.at,
                "limit_ms": round(definition.respond_within_s * MILLISECONDS_PER_SECOND),
            }
        )
    return make(tx, rows)


def for_needs(tx: Connection, changes: Sequence[NeedChange]) -> list[tuple[NeedChange, OrderMove]]:
    """Make an order for each need that has no open one; returns the needs with their new orders."""
    open_causes = _open_causes(tx, changes)
    latest = {(change.device_id, change.cause): change for change in changes}
    asking: dict[str, NeedChange] = {}
    rows: list[dict[str, Any]] = []
    for change in latest.values():
        need = change.need
        prefix = need_prefix(change.device_id, change.cause)
        if not change.wanted or need is None or any(cause.startswith(prefix) for cause in open_causes):
            continue
        cause = f"{prefix}{change.at}"  # the same need may come back after its order is done: another occurrence
        asking[order_id_of(cause)] = change
        rows.append(_row_of_need(change, need, cause))
    return [(asking[made.id], made) for made in make(tx, rows)]


def _row_of_need(change: NeedChange, need: Need, cause: str) -> dict[str, Any]:
    return {
        "id": order_id_of(cause),
        "cause": cause,
        "device_id": change.device_id,
        "kind": change.kind,
        "skill": need.skill,
        "subject": change.cause,
        "title_zh": need.title.zh,
        "title_en": need.title.en,
        "instructions_zh": "",
        "instructions_en": "",
        "items": msgspec.json.encode(dict(need.items)).decode(),
        "priority": need.priority.value,
        "created_at": change.at,
        "limit_ms": round(need.due_within_s * MILLISECONDS_PER_SECOND),
    }


def _open_causes(tx: Connection, changes: Sequence[NeedChange]) -> list[str]:
    devices = sorted({change.device_id for change in changes})
    columns = work_order.c
    return list(tx.scalars(select(columns.cause).where(columns.device_id.in_(devices), columns.state.in_(OPEN_STATES))))


def make(tx: Connection, rows: Sequence[Mapping[str, Any]], actor: str = DISPATCHER) -> list[OrderMove]:
    """Make the orders whose cause has none yet, and only them; returns the new ones, dispatchable.

    `rows` hold columns of `work_order` (`cause`, `device_id`, `kind`, `skill`, titles, `priority`, `created_at`,
    `limit_ms` …). A device that is retired gets no order: that is refused with a line in the audit.
    """
    state = OrderState.DISPATCHABLE.value
    rows = _in_service(tx, rows, actor)
    complete = []
    for asked in rows:
        row = {"id": order_id_of(asked["cause"]), "subject": "", "items": "{}", "limit_ms": 0, **asked}
        own = {"clock_from": row["created_at"], "state": state, "changed_at": row["created_at"]}
        deadlines = service_levels.deadlines(row["priority"], row["limit_ms"], row["created_at"], 0)
        complete.append({**row, **own, **deadlines})
    new = {row.id for row in insert_new(tx, work_order, complete, [work_order.c.id])}
    made = [row for row in complete if row["id"] in new]
    moves = [OrderMove(row["id"], row["device_id"], OrderState.DRAFT.value, state, None) for row in made]
    released = [
        _transition(moved, OrderEvent.RELEASE, row["created_at"], actor) for moved, row in zip(moves, made, strict=True)
    ]
    _note(tx, released)
    _mark_repeats(tx, made)
    return moves


def _in_service(tx: Connection, rows: Sequence[Mapping[str, Any]], actor: str) -> list[Mapping[str, Any]]:
    asked = sorted({row["device_id"] for row in rows})
    columns = device.c
    retired = set(
        tx.scalars(select(columns.device_id).where(columns.device_id.in_(asked), columns.retired_at.is_not(None)))
    )
    for row in rows:
        if row["device_id"] in retired:
            refuse_retired(tx, row["device_id"], row["cause"], actor, row["created_at"])
    return [row for row in rows if row["device_id"] not in retired]


def refuse_retired(tx: Connection, device_id: str, cause: str, actor: str, at: int) -> None:
    """The audit line of an order that was not made; a repeated decision adds none."""
    columns = audit_lines.c
    known = select(columns.id).where(columns.object == order_id_of(cause), columns.action == "work_order.refused")
    if tx.scalar(known.limit(1)) is None:
        detail = {"device_id": device_id, "cause": cause, "reason": "device_retired"}
        audit.record(tx, at, actor, "work_order.refused", order_id_of(cause), detail)


def _mark_repeats(tx: Connection, made: Sequence[Mapping[str, Any]]) -> None:
    """What comes back within a day after it was fixed is a repeat fault of the order that fixed it."""
    columns = work_order.c
    for row in made:
        if not row["cause"].startswith("alarm:"):
            continue
        before = tx.scalar(
            select(columns.id)
            .where(
                columns.device_id == row["device_id"],
                columns.subject == row["subject"],
                columns.id != row["id"],
                columns.done_at >= row["created_at"] - service_levels.REPEAT_WITHIN_MS,
            )
            .order_by(columns.done_at.desc())
            .limit(1)
        )
        if before is not None:
            tx.execute(update(work_order).where(columns.id == row["id"]).values(repeat_of=before))


def revive(tx: Connection, changes: Sequence[AlarmChange], at: int) -> list[OrderMove]:
    """The alarm is back although its order was closed: the same order is open again."""
    causes = [alarm_cause(change.alarm_id) for change in changes if change.definition.skill is not None]
    events = {OrderState.DONE.value: OrderEvent.REOPEN, OrderState.CANNOT_COMPLETE.value: OrderEvent.RELEASE}
    moved: list[OrderMove] = []
    if causes:
        columns = work_order.c
        rows = tx.execute(select(work_order).where(columns.cause.in_(causes), columns.state.in_(events))).all()
        for row in rows:
            again = row.done_at is not None and at - row.done_at <= service_levels.REPEAT_WITHIN_MS
            moved.append(
                move(tx, row, events[row.state], DISPATCHER, at, note="the alarm came back", reason="came_back")
            )
            if row.verified_at is not None:  # it had been fixed: this is another fault, with a clock of its own
                fresh = service_levels.deadlines(row.priority, row.limit_ms, at, 0)
                values = {"clock_from": at, "paused_ms": 0, "told_overdue": 0, "acknowledged_at": None}
                tx.execute(
                    update(work_order)
                    .where(columns.id == row.id)
                    .values(**values, **fresh, on_site_at=None, repeat_of=row.id if again else row.repeat_of)
                )
    return moved


def cancel_unwanted(tx: Connection, changes: Sequence[NeedChange], now_ms: int) -> list[OrderMove]:
    """Cancel orders whose need is gone and that nobody accepted yet; accepted ones are the crew's to close."""
    gone = {need_prefix(change.device_id, change.cause): change.at for change in changes if not change.wanted}
    if not gone:
        return []
    devices = sorted({change.device_id for change in changes if not change.wanted})
    columns = work_order.c
    rows = tx.execute(
        select(work_order).where(columns.device_id.in_(devices), columns.state.in_(_NOBODY_COMMITTED))
    ).all()
    return [
        move(tx, row, OrderEvent.CANCEL, DISPATCHER, now_ms, note="no longer needed", reason="not_needed")
        for row in rows
        if any(row.cause.startswith(prefix) and row.created_at <= at for prefix, at in gone.items())
    ]


def move(
    tx: Connection,
    order: Row[Any],
    event: OrderEvent,
    actor: str,
    at: int,
    *,
    note: str = "",
    reason: str = "",
    person_id: str = "",
) -> OrderMove:
    """One transition of one order, a whole row of `work_order`; `person_id` gives it to somebody.

    Raises:
        IllegalTransitionError: not possible in the order's state, or the order changed meanwhile.
        NotProvenError: nobody scanned the device's code since the order was (re-)opened.
    """
    after = ORDER.next(OrderState(order.state), event)
    values = _consequences(order, event, reason, at)
    if person_id:
        values["assigned_to"] = person_id
        if order.scanned_by not in {None, person_id}:  # who goes there next proves it anew
            values.update(scanned_at=None, scanned_by=None)
    columns = work_order.c
    done = tx.execute(
        update(work_order)
        .where(columns.id == order.id, columns.state == order.state)
        .values(state=after.value, changed_at=at, **values)
    )
    if done.rowcount != 1:
        from_now = tx.scalar(select(columns.state).where(columns.id == order.id))
        ORDER.next(OrderState(str(from_now)), event)  # names the state it is in now
        raise RuntimeError(f"order {order.id} changed while it was held")
    moved = OrderMove(order.id, order.device_id, order.state, after.value, person_id or order.assigned_to)
    _note(tx, [_transition(moved, event, at, actor, note=note, reason=reason)])
    return moved


def _consequences(order: Row[Any], event: OrderEvent, reason: str, at: int) -> dict[str, Any]:
    """What a move changes beside the state: the clock of the service level, the proof, the figures."""
    values: dict[str, Any] = {}
    if event is OrderEvent.ACCEPT:
        values["acknowledged_at"] = order.acknowledged_at or at
    elif event is OrderEvent.START:
        values["on_site_at"] = order.on_site_at or at
    elif event is OrderEvent.GIVE_UP:
        values["told_nobody"] = 0  # its own news: what becomes of it is for somebody to decide
    elif event is OrderEvent.HOLD and reason in reasons.HOLD_PAUSES:
        values["paused_at"] = at
    elif event is OrderEvent.COMPLETE:
        if order.scanned_at is None:
            raise NotProvenError("Scan the device's code on site first.")
        values.update(done_at=at, verify_by=at + service_levels.NORMAL_WITHIN_MS[order.skill], verified_at=None)
    elif event in {OrderEvent.REOPEN, OrderEvent.RELEASE}:
        values.update(done_at=None, verify_by=None, verified_at=None, scanned_at=None, scanned_by=None)
        if event is OrderEvent.REOPEN:
            values["reopened"] = order.reopened + 1
    if event is not OrderEvent.HOLD and order.paused_at is not None:
        paused_ms = order.paused_ms + max(0, at - order.paused_at)
        values.update(paused_at=None, paused_ms=paused_ms)
        values.update(service_levels.deadlines(order.priority, order.limit_ms, order.clock_from, paused_ms))
    return values


def set_priority(tx: Connection, order: Row[Any], priority: str, at: int) -> None:
    """Another priority brings its own service level; the clock runs on from where it began."""
    deadlines = service_levels.deadlines(priority, 0, order.clock_from, order.paused_ms)
    by = (deadlines["acknowledge_by"], deadlines["on_site_by"], deadlines["due_at"])
    told = sum(1 << bit for bit, limit in enumerate(by) if order.told_overdue & (1 << bit) and limit <= at)
    values = {"priority": priority, "limit_ms": 0, "told_overdue": told, **deadlines}
    tx.execute(update(work_order).where(work_order.c.id == order.id).values(**values))


def _transition(
    moved: OrderMove, event: OrderEvent, at: int, actor: str, *, note: str = "", reason: str = ""
) -> dict[str, Any]:
    return {
        "order_id": moved.id,
        "event": event.value,
        "before": moved.before,
        "after": moved.after,
        "at": at,
        "actor": actor,
        "note": note,
        "reason": reason,
    }


def _note(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        tx.execute(insert(work_order_transition), rows)
