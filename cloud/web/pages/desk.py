"""What waits for those on duty: calls and alarms, and work orders."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

from cloud.alarms.service import AlarmService
from cloud.api.access import Person
from cloud.api.paging import MARK_LENGTH_MAX
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.calls.service import CallService
from cloud.inbox.service import InboxService
from cloud.web.pages.base import OnDuty, go_to, page, services_of
from cloud.work_orders.schemas import OrderAct
from cloud.work_orders.service import WorkOrderService

router = APIRouter(include_in_schema=False)

ROWS_MAX = 200
NOTICES_SHOWN = 20

Alarms = Annotated[AlarmService, Depends(service(AlarmService))]
Calls = Annotated[CallService, Depends(service(CallService))]
Orders = Annotated[WorkOrderService, Depends(service(WorkOrderService))]


@router.get("/alarms", response_class=HTMLResponse)
async def alarms(
    request: Request,
    person: OnDuty,
    after: Annotated[str | None, Query(alias="alarms", max_length=MARK_LENGTH_MAX)] = None,
    before: Annotated[int | None, Query(alias="notices", ge=1, le=2**53)] = None,
) -> Response:
    """Calls first, then alarms, then what people were told; `calls`, `alarms` and `notices` lead further on."""
    return await _alarms_page(request, person, alarms_after=after, notices_before=before)


@router.post("/alarms/{alarm_id}/acknowledge")
async def acknowledge_alarm(request: Request, alarm_id: str, alarms: Alarms, person: OnDuty) -> Response:
    """The button of an alarm."""
    try:
        await alarms.acknowledge(alarm_id, person)
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to(f"/alarms?notice=acknowledged#alarm-{alarm_id}")


@router.post("/calls/{call_id}/acknowledge")
async def acknowledge_call(request: Request, call_id: str, calls: Calls, person: OnDuty) -> Response:
    """The button of an emergency call: this person is going there."""
    try:
        await calls.acknowledge(call_id, person)
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to(f"/alarms?notice=acknowledged#call-{call_id}")


@router.get("/orders", response_class=HTMLResponse)
async def orders(request: Request, person: OnDuty) -> Response:
    """One's own orders, then all others."""
    return await _orders_page(request, person)


@router.post("/orders/{order_id}/{act}")
async def move_order(request: Request, order_id: str, act: OrderAct, orders: Orders, person: OnDuty) -> Response:
    """The buttons of an order."""
    try:
        await orders.act(order_id, act, person)
    except ProblemError as problem:
        return await _orders_page(request, person, problem)
    return go_to(f"/orders?notice=order_moved#order-{order_id}")


async def _alarms_page(
    request: Request,
    person: Person,
    problem: ProblemError | None = None,
    alarms_after: str | None = None,
    notices_before: int | None = None,
) -> Response:
    alarms = services_of(request).get(AlarmService)
    found = await alarms.open_alarms(alarms_after, ROWS_MAX)
    told = await services_of(request).get(InboxService).notices(person, before=notices_before, limit=NOTICES_SHOWN)
    return await page(
        request,
        "alarms.html",
        person,
        problem,
        path="/alarms",
        alarms=[(alarm, alarms.definition(alarm.kind, alarm.key)) for alarm in found.alarms],
        more_alarms=found.next_before or "",
        notices=told.notices,
        more_notices=told.next_before or "",
        is_further_on=bool({"calls", "alarms", "notices"} & request.query_params.keys()),
    )


async def _orders_page(request: Request, person: Person, problem: ProblemError | None = None) -> Response:
    orders = services_of(request).get(WorkOrderService)
    found = await orders.orders(person, {}, is_open=True, limit=ROWS_MAX)
    return await page(request, "orders.html", person, problem, path="/orders", orders=found.orders)
