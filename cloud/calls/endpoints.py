"""Emergency calls over HTTP. There is deliberately no route that clears one: only the room itself can."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.api.access import Person, allow
from cloud.api.paging import Before
from cloud.api.services import service
from cloud.calls.schemas import CallAnswer, CallList
from cloud.calls.service import CallService

router = APIRouter(prefix="/api/v1/calls", tags=["calls"])

Calls = Annotated[CallService, Depends(service(CallService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]


@router.get("")
async def list_calls(
    calls: Calls,
    person: OnDuty,
    *,
    is_open: Annotated[bool | None, Query(alias="open", description="true: not cleared; false: history")] = None,
    device_id: Annotated[str | None, Query(max_length=32)] = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CallList:
    """Calls, newest first, each with every step from press to cleared."""
    return await calls.calls(person, is_open=is_open, device_id=device_id, before=before, limit=limit)


@router.get("/{call_id}")
async def one_call(call_id: str, calls: Calls, person: OnDuty) -> CallAnswer:
    """One call with every step from press to cleared."""
    return await calls.call(call_id, person)


@router.post("/{call_id}/acknowledge")
async def acknowledge(call_id: str, calls: Calls, person: OnDuty) -> CallAnswer:
    """Say that you are going there: nobody else is paged any more, and the room shows that help is coming."""
    return await calls.acknowledge(call_id, person)
