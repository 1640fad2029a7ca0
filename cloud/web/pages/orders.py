"""Work orders: the crew's next stop and round, one order with its forms, the dispatcher's list, figures."""

import secrets
from collections.abc import Callable
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from cloud.api.access import Person, allow
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.dispatch.reasons import REASONS
from cloud.geography import Point
from cloud.members.service import MemberService
from cloud.planning.service import PlanningService
from cloud.web.pages.base import OnDuty, go_to, page, services_of
from cloud.work_orders import proof
from cloud.work_orders.evidence import EvidenceService
from cloud.work_orders.photos import BYTES_MAX
from cloud.work_orders.schemas import MakeBody, OrderAct, OrderLine, PlanChangeBody
from cloud.work_orders.service import WorkOrderService
from fleet.incident import OrderEvent, OrderState
from fleet.kind import Skill

router = APIRouter(include_in_schema=False)

ROWS_MAX = 200
PEOPLE_MAX = 200
FILTERS = ("all", "unassigned", "overdue", "on_hold", "cannot_complete")

Orders = Annotated[WorkOrderService, Depends(service(WorkOrderService))]
Evidence = Annotated[EvidenceService, Depends(service(EvidenceService))]
Planning = Annotated[PlanningService, Depends(service(PlanningService))]
Admin = Annotated[Person, Depends(allow("admin"))]
Words = Annotated[str, Form(max_length=500)]


@router.get("/orders", response_class=HTMLResponse)
async def orders(request: Request, person: OnDuty, show: Annotated[str, Query(max_length=20)] = "all") -> Response:
    """One's own round, then all others."""
    return await _list(request, person, show=show)


@router.get("/orders/figures", response_class=HTMLResponse)
async def figures(request: Request, person: OnDuty, orders: Orders) -> Response:
    """How well work is done, and what is done by time."""
    return await page(
        request, "order_figures.html", person, kpi=await orders.kpi(None, None), plans=await orders.plans()
    )


@router.post("/orders/scan")
async def scan(
    request: Request, evidence: Evidence, person: OnDuty, code: Annotated[str, Form(min_length=1, max_length=200)],
    latitude: Annotated[str, Form(max_length=30)] = "", longitude: Annotated[str, Form(max_length=30)] = "",
) -> Response:  # fmt: skip
    """The code on a device, typed or from its link; the position where the phone gave one."""
    try:
        found = await evidence.scan(code, person, _here(latitude, longitude))
    except ProblemError as problem:
        return await _list(request, person, problem)
    if len(found.orders) == 1:
        return go_to(f"/orders/{found.orders[0].id}?notice=scanned")
    return go_to("/orders?notice=scanned")


@router.get("/scan/{code}", response_class=HTMLResponse)
async def scanned(request: Request, code: str, evidence: Evidence, person: OnDuty) -> Response:
    """Where the QR code of a device leads: one tap says that one is there."""
    row = await evidence.device_of(code)
    return await page(
        request, "scan.html", person, code=proof.code_from(code), device_name=row.name or row.device_id,
        device_id=row.device_id,
    )  # fmt: skip


@router.post("/orders/make")
async def make(request: Request, orders: Orders, person: Admin) -> Response:
    """An order by hand."""
    form = await request.form()
    try:
        body = MakeBody(
            device_id=str(form.get("device_id", "")).strip(), skill=str(form.get("skill", "")),
            title=str(form.get("title", "")).strip(), priority=str(form.get("priority", "")),
            instructions=str(form.get("instructions", "")), key=str(form.get("key", "")),
        )  # fmt: skip
        made = await orders.make(body, person, secrets.token_hex(16))
    except ValidationError:
        return await _list(request, person, ProblemError(422, "invalid_input", "Input not valid"))
    except ProblemError as problem:
        return await _list(request, person, problem)
    return go_to(f"/orders/{made.id}?notice=order_made")


@router.post("/orders/plan")
async def plan_now(request: Request, planning: Planning, person: Admin) -> Response:
    """Plan all rounds at once."""
    try:
        await planning.plan_now(person)
    except ProblemError as problem:
        return await _list(request, person, problem)
    return go_to("/orders?notice=planned")


@router.post("/orders/preventive-plans/{plan_id}")
async def switch_plan(
    plan_id: str, orders: Orders, person: Admin, enabled: Annotated[int, Form(ge=0, le=1)]
) -> Response:
    """Switch a preventive plan on or off."""
    await orders.change_plan(plan_id, PlanChangeBody(enabled=bool(enabled)), person)
    return go_to("/orders/figures#plans")


@router.get("/orders/{order_id}", response_class=HTMLResponse)
async def one(request: Request, order_id: str, person: OnDuty) -> Response:
    """One order: what to do, its forms, its history."""
    return await _one(request, person, order_id)


@router.post("/orders/{order_id}/notes")
async def note(
    request: Request, order_id: str, orders: Orders, person: OnDuty, text: Annotated[str, Form(max_length=500)] = ""
) -> Response:
    """Write something down."""
    try:
        if not text.strip():
            raise ProblemError(422, "invalid_input", "Input not valid")
        await orders.note(order_id, text.strip(), person)
    except ProblemError as problem:
        return await _one(request, person, order_id, problem)
    return go_to(f"/orders/{order_id}?notice=noted#notes")


