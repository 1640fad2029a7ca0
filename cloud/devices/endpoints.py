"""The fleet over HTTP."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

import devices
from cloud.api.access import Person, allow
from cloud.api.services import service
from cloud.device_commands.repository import OPEN
from cloud.devices import views
from cloud.devices.link_views import DataLinkAnswer, data_link_answer
from cloud.devices.schemas import (
    CommandAnswer,
    CommandList,
    DeviceAnswer,
    DeviceList,
    EnrolBody,
    EventList,
    FleetAnswer,
    KindList,
    QuarantineList,
    SeriesAnswer,
)
from cloud.devices.service import COMMAND_WAIT_S_MAX, DeviceService

router = APIRouter(prefix="/api/v1", tags=["devices"])

Fleet = Annotated[DeviceService, Depends(service(DeviceService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Anybody = Annotated[Person, Depends(allow("employee", "crew", "admin"))]
Admin = Annotated[Person, Depends(allow("admin"))]
WaitOption = Annotated[float, Query(ge=0, le=COMMAND_WAIT_S_MAX, description="wait so long for its end")]
CommandStatus = Literal[
    "open", "queued", "sent", "accepted", "executing", "succeeded", "failed", "refused", "expired",
]  # fmt: skip
DAY_MS = 86_400_000
_WAIT = re.compile(r"(?:^|[\s,;])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


def preferred_wait_s(prefer: str) -> float:
    """Seconds in a `Prefer: wait=…` header, at most what we offer; 0 without one."""
    found = _WAIT.search(prefer)
    return min(float(found[1]), COMMAND_WAIT_S_MAX) if found else 0.0


@router.get("/fleet")
async def fleet(service: Fleet, _person: OnDuty) -> FleetAnswer:
    """The fleet in numbers, and what waits for people."""
    counts, waiting = await service.counts()
    return views.fleet(counts, waiting, service.now_ms())


@router.get("/kinds")
async def kinds(_person: Anybody) -> KindList:
    """Kinds of devices with their fields, events and commands."""
    return KindList(kinds=[views.kind_answer(kind) for kind in devices.kinds().values()])


@router.get("/devices")
async def list_devices(
    service: Fleet,
    _person: OnDuty,
    kind: Annotated[str, Query(max_length=64)] = "",
    q: Annotated[str, Query(max_length=64, description="part of the id or name")] = "",
    state: Literal["", "online", "silent", "retired", "alarm"] = "",
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> DeviceList:
    """Devices ordered by id; `after` is `next_after` of the page before."""
    rows = await service.lines(kind=kind, words=q, status=state, after=after, limit=limit + 1)
    return DeviceList(
        devices=[views.device_line(row) for row in rows[:limit]],
        next_after=rows[limit - 1].device_id if len(rows) > limit else None,
    )


@router.post("/devices", status_code=201)
async def enrol(body: EnrolBody, service: Fleet, admin: Admin) -> DeviceAnswer:
    """Take a device in."""
    await service.enrol(body, admin)
    return views.device_answer(*await service.everything_about(body.device_id))


@router.get("/devices/{device_id}")
async def one_device(device_id: str, service: Fleet, _person: OnDuty) -> DeviceAnswer:
    """Everything known about one device now."""
    return views.device_answer(*await service.everything_about(device_id))


@router.get("/devices/{device_id}/link")
async def data_link(device_id: str, service: Fleet, _person: OnDuty) -> DataLinkAnswer:
    """How its messages come in: marks, gaps, repeats, late and refused ones, restarts and lost connections."""
    return data_link_answer(await service.link_rows(device_id))


@router.post("/devices/{device_id}/retire", status_code=204)
async def retire(device_id: str, service: Fleet, admin: Admin) -> None:
    """Take a device out of service; refused while it has an open emergency call."""
    await service.retire(device_id, admin)


@router.get("/devices/{device_id}/series")
async def series(
    device_id: str,
    service: Fleet,
    _person: OnDuty,
    field: Annotated[str, Query(max_length=64)],
    from_ms: Annotated[int | None, Query(alias="from", ge=0, description="ms; a day before `to` if absent")] = None,
    to_ms: Annotated[int | None, Query(alias="to", ge=0, description="ms; now if absent")] = None,
    step_s: Annotated[int, Query(ge=1, le=86_400)] = 300,
) -> SeriesAnswer:
    """Means of one measured field per step."""
    until = service.now_ms() if to_ms is None else to_ms
    since = max(0, until - DAY_MS) if from_ms is None else from_ms
    unit, points = await service.series(device_id, field, since, until, step_s)
    return SeriesAnswer(device_id=device_id, field=field, unit=unit, step_s=step_s, points=points)


@router.get("/devices/{device_id}/events")
async def events(
    device_id: str,
    service: Fleet,
    person: OnDuty,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EventList:
    """A device's events, newest first; `before` is `next_before` of the page before."""
    rows = await service.events(device_id, before, limit + 1, person)
    return EventList(
        events=[views.event_line(row) for row in rows[:limit]],
        next_before=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.post("/devices/{device_id}/commands", status_code=202)
async def order_command(
    device_id: str,
    body: Annotated[dict[str, Any], Body(description="`action` and its arguments, as in /api/v1/kinds")],
    response: Response,
    service: Fleet,
    person: OnDuty,
    wait_s: WaitOption = 0.0,
    prefer: Annotated[str, Header(max_length=200, description="`wait=<seconds>` after RFC 7240 does the same")] = "",
) -> CommandAnswer:
    """Send a command; each names the roles that may. Follow it at the address in `Location`.

    202: it has no end yet; `device_offline` says whether its device can be reached now. 200: it ended while we waited.
    """
    command_id = await service.command(device_id, body, person)
    response.headers["location"] = f"/api/v1/commands/{command_id}"
    waited_s = wait_s or preferred_wait_s(prefer)
    if waited_s and not wait_s:
        response.headers["preference-applied"] = f"wait={waited_s:g}"
    answer = views.command_answer(await service.command_row(command_id, person, waited_s))
    if answer.final:
        response.status_code = 200
    return answer


@router.get("/devices/{device_id}/commands")
async def commands_of(
    device_id: str,
    service: Fleet,
    _person: OnDuty,
    status: Annotated[list[CommandStatus], Query(description="these only; `open`: without an end yet")] = [],  # noqa: B006  # FastAPI copies it
    action: Annotated[str, Query(max_length=64)] = "",
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CommandList:
    """A device's commands, newest first; `before` is `next_before` of the page before."""
    await service.kind_of(device_id)
    wanted = {one for name in status for one in (OPEN if name == "open" else (name,))}
    rows = await service.commands_of(device_id, limit + 1, before=before, statuses=wanted, action=action)
    return CommandList(
        commands=[views.command_answer(row) for row in rows[:limit]],
        next_before=rows[limit - 1].issued_at if len(rows) > limit else None,
    )


@router.post("/commands/{command_id}/cancel")
async def cancel_command(command_id: str, service: Fleet, person: OnDuty) -> CommandAnswer:
    """Take back a command that has not left yet; one that has ends by itself at `not_after`."""
    return views.command_answer(await service.cancel_command(command_id, person))


@router.get("/commands/{command_id}")
async def one_command(
    command_id: str,
    service: Fleet,
    person: Anybody,
    wait_s: WaitOption = 0.0,
) -> CommandAnswer:
    """How far a command came."""
    return views.command_answer(await service.command_row(command_id, person, wait_s))


@router.get("/quarantine")
async def quarantine(
    service: Fleet,
    _admin: Admin,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> QuarantineList:
    """Messages that could not be used, newest first, with the reason and the first bytes."""
    rows = await service.quarantined(before, limit + 1)
    return QuarantineList(
        messages=[views.quarantine_line(row) for row in rows[:limit]],
        next_before=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.get("/events/export", response_class=StreamingResponse)
async def export_events(service: Fleet, admin: Admin) -> StreamingResponse:
    """Every event as NDJSON, for auditing what arrived. Who took it is written down."""
    await service.note_export(admin)
    return StreamingResponse(service.export_events(), media_type="application/x-ndjson")
