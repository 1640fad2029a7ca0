"""What waits for those on duty: calls and alarms."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse

import devices
from cloud.alarms.maintenance import MaintenanceService
from cloud.alarms.schemas import NOTE_LENGTH_MAX, ShelveBody
from cloud.alarms.service import AlarmService
from cloud.api.access import Person
from cloud.api.paging import MARK_LENGTH_MAX
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.calls.service import CallService
from cloud.inbox.service import InboxService
from cloud.incidents.service import IncidentService
from cloud.rules.hiding import SHELVE_S_MAX
from cloud.web.pages.base import OnDuty, go_to, page, services_of
from fleet.incident import Priority

router = APIRouter(include_in_schema=False)

ROWS_MAX = 200
NOTICES_SHOWN = 20
INCIDENTS_SHOWN = 20
FILTERS = ("priority", "kind", "site", "incident_id")
SHELVE_HOURS = (1, 4, 8, 24, 72, 168)

Alarms = Annotated[AlarmService, Depends(service(AlarmService))]
Calls = Annotated[CallService, Depends(service(CallService))]
Incidents = Annotated[IncidentService, Depends(service(IncidentService))]
Maintenance = Annotated[MaintenanceService, Depends(service(MaintenanceService))]
Reason = Annotated[str, Form(min_length=1, max_length=NOTE_LENGTH_MAX)]


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
        done = await alarms.acknowledge(alarm_id, person)
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to(f"/alarms?notice={_acknowledged(done.off_duty)}#alarm-{alarm_id}")


@router.post("/alarms/{alarm_id}/shelve")
async def shelve_alarm(
    request: Request,
    alarm_id: str,
    alarms: Alarms,
    person: OnDuty,
    reason: Reason,
    hours: Annotated[float, Form(ge=0.1, le=744)],
    *,
    one_shot: Annotated[bool, Form()] = False,
) -> Response:
    """The form that hides an alarm for a while."""
    try:
        await alarms.shelve(alarm_id, person, ShelveBody(reason=reason, for_s=hours * 3600, one_shot=one_shot))
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to("/alarms?notice=shelved#hidden-title")


@router.post("/alarms/{alarm_id}/reset-latch")
async def reset_latch(request: Request, alarm_id: str, alarms: Alarms, person: OnDuty, reason: Reason) -> Response:
    """The form of somebody who inspected the device on site."""
    try:
        await alarms.reset_latch(alarm_id, person, reason)
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to("/alarms?notice=latch_reset#alarms-title")


@router.post("/alarms/hidden/{hiding_id}/end")
async def end_hiding(
    request: Request, hiding_id: str, maintenance: Maintenance, person: OnDuty, reason: Annotated[str, Form()] = ""
) -> Response:
    """The button that shows again what is hidden."""
    try:
        await maintenance.end_hiding(hiding_id, person, reason)
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to("/alarms?notice=shown_again#hidden-title")


@router.post("/incidents/{incident_id}/acknowledge")
async def acknowledge_incident(request: Request, incident_id: str, incidents: Incidents, person: OnDuty) -> Response:
    """The button of an incident: all of its alarms are acknowledged."""
    try:
        done = await incidents.acknowledge(incident_id, person)
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to(f"/alarms?notice={_acknowledged(done.off_duty)}#incidents-title")


@router.post("/calls/{call_id}/acknowledge")
async def acknowledge_call(request: Request, call_id: str, calls: Calls, person: OnDuty) -> Response:
    """The button of an emergency call: this person is going there."""
    try:
        done = await calls.acknowledge(call_id, person)
    except ProblemError as problem:
        return await _alarms_page(request, person, problem)
    return go_to(f"/alarms?notice={_acknowledged(done.off_duty)}#call-{call_id}")


def _acknowledged(off_duty: bool) -> str:  # noqa: FBT001  # its one argument, as the answer names it
    return "acknowledged_off_duty" if off_duty else "acknowledged"


async def _alarms_page(
    request: Request,
    person: Person,
    problem: ProblemError | None = None,
    alarms_after: str | None = None,
    notices_before: int | None = None,
) -> Response:
    alarms = services_of(request).get(AlarmService)
    wanted = _filter(request)
    found = await alarms.open_alarms(alarms_after, ROWS_MAX, wanted)
    incidents = services_of(request).get(IncidentService)
    told = await services_of(request).get(InboxService).notices(person, before=notices_before, limit=NOTICES_SHOWN)
    return await page(
        request,
        "alarms.html",
        person,
        problem,
        path="/alarms",
        alarms=[(alarm, alarms.definition(alarm.kind, alarm.key)) for alarm in found.alarms],
        more_alarms=found.next_before or "",
        wanted=wanted,
        priorities=list(Priority)[1:],
        kinds=devices.kinds().values(),
        sites=(await incidents.sites()).sites,
        incidents=(await incidents.incidents(is_open=True, before=None, limit=INCIDENTS_SHOWN)).incidents,
        hidden=await alarms.hidden(),
        shelve_hours=SHELVE_HOURS,
        shelve_s_max=SHELVE_S_MAX,
        notices=told.notices,
        more_notices=told.next_before or "",
        is_further_on=bool({"calls", "alarms", "notices", "incident_id"} & request.query_params.keys()),
    )


def _filter(request: Request) -> dict[str, str]:
    """What the filter of the list asks for; anything unknown asks for nothing."""
    asked = {name: request.query_params.get(name, "")[:200] for name in FILTERS}
    return {name: value for name, value in asked.items() if value}
