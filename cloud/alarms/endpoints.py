"""Alarms over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.alarms.schemas import AcknowledgeBody, AlarmAnswer, AlarmList
from cloud.alarms.service import AlarmService
from cloud.api.access import Person, allow
from cloud.api.paging import Before
from cloud.api.services import service
from fleet.incident import AlarmState, Priority

router = APIRouter(prefix="/api/v1/alarms", tags=["alarms"])

Alarms = Annotated[AlarmService, Depends(service(AlarmService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]


@router.get("")
async def list_alarms(
    alarms: Alarms,
    _person: OnDuty,
    *,
    state: Annotated[AlarmState | None, Query()] = None,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    priority: Annotated[Priority | None, Query()] = None,
    device_id: Annotated[str | None, Query(max_length=32)] = None,
    is_open: Annotated[bool, Query(alias="open", description="leave out what is back to normal")] = False,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AlarmList:
    """Alarms, newest first."""
    wanted = {"state": state, "kind": kind, "priority": priority, "device_id": device_id}
    chosen = {column: str(value) for column, value in wanted.items() if value is not None}
    return await alarms.alarms(chosen, is_open=is_open, before=before, limit=limit)


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
