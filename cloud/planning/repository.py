"""Plans in SQL: rounds, stops, and the assignments that follow from them."""

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select

from cloud.dispatch import orders
from cloud.dispatch.states import DISPATCHER, OrderMove
from cloud.geography import Point
from cloud.planning.gather import Gathered
from cloud.planning.model import Plan
from cloud.planning.schedule import moved
from cloud.tables import crew_plan, crew_round, crew_stop, device, person, work_order
from fleet.incident import OrderEvent, OrderState

PLANS_KEPT: Final = 500
_FREE: Final = (OrderState.DISPATCHABLE.value, OrderState.ASSIGNED.value)


def latest(tx: Connection) -> Row[Any] | None:
    """The plan in force, or None."""
    return tx.execute(select(crew_plan).order_by(crew_plan.c.id.desc()).limit(1)).one_or_none()


def store(tx: Connection, given: Gathered, plan: Plan, reason: str) -> tuple[int, list[OrderMove]]:
    """Keep a plan, and give the orders that nobody accepted to who is to do them; (its id, what moved).

    Without effect if the same work was planned meanwhile: id 0.
    """
    before = latest(tx)
    if before is not None and before.signature == given.signature and before.made_at > given.at:
        return 0, []
    why = {
        **{one: str(why) for one, why in plan.unassigned.items()},
        **{one: str(w) for one, w in given.hopeless.items()},
    }
    plan_id = tx.execute(
        insert(crew_plan)
        .values(
            made_at=given.at, signature=given.signature, reason=reason, solver=plan.solver, solve_ms=plan.solve_ms,
            moved=moved(given.problem.previous, plan.sequences()), unassigned=json.dumps(why),
        )
        .returning(crew_plan.c.id)
    ).scalar_one()  # fmt: skip
    jobs, crews = {job.id: job for job in given.problem.jobs}, {one.id: one for one in given.problem.crews}
    for route in plan.routes:
        tx.execute(
            insert(crew_round).values(
                plan_id=plan_id, person_id=route.crew_id, starts_at=given.at + crews[route.crew_id].from_s * 1000,
                ends_at=given.at + route.ends_s * 1000, distance_m=route.distance_m, travel_s=route.travel_s,
            )
        )  # fmt: skip
        rows = []
        for position, stop in enumerate(route.stops):
            place: Point = jobs[stop.job_id].place(stop.act)
            rows.append(
                {
                    "plan_id": plan_id, "person_id": route.crew_id, "position": position, "order_id": stop.job_id,
                    "act": stop.act.value, "latitude": place.latitude, "longitude": place.longitude,
                    "arrives_at": given.at + stop.arrives_s * 1000, "leaves_at": given.at + stop.leaves_s * 1000,
                    "late": int(stop.late),
                }
            )  # fmt: skip
        if rows:
            tx.execute(insert(crew_stop), rows)
    for table in (crew_stop, crew_round):
        tx.execute(delete(table).where(table.c.plan_id <= plan_id - PLANS_KEPT))
    return plan_id, _assign(tx, plan, {one for one in crews if not crews[one].from_s}, given.at)


def _assign(tx: Connection, plan: Plan, on_duty: set[str], at: int) -> list[OrderMove]:
    wanted = {stop.job_id: route.crew_id for route in plan.routes for stop in route.stops if route.crew_id in on_duty}
    columns = work_order.c
    free = tx.execute(
        select(work_order).where(columns.id.in_(sorted(wanted)), columns.state.in_(_FREE)).with_for_update()
    ).all()
    return [
        orders.move(tx, row, OrderEvent.ASSIGN, DISPATCHER, at, person_id=wanted[row.id], reason="round")
        for row in free
        if row.assigned_to != wanted[row.id] or row.state == OrderState.DISPATCHABLE.value
    ]


def rounds(tx: Connection, plan_id: int, person_id: str | None = None) -> list[Row[Any]]:
    """The rounds of a plan with their people's names."""
    joined = crew_round.outerjoin(person, person.c.id == crew_round.c.person_id)
    statement = select(*crew_round.c, person.c.name).select_from(joined).where(crew_round.c.plan_id == plan_id)
    if person_id is not None:
        statement = statement.where(crew_round.c.person_id == person_id)
    return list(tx.execute(statement.order_by(crew_round.c.person_id)))


def stops(tx: Connection, plan_id: int, person_id: str | None = None) -> list[Row[Any]]:
    """The stops of a plan, in order, with their orders as these are now; what is over is left out."""
    c = crew_stop.c
    joined = crew_stop.join(work_order, work_order.c.id == c.order_id).outerjoin(
        device, device.c.device_id == work_order.c.device_id
    )
    over = (OrderState.DONE.value, OrderState.CANCELLED.value, OrderState.CANNOT_COMPLETE.value)
    columns = (
        *c, work_order.c.device_id, work_order.c.skill, work_order.c.priority, work_order.c.state,
        work_order.c["items"],
        work_order.c.title_zh, work_order.c.title_en, device.c.name.label("device_name"), work_order.c.to_name,
    )  # fmt: skip
    statement = select(*columns).select_from(joined).where(c.plan_id == plan_id, work_order.c.state.not_in(over))
    if person_id is not None:
        statement = statement.where(c.person_id == person_id)
    return list(tx.execute(statement.order_by(c.person_id, c.position)))


def count(tx: Connection) -> int:
    """How many plans were made."""
    return tx.scalar(select(func.count()).select_from(crew_plan)) or 0


def unassigned_of(row: Row[Any]) -> Mapping[str, str]:
    """Order → why it stands in no round."""
    found: dict[str, str] = json.loads(row.unassigned)
    return found
