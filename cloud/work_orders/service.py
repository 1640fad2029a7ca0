"""Work orders for the crew and the admins; who may do what stands in `views`."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, insert

from cloud import audit
from cloud.api.access import Person
from cloud.api.changes import Changes
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.dispatch import orders as moves
from cloud.dispatch import reasons
from cloud.dispatch.orders import NotProvenError
from cloud.dispatch.states import OrderMove
from cloud.ports import Database
from cloud.roster import duty, off_duty
from cloud.tables import order_note, preventive_plan
from cloud.work_orders import kpi, preventive, repository
from cloud.work_orders.schemas import (
    KpiAnswer,
    MakeBody,
    NoteAnswer,
    OrderAct,
    OrderAnswer,
    OrderLine,
    OrderList,
    OrderStep,
    PhotoAnswer,
    PlanBody,
    PlanChangeBody,
    PlanLine,
)
from cloud.work_orders.views import OF_ITS_OWNER, line_of, may
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.incident import OrderEvent, OrderState
from fleet.lifecycle import IllegalTransitionError

TOPIC: Final = "order"
KPI_DAYS: Final = 28


class WorkOrderService:
    """Reads and moves orders; each move is one transaction with its transition and its audit line."""

    def __init__(self, database: Database, clock: Clock, changes: Changes) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    async def orders(
        self, person: Person, wanted: dict[str, str], *, is_open: bool, limit: int, offset: int = 0
    ) -> OrderList:
        """The most pressing first."""
        rows, total = await self._database.read(
            lambda tx: repository.orders(tx, wanted=wanted, is_open=is_open, limit=limit, offset=offset)
        )
        return OrderList(
            orders=[OrderLine.model_validate(line_of(row, person, self._clock.now_ms())) for row in rows], total=total
        )

    async def order(self, order_id: str, person: Person) -> OrderAnswer:
        """One order with its history; raises ProblemError 404."""

        def read(tx: Connection) -> tuple[Row[Any] | None, dict[str, Any]]:
            return repository.order_by_id(tx, order_id), {
                "transitions": [OrderStep.model_validate(step) for step in repository.transitions(tx, order_id)],
                "notes": [NoteAnswer.model_validate(note) for note in repository.notes(tx, order_id)],
                "photos": [PhotoAnswer.model_validate(photo) for photo in repository.photos(tx, order_id)],
            }

        row, more = await self._database.read(read)
        if row is None:
            raise not_found("work order", order_id)
        return OrderAnswer.model_validate({**line_of(row, person, self._clock.now_ms()), "cause": row.cause, **more})

    async def act(self, order_id: str, act: OrderAct, person: Person, note: str = "", reason: str = "") -> OrderAnswer:
        """Move an order along its lifecycle.

        An order that becomes dispatchable is given out again at once: to who resumed it, else to who is best placed.

        Raises:
            ProblemError: 404; 403 for somebody else's order; 409 when its state does not allow it, or its code was not
                scanned; 422 without the reason that this act needs.
        """
        at = self._clock.now_ms()

        def work(tx: Connection, row: Row[Any]) -> list[OrderMove]:
            if not may(act, row.assigned_to, person):
                raise ProblemError(403, "not_yours", "Not allowed", "This order is somebody else's.")
            if wrong := reasons.problem_of(OrderEvent(act.value), reason, note):
                raise ProblemError(422, "reason_needed", "Say why", wrong)
            done = [moves.move(tx, row, OrderEvent(act.value), person.id, at, note=note, reason=reason)]
            if done[0].after == OrderState.DISPATCHABLE.value:
                if act is OrderAct.RESUME and row.assigned_to and repository.is_crew(tx, row.assigned_to):
                    again = repository.order_for_change(tx, order_id)
                    assert again is not None, "it was locked by this transaction"
                    done.append(moves.move(tx, again, OrderEvent.ASSIGN, person.id, at, person_id=row.assigned_to))
                done += moves.assign(tx, at)
            return done

        is_off_duty = await self._change(order_id, act.value, person, {"note": note, "reason": reason}, work)
        return (await self.order(order_id, person)).model_copy(update={"off_duty": is_off_duty})

    async def assign(self, order_id: str, to_person_id: str, person: Person, note: str = "") -> OrderAnswer:
        """Give an order that nobody accepted yet to a member of the crew who is on call; no plan takes it away again.

        Raises:
            ProblemError: 404; 409 in another state, or for somebody who is off duty; 422 for who is not of the crew.
        """
        at = self._clock.now_ms()

        def work(tx: Connection, row: Row[Any]) -> list[OrderMove]:
            if not repository.is_crew(tx, to_person_id):
                raise ProblemError(422, "not_crew", "Not possible", f"{to_person_id!r} is not a member of the crew.")
            if all(one.person_id != to_person_id for one in duty.crew_on_duty(tx, at)):
                raise conflict("off_duty", f"{to_person_id!r} is not on call now: the order would go to who is.")
            return [moves.move(tx, row, OrderEvent.ASSIGN, person.id, at, note=note, person_id=to_person_id)]

        await self._change(order_id, "assign", person, {"note": note}, work)
        return await self.order(order_id, person)

    async def _change(
        self,
        order_id: str,
        act: str,
        person: Person,
        said: dict[str, Any],
        work: Callable[[Connection, Row[Any]], list[OrderMove]],
    ) -> bool:
        """Whether it is work of a crew, done by somebody who is not on duty."""
        at = self._clock.now_ms()

        def change(tx: Connection) -> tuple[list[OrderMove], bool]:
            row = repository.order_for_change(tx, order_id)
            if row is None:
                raise not_found("work order", order_id)
            done = work(tx, row)
            detail = {
                "before": row.state,
                "after": done[0].after if done else row.state,
                "assigned_to": [row.assigned_to, done[0].assigned_to if done else row.assigned_to],
                **said,
            }
            audit.record(tx, at, person.id, f"work_order.{act}", order_id, detail)
            is_work = act in OF_ITS_OWNER
            return done, is_work and off_duty.note(tx, at, person.id, f"work_order.{act}", order_id)

        try:
            done, is_off_duty = await self._database.write(change)
        except NotProvenError as unproven:
            raise conflict("scan_first", str(unproven)) from unproven
        except IllegalTransitionError as illegal:
            raise conflict("not_in_this_state", str(illegal)) from illegal
        self.announce(done)
        return is_off_duty

    def announce(self, done: list[OrderMove]) -> None:
        """Tell the pages that are open, after the commit."""
        for move in {move.id: move for move in done}.values():
            facts = {
                "id": move.id,
                "device_id": move.device_id,
                "state": move.after,
                "assigned_to": move.assigned_to,
            }
            self._changes.publish(TOPIC, facts)

    async def set_priority(self, order_id: str, priority: str, person: Person, note: str) -> OrderAnswer:
        """Another priority and its service level; the clock runs on. Raises ProblemError 404 or 409."""
        at = self._clock.now_ms()

        def work(tx: Connection, row: Row[Any]) -> list[OrderMove]:
            if row.state not in moves.OPEN_STATES:
                raise conflict("not_in_this_state", f"This order is {row.state}.")
            moves.set_priority(tx, row, priority, at)
            return [OrderMove(row.id, row.device_id, row.state, row.state, row.assigned_to)]

        await self._change(order_id, "priority", person, {"priority": priority, "note": note}, work)
        return await self.order(order_id, person)

    async def note(self, order_id: str, text: str, person: Person) -> OrderAnswer:
        """Write a note to an order, in any state. Raises ProblemError 404."""
        at = self._clock.now_ms()

        def work(tx: Connection, row: Row[Any]) -> list[OrderMove]:
            tx.execute(insert(order_note).values(order_id=order_id, at=at, author=person.id, text=text))
            return [OrderMove(row.id, row.device_id, row.state, row.state, row.assigned_to)]

        await self._change(order_id, "note", person, {"note": text}, work)
        return await self.order(order_id, person)

    async def make(self, body: MakeBody, person: Person, new_key: str) -> OrderAnswer:
        """An order by a person, given out at once; the same key again gives the same order.

        Raises:
            ProblemError: 404 for an unknown device, 409 for a retired one (which leaves a line in the audit).
        """
        at = self._clock.now_ms()
        cause = f"manual:{person.id}:{body.key or new_key}"
        row = await self._database.read(lambda tx: repository.device_row(tx, body.device_id))
        if row is None:
            raise not_found("device", body.device_id)
        order_row = {
            "cause": cause,
            "device_id": body.device_id,
            "kind": row.kind,
            "skill": body.skill,
            "title_zh": body.title,
            "title_en": body.title,
            "instructions_zh": body.instructions,
            "instructions_en": body.instructions,
            "items": msgspec.json.encode(body.items).decode(),
            "priority": body.priority,
            "created_at": at,
            "to_latitude": body.to.latitude if body.to else None,
            "to_longitude": body.to.longitude if body.to else None,
            "to_name": body.to.name if body.to else "",
        }

        def work(tx: Connection) -> list[OrderMove]:
            if not (made := moves.make(tx, [order_row], person.id)):
                return []
            detail = {"device_id": body.device_id, "skill": body.skill, "priority": body.priority}
            audit.record(tx, at, person.id, "work_order.make", made[0].id, detail)
            return [*made, *moves.assign(tx, at)]

        done = await self._database.write(work)
        if row.retired_at is not None and not done:
            raise conflict("retired", f"{body.device_id} is retired: nobody is sent there.")
        self.announce(done)
        return await self.order(moves.order_id_of(cause), person)

    # --- preventive plans and figures --------------------------------------------------------------------------

    async def plans(self) -> list[PlanLine]:
        """All preventive plans, by id."""
        rows = await self._database.read(repository.plans)
        return [PlanLine.model_validate(row) for row in rows]

    async def add_plan(self, body: PlanBody, person: Person) -> PlanLine:
        """A new preventive plan. Raises ProblemError 409 for a known id."""
        at = self._clock.now_ms()

        def work(tx: Connection) -> bool:
            preventive.seed(tx, at)
            if repository.plan(tx, body.id) is not None:
                return False
            values = body.model_dump()
            tx.execute(insert(preventive_plan).values(**values, created_at=at, changed_at=at))
            audit.record(tx, at, person.id, "preventive_plan.add", body.id, values)
            return True

        if not await self._database.write(work):
            raise conflict("plan_exists", f"There is a plan {body.id!r} already; change it.")
        return await self._plan(body.id)

    async def change_plan(self, plan_id: str, body: PlanChangeBody, person: Person) -> PlanLine:
        """Change a preventive plan; its open orders stay. Raises ProblemError 404."""
        at = self._clock.now_ms()
        wanted = {name: value for name, value in body.model_dump().items() if value is not None}

        def work(tx: Connection) -> bool:
            preventive.seed(tx, at)
            return repository.change_plan(tx, plan_id, wanted, person.id, at)

        if not await self._database.write(work):
            raise not_found("preventive plan", plan_id)
        return await self._plan(plan_id)

    async def _plan(self, plan_id: str) -> PlanLine:
        return PlanLine.model_validate(await self._database.read(lambda tx: repository.plan(tx, plan_id)))

    async def kpi(self, from_ms: int | None, until_ms: int | None) -> KpiAnswer:
        """Figures over the orders made in a time; the last 28 days by default."""
        until = self._clock.now_ms() + 1 if until_ms is None else until_ms
        begin = until - KPI_DAYS * 86_400 * MILLISECONDS_PER_SECOND if from_ms is None else from_ms
        return await self._database.read(lambda tx: kpi.figures(tx, begin, until))
