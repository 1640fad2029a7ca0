"""Work orders: made exactly once per cause, moved along their lifecycle, given to a member of the crew."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from cloud.dispatch.rows import identity, insert_new
from cloud.model import AlarmChange, NeedChange
from cloud.tables import person, work_order, work_order_transition
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import ORDER, OrderEvent, OrderState
from fleet.kind import Need

DISPATCHER: Final = "dispatch"
"""Actor of the transitions that no person asked for."""

OPEN_STATES: Final = tuple(
    state.value
    for state in OrderState
    if state not in {OrderState.DONE, OrderState.CANNOT_COMPLETE, OrderState.CANCELLED}
)
_NOBODY_COMMITTED: Final = (OrderState.DISPATCHABLE.value, OrderState.ASSIGNED.value)
_ASSIGNED_AT_ONCE_MAX: Final = 1000

_move = (
    update(work_order)
    .where(work_order.c.id == bindparam("b_id"), work_order.c.state == bindparam("b_before"))
    .values(state=bindparam("b_after"), changed_at=bindparam("b_at"))
)
_give = _move.values(assigned_to=bindparam("b_person"))


@dataclass(frozen=True, slots=True)
class OrderMove:
    """One transition of one order, for whoever shows it."""

    id: str
    device_id: str
    before: str
    after: str
    assigned_to: str | None


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
                "title_zh": definition.title.zh,
                "title_en": definition.title.en,
                "instructions_zh": definition.action.zh,
                "instructions_en": definition.action.en,
                "items": "{}",
                "priority": definition.priority.value,
                "created_at": change.at,
                "due_at": change.at + round(definition.respond_within_s * MILLISECONDS_PER_SECOND),
            }
        )
    return _make(tx, rows)


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
    return [(asking[made.id], made) for made in _make(tx, rows)]


def _row_of_need(change: NeedChange, need: Need, cause: str) -> dict[str, Any]:
    return {
        "id": order_id_of(cause),
        "cause": cause,
        "device_id": change.device_id,
        "kind": change.kind,
        "skill": need.skill,
        "title_zh": need.title.zh,
        "title_en": need.title.en,
        "instructions_zh": "",
        "instructions_en": "",
        "items": msgspec.json.encode(dict(need.items)).decode(),
        "priority": need.priority.value,
        "created_at": change.at,
        "due_at": change.at + round(need.due_within_s * MILLISECONDS_PER_SECOND),
    }


def _open_causes(tx: Connection, changes: Sequence[NeedChange]) -> list[str]:
    devices = sorted({change.device_id for change in changes})
    columns = work_order.c
    return list(tx.scalars(select(columns.cause).where(columns.device_id.in_(devices), columns.state.in_(OPEN_STATES))))


def _make(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> list[OrderMove]:
    state = OrderState.DISPATCHABLE.value
    complete = [{**row, "state": state, "changed_at": row["created_at"]} for row in rows]
    new = {row.id for row in insert_new(tx, work_order, complete, [work_order.c.id])}
    made = [row for row in rows if row["id"] in new]
    moves = [OrderMove(row["id"], row["device_id"], OrderState.DRAFT.value, state, None) for row in made]
    released = [
        _transition(moved, OrderEvent.RELEASE, row["created_at"], DISPATCHER)
        for moved, row in zip(moves, made, strict=True)
    ]
    _note(tx, released)
    return moves


def revive(tx: Connection, changes: Sequence[AlarmChange], at: int) -> list[OrderMove]:
    """The alarm is back although its order was closed: the same order is open again."""
    causes = [alarm_cause(change.alarm_id) for change in changes if change.definition.skill is not None]
    events = {OrderState.DONE.value: OrderEvent.REOPEN, OrderState.CANNOT_COMPLETE.value: OrderEvent.RELEASE}
    moved: list[OrderMove] = []
    if causes:
        columns = work_order.c
        rows = tx.execute(select(work_order).where(columns.cause.in_(causes), columns.state.in_(events))).all()
        moved += [move(tx, row, events[row.state], DISPATCHER, at, note="the alarm came back") for row in rows]
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
        move(tx, row, OrderEvent.CANCEL, DISPATCHER, now_ms, note="no longer needed")
        for row in rows
        if any(row.cause.startswith(prefix) and row.created_at <= at for prefix, at in gone.items())
    ]


def move(
    tx: Connection, order: Row[Any], event: OrderEvent, actor: str, at: int, *, note: str = "", person_id: str = ""
) -> OrderMove:
    """One transition of one order; `person_id` gives it to somebody.

    Raises:
        IllegalTransitionError: not possible in the order's state, or the order changed meanwhile.
    """
    after = ORDER.next(OrderState(order.state), event)
    values = {"b_id": order.id, "b_before": order.state, "b_after": after.value, "b_at": at}
    done = tx.execute(_give, {**values, "b_person": person_id}) if person_id else tx.execute(_move, values)
    if done.rowcount != 1:
        from_now = tx.scalar(select(work_order.c.state).where(work_order.c.id == order.id))
        ORDER.next(OrderState(str(from_now)), event)  # names the state it is in now
        raise RuntimeError(f"order {order.id} changed while it was held")
    moved = OrderMove(order.id, order.device_id, order.state, after.value, person_id or order.assigned_to)
    _note(tx, [_transition(moved, event, at, actor, note=note)])
    return moved


def assign(tx: Connection, at: int) -> list[OrderMove]:
    """Give every dispatchable order to the crew member with the fewest open ones, the most urgent order first.

    Without a crew the orders stay dispatchable; the next call finds them.
    """
    columns = work_order.c
    waiting = tx.execute(
        select(columns.id, columns.device_id, columns.state, columns.assigned_to)
        .where(columns.state == OrderState.DISPATCHABLE.value)
        .order_by(columns.due_at, columns.id)
        .limit(_ASSIGNED_AT_ONCE_MAX)
        .with_for_update(skip_locked=True)
    ).all()
    crew = _open_orders_by_person(tx) if waiting else []
    if not crew:
        return []
    heapq.heapify(crew)
    moves: list[OrderMove] = []
    for order in waiting:
        count, person_id = heapq.heappop(crew)
        heapq.heappush(crew, (count + 1, person_id))
        moves.append(OrderMove(order.id, order.device_id, order.state, OrderState.ASSIGNED.value, person_id))
    tx.execute(
        _give,
        [
            {
                "b_id": moved.id,
                "b_before": moved.before,
                "b_after": moved.after,
                "b_at": at,
                "b_person": moved.assigned_to,
            }
            for moved in moves
        ],
    )
    _note(tx, [_transition(moved, OrderEvent.ASSIGN, at, DISPATCHER) for moved in moves])
    return moves


def _open_orders_by_person(tx: Connection) -> list[tuple[int, str]]:
    crew = tx.scalars(select(person.c.id).where(person.c.role == "crew", person.c.disabled_at.is_(None))).all()
    columns = work_order.c
    busy = tx.execute(
        select(columns.assigned_to, func.count())
        .where(
            columns.assigned_to.in_(crew),
            columns.state.in_(OPEN_STATES),
            columns.state != OrderState.DISPATCHABLE.value,
        )
        .group_by(columns.assigned_to)
    )
    counts: Counter[str] = Counter({row[0]: row[1] for row in busy})
    return [(counts[person_id], person_id) for person_id in crew]


def _transition(moved: OrderMove, event: OrderEvent, at: int, actor: str, *, note: str = "") -> dict[str, Any]:
    return {
        "order_id": moved.id,
        "event": event.value,
        "before": moved.before,
        "after": moved.after,
        "at": at,
        "actor": actor,
        "note": note,
    }


def _note(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        tx.execute(insert(work_order_transition), rows)
