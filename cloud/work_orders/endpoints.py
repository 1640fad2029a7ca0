"""Work orders over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.api.access import Person, allow
from cloud.api.services import service
from cloud.work_orders.schemas import ActBody, AssignBody, OrderAct, OrderAnswer, OrderList
from cloud.work_orders.service import WorkOrderService
from fleet.incident import OrderState

router = APIRouter(prefix="/api/v1/work-orders", tags=["work orders"])

WorkOrders = Annotated[WorkOrderService, Depends(service(WorkOrderService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Admin = Annotated[Person, Depends(allow("admin"))]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


@router.get("")
async def list_orders(
    work_orders: WorkOrders,
    person: OnDuty,
    *,
    state: Annotated[OrderState | None, Query()] = None,
    device_id: Annotated[str | None, Query(max_length=32)] = None,
    assigned_to: Annotated[str | None, Query(max_length=64)] = None,
    is_open: Annotated[bool, Query(alias="open", description="leave out what is over")] = True,
    limit: Limit = 100,
    offset: Offset = 0,
) -> OrderList:
    """Everybody's orders, the most pressing first."""
    wanted = {"state": state, "device_id": device_id, "assigned_to": assigned_to}
    chosen = {column: str(value) for column, value in wanted.items() if value is not None}
    return await work_orders.orders(person, chosen, is_open=is_open and state is None, limit=limit, offset=offset)


@router.get("/mine")
async def own_orders(work_orders: WorkOrders, person: OnDuty, limit: Limit = 100, offset: Offset = 0) -> OrderList:
    """The asker's own open orders, the most pressing first."""
    return await work_orders.orders(person, {"assigned_to": person.id}, is_open=True, limit=limit, offset=offset)


@router.get("/{order_id}")
async def one_order(order_id: str, work_orders: WorkOrders, person: OnDuty) -> OrderAnswer:
    """One order with every transition."""
    return await work_orders.order(order_id, person)


@router.post("/{order_id}/assign")
async def assign(order_id: str, body: AssignBody, work_orders: WorkOrders, person: Admin) -> OrderAnswer:
    """Give it to a member of the crew, as long as nobody accepted it."""
    return await work_orders.assign(order_id, body.person_id, person, body.note)


@router.post("/{order_id}/{act}")
async def act(
    order_id: str, act: OrderAct, work_orders: WorkOrders, person: OnDuty, body: ActBody | None = None
) -> OrderAnswer:
    """Move it along: accept, travel, start, complete, hold, resume, give_up, reopen; admins: release, cancel."""
    return await work_orders.act(order_id, act, person, body.note if body else "")
