"""Work orders: `/api/v1/work-orders`. For the crew and the admins."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response, UploadFile

from cloud.api.access import Person, allow
from cloud.api.services import service
from cloud.dispatch.reasons import HOLD_PAUSES, REASONS
from cloud.geography import Point
from cloud.work_orders import proof
from cloud.work_orders.evidence import EvidenceService
from cloud.work_orders.photos import BYTES_MAX
from cloud.work_orders.schemas import (
    ActBody,
    AssignBody,
    KpiAnswer,
    MakeBody,
    NoteBody,
    OrderAct,
    OrderAnswer,
    OrderList,
    PhotoAnswer,
    PlanBody,
    PlanChangeBody,
    PlanLine,
    PriorityBody,
    ScanAnswer,
    ScanBody,
)
from cloud.work_orders.service import WorkOrderService
from fleet.incident import OrderState

router = APIRouter(prefix="/api/v1/work-orders", tags=["work orders"])

WorkOrders = Annotated[WorkOrderService, Depends(service(WorkOrderService))]
Evidence = Annotated[EvidenceService, Depends(service(EvidenceService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Admin = Annotated[Person, Depends(allow("admin"))]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Moment = Annotated[int | None, Query(ge=0, le=2**53)]
PHOTO_HEADERS = {"content-disposition": 'inline; filename="photo.jpg"', "x-content-type-options": "nosniff"}


@router.get("")
async def list_orders(
    work_orders: WorkOrders,
    person: OnDuty,
    *,
    state: Annotated[OrderState | None, Query()] = None,
    device_id: Annotated[str | None, Query(max_length=32)] = None,
    assigned_to: Annotated[str | None, Query(max_length=64)] = None,
    skill: Annotated[str | None, Query(max_length=32)] = None,
    is_open: Annotated[bool, Query(alias="open", description="leave out what is over")] = True,
    limit: Limit = 100,
    offset: Offset = 0,
) -> OrderList:
    """Everybody's orders, the most pressing first."""
    wanted = {"state": state, "device_id": device_id, "assigned_to": assigned_to, "skill": skill}
    chosen = {column: str(value) for column, value in wanted.items() if value is not None}
    return await work_orders.orders(person, chosen, is_open=is_open and state is None, limit=limit, offset=offset)


@router.post("", status_code=201)
async def make(body: MakeBody, work_orders: WorkOrders, person: Admin) -> OrderAnswer:
    """An order by hand; it is given out at once. The same `key` again gives the same order."""
    return await work_orders.make(body, person, secrets.token_hex(16))


@router.get("/mine")
async def own_orders(work_orders: WorkOrders, person: OnDuty, limit: Limit = 100, offset: Offset = 0) -> OrderList:
    """The asker's own open orders, the most pressing first."""
    return await work_orders.orders(person, {"assigned_to": person.id}, is_open=True, limit=limit, offset=offset)


@router.get("/reasons")
async def reasons(person: OnDuty) -> dict[str, list[str]]:
    """Reason codes by act; `pauses` are those for which the clock of the service level stands still."""
    del person
    return {event.value: list(codes) for event, codes in REASONS.items()} | {"pauses": sorted(HOLD_PAUSES)}


@router.get("/kpi")
async def kpi(work_orders: WorkOrders, person: OnDuty, from_ms: Moment = None, until_ms: Moment = None) -> KpiAnswer:
    """Figures over the orders made in a time; the last 28 days by default."""
    del person
    return await work_orders.kpi(from_ms, until_ms)


@router.post("/scan")
async def scan(body: ScanBody, evidence: Evidence, person: OnDuty) -> ScanAnswer:
    """The asker is at a device: their orders there are in progress, and proven."""
    here = None
    if body.latitude is not None and body.longitude is not None:
        here = Point(body.latitude, body.longitude)
    return await evidence.scan(body.code, person, here)


@router.get("/codes/{device_id}.svg", response_class=Response)
async def code(device_id: str, evidence: Evidence, person: Admin) -> Response:
    """The QR code to stick on a device, as SVG."""
    _, link = await evidence.code(device_id, person)
    return Response(proof.picture(link), media_type="image/svg+xml")


@router.get("/preventive-plans")
async def plans(work_orders: WorkOrders, person: OnDuty) -> list[PlanLine]:
    """Preventive plans, by id."""
    del person
    return await work_orders.plans()


@router.post("/preventive-plans", status_code=201)
async def add_plan(body: PlanBody, work_orders: WorkOrders, person: Admin) -> PlanLine:
    """A new preventive plan."""
    return await work_orders.add_plan(body, person)


@router.patch("/preventive-plans/{plan_id}")
async def change_plan(plan_id: str, body: PlanChangeBody, work_orders: WorkOrders, person: Admin) -> PlanLine:
    """Change one; its open orders stay."""
    return await work_orders.change_plan(plan_id, body, person)


@router.get("/{order_id}")
async def one_order(order_id: str, work_orders: WorkOrders, person: OnDuty) -> OrderAnswer:
    """One order with every transition, note and photo."""
    return await work_orders.order(order_id, person)


@router.post("/{order_id}/assign")
async def assign(order_id: str, body: AssignBody, work_orders: WorkOrders, person: Admin) -> OrderAnswer:
    """Give it to a member of the crew, as long as nobody accepted it."""
    return await work_orders.assign(order_id, body.person_id, person, body.note)


@router.post("/{order_id}/priority")
async def priority(order_id: str, body: PriorityBody, work_orders: WorkOrders, person: Admin) -> OrderAnswer:
    """Another priority and its service level; the clock runs on."""
    return await work_orders.set_priority(order_id, body.priority, person, body.note)


@router.post("/{order_id}/notes", status_code=201)
async def note(order_id: str, body: NoteBody, work_orders: WorkOrders, person: OnDuty) -> OrderAnswer:
    """Write something down for whoever comes next."""
    return await work_orders.note(order_id, body.text, person)


@router.post("/{order_id}/photos", status_code=201)
async def add_photo(order_id: str, photo: UploadFile, evidence: Evidence, person: OnDuty) -> PhotoAnswer:
    """Add a photo: JPEG, PNG or WebP of at most 8 MB. It is kept anew encoded, without metadata."""
    return await evidence.add_photo(order_id, await photo.read(BYTES_MAX + 1), person)


@router.get("/{order_id}/photos/{photo_id}", response_class=Response)
async def photo(
    order_id: str, photo_id: str, evidence: Evidence, person: OnDuty, *, small: Annotated[bool, Query()] = False
) -> Response:
    """A photo as JPEG."""
    del person
    data = await evidence.photo(order_id, photo_id, small=small)
    return Response(data, media_type="image/jpeg", headers=PHOTO_HEADERS)


@router.post("/{order_id}/{act}")
async def act(
    order_id: str, act: OrderAct, work_orders: WorkOrders, person: OnDuty, body: ActBody | None = None
) -> OrderAnswer:
    """Move it along: accept, travel, start, complete, hold, resume, give_up, reopen; admins: release, cancel.

    To complete it, its code must have been scanned; hold, give_up, cancel and reopen need a reason and a note.
    """
    body = body or ActBody()
    return await work_orders.act(order_id, act, person, body.note, body.reason)
