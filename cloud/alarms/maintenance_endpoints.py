"""Maintenance windows, and taking devices out of service, over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from cloud.alarms.maintenance import MaintenanceService
from cloud.alarms.schemas import OutageBody, ReasonBody, WindowAnswer, WindowBody, WindowList
from cloud.api.access import Person, allow
from cloud.api.services import service

router = APIRouter(prefix="/api/v1/maintenance", tags=["alarms"])

Maintenance = Annotated[MaintenanceService, Depends(service(MaintenanceService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]


@router.get("/windows")
async def list_windows(maintenance: Maintenance, _person: OnDuty) -> WindowList:
    """Maintenance windows, newest first."""
    return await maintenance.windows()


@router.post("/windows", status_code=201)
async def plan_window(body: WindowBody, maintenance: Maintenance, person: OnDuty) -> WindowAnswer:
    """Plan a window for a device; for a kind or a site as an admin. It hides alarms, never a call for help."""
    return await maintenance.plan(body, person)


@router.post("/windows/{window_id}/end")
async def end_window(window_id: str, body: ReasonBody, maintenance: Maintenance, person: OnDuty) -> WindowAnswer:
    """End a window before its time."""
    return await maintenance.end(window_id, person, body.reason)


@router.post("/hidden/{hiding_id}/end")
async def end_hiding(hiding_id: str, body: ReasonBody, maintenance: Maintenance, person: OnDuty) -> dict[str, Any]:
    """Show again what one shelf, outage or window of one device hides; `/api/v1/alarms/hidden` lists them."""
    return await maintenance.end_hiding(hiding_id, person, body.reason)


@router.post("/out-of-service")
async def out_of_service(body: OutageBody, maintenance: Maintenance, person: OnDuty) -> dict[str, Any]:
    """Take a device, or one of its alarms, out of service until somebody puts it back."""
    return await maintenance.out_of_service(body, person)


@router.post("/in-service")
async def in_service(body: OutageBody, maintenance: Maintenance, person: OnDuty) -> dict[str, Any]:
    """Put it back into service."""
    return await maintenance.in_service(body, person)
