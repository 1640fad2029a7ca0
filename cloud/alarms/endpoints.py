"""Alarms over HTTP."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from cloud.alarms.schemas import (
    AcknowledgeBody,
    AlarmAnswer,
    AlarmList,
    BulkAnswer,
    BulkBody,
    HiddenList,
    ReasonBody,
    ShelveBody,
)
from cloud.alarms.service import AlarmService
from cloud.alarms.statistics import AlarmStatistics
from cloud.api.access import Person, allow
from cloud.api.paging import Before
from cloud.api.services import service
from fleet.incident import AlarmState, AlarmView, Priority

router = APIRouter(prefix="/api/v1/alarms", tags=["alarms"])

Alarms = Annotated[AlarmService, Depends(service(AlarmService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]


@router.get("")
async def list_alarms(
    alarms: Alarms,
    _person: OnDuty,
    *,
    state: Annotated[AlarmState | None, Query()] = None,
    view: Annotated[AlarmView | None, Query(description="only those shown, shelved …")] = None,
    hidden: Annotated[Literal["yes", "no"] | None, Query(description="only open ones that are (not) hidden")] = None,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    priority: Annotated[Priority | None, Query()] = None,
    device_id: Annotated[str | None, Query(max_length=32)] = None,
    site: Annotated[str | None, Query(max_length=200)] = None,
    incident_id: Annotated[str | None, Query(max_length=64)] = None,
    is_open: Annotated[bool, Query(alias="open", description="leave out what is back to normal")] = False,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AlarmList:
    """Alarms, newest first."""
    wanted = {
        "state": state, "view": view, "hidden": hidden, "kind": kind, "priority": priority, "device_id": device_id,
        "site": site, "incident_id": incident_id,
    }  # fmt: skip
    chosen = {column: str(value) for column, value in wanted.items() if value is not None}
    return await alarms.alarms(chosen, is_open=is_open, before=before, limit=limit)


@router.get("/hidden")
async def list_hidden(alarms: Alarms, _person: OnDuty) -> HiddenList:
    """What is hidden, by whom, why and until when."""
    return await alarms.hidden()


@router.get("/statistics")
async def read_statistics(
    alarms: Alarms, _person: OnDuty, days: Annotated[int, Query(ge=1, le=92)] = 7
) -> AlarmStatistics:
    """The load on people: per day, per person and ten minutes, bad actors, chattering, stale."""
    return await alarms.statistics(days)


@router.post("/acts")
async def act_on_many(body: BulkBody, alarms: Alarms, person: OnDuty) -> BulkAnswer:
    """One act on many alarms; each is done or refused on its own."""
    return await alarms.bulk(body, person)


@router.get("/{alarm_id}")
async def one_alarm(alarm_id: str, alarms: Alarms, _person: OnDuty) -> AlarmAnswer:
    """One alarm with every transition, and what it means and demands."""
    return await alarms.alarm(alarm_id)


@router.post("/{alarm_id}/acknowledge")
async def acknowledge(
    alarm_id: str, alarms: Alarms, person: OnDuty, body: AcknowledgeBody | None = None
) -> AlarmAnswer:
    """Say that you have seen it. It stays until its cause is gone."""
    return await alarms.acknowledge(alarm_id, person, body.note if body else "")


@router.post("/{alarm_id}/shelve")
async def shelve(alarm_id: str, body: ShelveBody, alarms: Alarms, person: OnDuty) -> AlarmAnswer:
    """Hide it for a while, at most the maximum of its priority; one-shot ends when it returns."""
    return await alarms.shelve(alarm_id, person, body)


@router.post("/{alarm_id}/unshelve")
async def unshelve(alarm_id: str, body: ReasonBody, alarms: Alarms, person: OnDuty) -> AlarmAnswer:
    """Show it again before its time."""
    return await alarms.unshelve(alarm_id, person, body.reason)


@router.post("/{alarm_id}/reset-latch")
async def reset_latch(alarm_id: str, body: ReasonBody, alarms: Alarms, person: OnDuty) -> AlarmAnswer:
    """Say that the device was inspected on site."""
    return await alarms.reset_latch(alarm_id, person, body.reason)
