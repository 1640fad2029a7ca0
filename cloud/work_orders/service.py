"""Work orders for the crew and the admins; who may do what stands in the two sets at the top."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row

from cloud import audit
from cloud.alarms.schemas import TextAnswer
from cloud.api.access import Person, Role
from cloud.api.changes import Changes
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.dispatch import orders as moves
from cloud.dispatch.orders import OrderMove
from cloud.ports import Database
from cloud.work_orders import repository
from cloud.work_orders.schemas import OrderAct, OrderAnswer, OrderLine, OrderList, OrderStep
from fleet.clock import Clock
from fleet.incident import ORDER, OrderEvent, OrderState
from fleet.lifecycle import IllegalTransitionError

OF_ITS_OWNER: Final = frozenset(
    {
        OrderAct.ACCEPT,
        OrderAct.TRAVEL,
        OrderAct.START,
        OrderAct.HOLD,
        OrderAct.RESUME,
        OrderAct.COMPLETE,
        OrderAct.GIVE_UP,
        OrderAct.REOPEN,
    }
)
"""What the member of the crew does to whom the order is assigned; admins may do it for them."""
OF_ADMINS: Final = frozenset({OrderAct.RELEASE, OrderAct.CANCEL})

TOPIC: Final = "order"


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
        return OrderList(orders=[OrderLine.model_validate(_line(row, person)) for row in rows], total=total)

    async def order(self, order_id: str, person: Person) -> OrderAnswer:
        """One order with its history; raises ProblemError 404."""

        def read(tx: Connection) -> tuple[Row[Any] | None, list[Row[Any]]]:
            return repository.order_by_id(tx, order_id), repository.transitions(tx, order_id)

        row, steps = await self._database.read(read)
        if row is None:
            raise not_found("work order", order_id)
        return OrderAnswer.model_validate(
            {
                **_line(row, person),
                "cause": row.cause,
                "transitions": [OrderStep.model_validate(step) for step in steps],
            }
        )

    async def act(self, order_id: str, act: OrderAct, person: Person, note: str = "") -> OrderAnswer:
        """Move an order along its lifecycle.

        An order that becomes dispatchable is given out again at once: to who resumed it, else by workload.

        Raises:
            ProblemError: 404; 403 for somebody else's order; 409 when its state does not allow it.
        """
        at = self._clock.now_ms()

        def work(tx: Connection, row: Row[Any]) -> list[OrderMove]:
            if not _may(act, row.assigned_to, person):
                raise ProblemError(403, "not_yours", "Not allowed", "This order is somebody else's.")
            done = [moves.move(tx, row, OrderEvent(act.value), person.id, at, note=note)]
            if done[0].after == OrderState.DISPATCHABLE.value:
                if act is OrderAct.RESUME and row.assigned_to and repository.is_crew(tx, row.assigned_to):
                    again = repository.order_for_change(tx, order_id)
                    assert again is not None, "it was locked by this transaction"
                    done.append(moves.move(tx, again, OrderEvent.ASSIGN, person.id, at, person_id=row.assigned_to))
                done += moves.assign(tx, at)
            return done

        await self._change(order_id, act.value, person, note, work)
        return await self.order(order_id, person)

    async def assign(self, order_id: str, to_person_id: str, person: Person, note: str = "") -> OrderAnswer:
        """Give an order that nobody accepted yet to a member of the crew; raises ProblemError 404, 409 or 422."""
        at = self._clock.now_ms()

        def work(tx: Connection, row: Row[Any]) -> list[OrderMove]:
            if not repository.is_crew(tx, to_person_id):
                raise ProblemError(422, "not_crew", "Not possible", f"{to_person_id!r} is not a member of the crew.")
            return [moves.move(tx, row, OrderEvent.ASSIGN, person.id, at, note=note, person_id=to_person_id)]

        await self._change(order_id, "assign", person, note, work)
        return await self.order(order_id, person)

    async def _change(
        self,
        order_id: str,
        act: str,
        person: Person,
        note: str,
        work: Callable[[Connection, Row[Any]], list[OrderMove]],
    ) -> None:
        at = self._clock.now_ms()

        def change(tx: Connection) -> list[OrderMove]:
            row = repository.order_for_change(tx, order_id)
            if row is None:
                raise not_found("work order", order_id)
            done = work(tx, row)
            detail = {
                "before": row.state,
                "after": done[0].after,
                "assigned_to": [row.assigned_to, done[0].assigned_to],
                "note": note,
            }
            audit.record(tx, at, person.id, f"work_order.{act}", order_id, detail)
            return done

        try:
            done = await self._database.write(change)
        except IllegalTransitionError as illegal:
            raise conflict("not_in_this_state", str(illegal)) from illegal
        for move in {move.id: move for move in done}.values():
            facts = {
                "id": move.id,
                "device_id": move.device_id,
                "state": move.after,
                "assigned_to": move.assigned_to,
            }
            self._changes.publish(TOPIC, facts)


def _may(act: OrderAct, assigned_to: str | None, person: Person) -> bool:
    if person.role is Role.ADMIN:
        return True
    return act in OF_ITS_OWNER and assigned_to == person.id


def _line(row: Row[Any], person: Person) -> dict[str, Any]:
    state = OrderState(row.state)
    return {
        **row._mapping,  # noqa: SLF001  # the documented way to a row's dict
        "device_name": row.device_name or row.device_id,
        "title": TextAnswer(zh=row.title_zh, en=row.title_en),
        "instructions": TextAnswer(zh=row.instructions_zh, en=row.instructions_en),
        "items": msgspec.json.decode(row.items),
        "acts": [
            act for act in OrderAct if ORDER.allows(state, OrderEvent(act.value)) and _may(act, row.assigned_to, person)
        ],
    }
