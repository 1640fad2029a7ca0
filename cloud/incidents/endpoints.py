"""Incidents and sites over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.alarms.schemas import AcknowledgeBody
from cloud.api.access import Person, allow
from cloud.api.paging import Before
from cloud.api.services import service
from cloud.incidents.schemas import IncidentAcknowledged, IncidentAnswer, IncidentList, SiteBody, SiteList
from cloud.incidents.service import IncidentService

router = APIRouter(prefix="/api/v1", tags=["alarms"])

Incidents = Annotated[IncidentService, Depends(service(IncidentService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]


@router.get("/incidents")
async def list_incidents(
    incidents: Incidents,
    _person: OnDuty,
    *,
    is_open: Annotated[bool, Query(alias="open", description="leave out those that ended")] = False,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> IncidentList:
    """Incidents, newest first: many alarms with one cause."""
    return await incidents.incidents(is_open=is_open, before=before, limit=limit)


@router.get("/incidents/{incident_id}")
async def one_incident(incident_id: str, incidents: Incidents, _person: OnDuty) -> IncidentAnswer:
    """One incident with its alarms and its history."""
    return await incidents.incident(incident_id)


@router.post("/incidents/{incident_id}/acknowledge")
async def acknowledge_incident(
    incident_id: str, incidents: Incidents, person: OnDuty, body: AcknowledgeBody | None = None
) -> IncidentAcknowledged:
    """Say that you have seen it: acknowledges every alarm of it."""
    return await incidents.acknowledge(incident_id, person, body.note if body else "")


@router.get("/sites")
async def list_sites(incidents: Incidents, _person: OnDuty) -> SiteList:
    """Buildings and places that devices share, with how many alarms are open there."""
    return await incidents.sites()


@router.put("/sites")
async def set_site(
    body: SiteBody, incidents: Incidents, person: Annotated[Person, Depends(allow("admin"))]
) -> SiteList:
    """Say where devices stand."""
    return await incidents.set_site(body, person)
