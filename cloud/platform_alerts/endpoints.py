"""Grafana tells of the platform over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header

from cloud.api.access import public
from cloud.api.services import service
from cloud.platform_alerts.schemas import AlertPost, AlertsTaken
from cloud.platform_alerts.service import PlatformAlertService

router = APIRouter(prefix="/api/v1/platform-alerts", tags=["operations"])

Alerts = Annotated[PlatformAlertService, Depends(service(PlatformAlertService))]


async def admitted(
    alerts: Alerts, authorization: Annotated[str, Header(max_length=500, description="`Bearer` and the secret")] = ""
) -> PlatformAlertService:
    """Before the body is looked at."""
    alerts.admit(authorization)
    return alerts


@router.post("", dependencies=[Depends(public("Grafana has no session; the route demands a secret of its own"))])
async def take_alerts(post: AlertPost, alerts: Annotated[PlatformAlertService, Depends(admitted)]) -> AlertsTaken:
    """What Grafana's alert rules found; each outbreak and its end is told once, whatever is repeated."""
    return await alerts.take(post)