@router.post("/orders/{order_id}/photos")
async def photo(request: Request, order_id: str, evidence: Evidence, person: OnDuty, photo: UploadFile) -> Response:
    """Add a photo."""
    try:
        await evidence.add_photo(order_id, await photo.read(BYTES_MAX + 1), person)
    except ProblemError as problem:
        return await _one(request, person, order_id, problem)
    return go_to(f"/orders/{order_id}?notice=noted#photos")


@router.post("/orders/{order_id}/assign")
async def assign(
    request: Request, order_id: str, orders: Orders, person: Admin, person_id: Annotated[str, Form(max_length=64)]
) -> Response:
    """Give it to somebody."""
    try:
        await orders.assign(order_id, person_id, person)
    except ProblemError as problem:
        return await _one(request, person, order_id, problem)
    return go_to(f"/orders/{order_id}?notice=order_moved")


@router.post("/orders/{order_id}/priority")
async def priority(
    request: Request, order_id: str, orders: Orders, person: Admin,
    priority: Annotated[str, Form(pattern="^(high|medium|low)$")], note: Words = "",
) -> Response:  # fmt: skip
    """Another priority."""
    try:
        await orders.set_priority(order_id, priority, person, note)
    except ProblemError as problem:
        return await _one(request, person, order_id, problem)
    return go_to(f"/orders/{order_id}?notice=order_moved")


@router.post("/orders/{order_id}/{act}")
async def move_order(
    request: Request, order_id: str, act: OrderAct, orders: Orders, person: OnDuty, note: Words = "",
    reason: Annotated[str, Form(max_length=40)] = "", back: Annotated[str, Form(max_length=10)] = "",
) -> Response:  # fmt: skip
    """The buttons of an order."""
    try:
        done = await orders.act(order_id, act, person, note, reason)
    except ProblemError as problem:
        if back == "order":
            return await _one(request, person, order_id, problem)
        return await _list(request, person, problem)
    notice = "order_moved_off_duty" if done.off_duty else "order_moved"
    if back == "order":
        return go_to(f"/orders/{order_id}?notice={notice}")
    return go_to(f"/orders?notice={notice}#order-{order_id}")


def _here(latitude: str, longitude: str) -> Point | None:
    try:
        north, east = float(latitude), float(longitude)
    except ValueError:
        return None
    return Point(north, east) if -90 <= north <= 90 and -180 <= east <= 180 else None


def _everything(order: OrderLine) -> bool:
    del order
    return True


async def _crew(request: Request) -> list[Any]:
    rows = await services_of(request).get(MemberService).persons("", PEOPLE_MAX)
    return [row for row in rows if row.role == "crew" and row.disabled_at is None]


async def _one(request: Request, person: Person, order_id: str, problem: ProblemError | None = None) -> Response:
    found = await services_of(request).get(WorkOrderService).order(order_id, person)
    with_reason = [act for act in found.acts if OrderEvent(act.value) in REASONS]
    return await page(
        request, "order.html", person, problem, path=f"/orders/{order_id}", order=found,
        plain_acts=[act for act in found.acts if act not in with_reason],
        reasons={act.value: REASONS[OrderEvent(act.value)] for act in with_reason},
        is_open=found.state not in {OrderState.DONE, OrderState.CANCELLED, OrderState.CANNOT_COMPLETE},
        can_assign=found.state in {OrderState.ASSIGNED, OrderState.DISPATCHABLE}, crew=await _crew(request),
        is_admin=person.role == "admin",
    )  # fmt: skip


async def _list(request: Request, person: Person, problem: ProblemError | None = None, show: str = "all") -> Response:
    orders = services_of(request).get(WorkOrderService)
    planning = services_of(request).get(PlanningService)
    shown = show if show in FILTERS else "all"
    if shown == "cannot_complete":
        found = await orders.orders(person, {"state": "cannot_complete"}, is_open=False, limit=ROWS_MAX)
    else:
        found = await orders.orders(person, {}, is_open=True, limit=ROWS_MAX)
    plan = await planning.plan()
    mine = next((one for one in plan.rounds if one.person_id == person.id), None)
    keep: Callable[[OrderLine], bool] = {
        "unassigned": lambda order: order.state == OrderState.DISPATCHABLE,
        "overdue": lambda order: order.overdue,
        "on_hold": lambda order: order.state == OrderState.ON_HOLD,
    }.get(shown, _everything)
    place = {stop.order_id: index for index, stop in enumerate(mine.stops if mine else ())}
    own = [order for order in found.orders if order.assigned_to == person.id]
    own.sort(key=lambda order: (place.get(order.id, len(place)), order.due_at))
    return await page(
        request, "orders.html", person, problem, path="/orders", orders=[o for o in found.orders if keep(o)],
        mine=own, show=shown, filters=FILTERS, plan=plan, round=mine,
        arrivals={stop.order_id: stop.arrives_at for one in plan.rounds for stop in reversed(one.stops)},
        pick=await planning.pick_list(person.id), skills=get_args(Skill), with_reason=sorted(e.value for e in REASONS),
        is_admin=person.role == "admin", key=secrets.token_hex(8),
    )  # fmt: skip
