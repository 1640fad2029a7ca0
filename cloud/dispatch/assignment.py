"""Who gets which work order: by skill, distance and load, among those who are on duty now."""

from collections import Counter
from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, case, func, insert, select, update

from cloud.dispatch import whereabouts
from cloud.dispatch.states import DISPATCHER, OPEN_STATES, OrderMove
from cloud.geography import Point, StraightLine, TravelTimes
from cloud.roster.duty import OnDuty, crew_on_duty
from cloud.tables import work_order, work_order_transition
from fleet.incident import OrderEvent, OrderState

ASSIGNED_AT_ONCE_MAX: Final = 1000
JOB_S: Final = 900
"""What one more open order counts like, in seconds of travel."""
UNKNOWN_TRAVEL_S: Final = 1200
SAME_PERSON_BONUS_S: Final = 600
"""Who was there before knows the way and the fault."""
POSITION_AGE_MS_MAX: Final = 4 * 3_600_000
_NOT_LOADING: Final = (OrderState.DRAFT.value, OrderState.DISPATCHABLE.value, OrderState.ON_HOLD.value)

_give = (
    update(work_order)
    .where(work_order.c.id == bindparam("b_id"), work_order.c.state == bindparam("b_before"))
    .values(
        state=OrderState.ASSIGNED.value,
        changed_at=bindparam("b_at"),
        assigned_to=bindparam("b_person"),
        told_nobody=0,
        # Who goes there next proves it anew.
        scanned_at=case((work_order.c.scanned_by == bindparam("b_person"), work_order.c.scanned_at)),
        scanned_by=case((work_order.c.scanned_by == bindparam("b_person"), work_order.c.scanned_by)),
    )
)


def assign(tx: Connection, at: int, travel: TravelTimes | None = None) -> list[OrderMove]:
    """Give every dispatchable order to who is best placed for it, the most urgent first.

    An order for which nobody on duty has the skill stays dispatchable; the next call finds it.
    """
    columns = work_order.c
    waiting = tx.execute(
        select(work_order)
        .where(columns.state == OrderState.DISPATCHABLE.value)
        .order_by(columns.due_at, columns.id)
        .limit(ASSIGNED_AT_ONCE_MAX)
        .with_for_update(skip_locked=True)
    ).all()
    on_duty = crew_on_duty(tx, at) if waiting else []
    return _give_out(tx, waiting, on_duty, at, travel or StraightLine(), "") if on_duty else []


def take_over(tx: Connection, at: int) -> list[OrderMove]:
    """Orders that nobody accepted and whose person is no longer on duty go to somebody who is."""
    columns = work_order.c
    assigned = tx.execute(
        select(work_order).where(columns.state == OrderState.ASSIGNED.value).order_by(columns.due_at, columns.id)
    ).all()
    on_duty = crew_on_duty(tx, at) if assigned else []
    here = {one.person_id for one in on_duty}
    left = [
        order for order in assigned if order.assigned_to not in here and any(order.skill in p.skills for p in on_duty)
    ]
    return _give_out(tx, left, on_duty, at, StraightLine(), "off_duty") if left else []


def _give_out(
    tx: Connection, orders: Collection[Row[Any]], on_duty: list[OnDuty], at: int, travel: TravelTimes, reason: str
) -> list[OrderMove]:
    places = whereabouts.of_devices(tx, {order.device_id for order in orders})
    people = whereabouts.of_people(tx, {one.person_id for one in on_duty}, at - POSITION_AGE_MS_MAX)
    load = _load(tx, [one.person_id for one in on_duty])
    moves = []
    for order in orders:
        able = [one.person_id for one in on_duty if order.skill in one.skills]
        if not able:
            continue
        there = places.get(order.device_id)

        def cost(
            person_id: str, there: Point | None = there, before: str | None = order.assigned_to
        ) -> tuple[int, str]:
            here = people.get(person_id)
            way_s = travel.travel_s(here, there) if here and there else UNKNOWN_TRAVEL_S
            bonus_s = SAME_PERSON_BONUS_S if person_id == before else 0
            return way_s + load[person_id] * JOB_S - bonus_s, person_id

        person_id = min(map(cost, able))[1]
        load[person_id] += 1
        moves.append(OrderMove(order.id, order.device_id, order.state, OrderState.ASSIGNED.value, person_id))
    if moves:
        tx.execute(_give, [{"b_id": m.id, "b_before": m.before, "b_at": at, "b_person": m.assigned_to} for m in moves])
        tx.execute(
            insert(work_order_transition),
            [
                {
                    "order_id": moved.id, "event": OrderEvent.ASSIGN.value, "before": moved.before,
                    "after": moved.after, "at": at, "actor": DISPATCHER, "note": "", "reason": reason,
                }
                for moved in moves
            ],
        )  # fmt: skip
    return moves


def _load(tx: Connection, person_ids: Collection[str]) -> Counter[str]:
    columns = work_order.c
    busy = tx.execute(
        select(columns.assigned_to, func.count())
        .where(columns.assigned_to.in_(person_ids), columns.state.in_(OPEN_STATES), columns.state.not_in(_NOT_LOADING))
        .group_by(columns.assigned_to)
    )
    return Counter({row[0]: row[1] for row in busy})
