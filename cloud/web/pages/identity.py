"""Who may speak as a device, on its page: approving the box that waits, rejecting it, revoking the device."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from cloud.api.access import Person, Role, allow
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.enrolment.schemas import IdentityAnswer
from cloud.enrolment.service import EnrolmentService
from cloud.web.pages.base import go_to, services_of

router = APIRouter(include_in_schema=False)

Enrolments = Annotated[EnrolmentService, Depends(service(EnrolmentService))]
Admin = Annotated[Person, Depends(allow("admin"))]
REASON_CHARACTERS_MAX = 200


async def identity_of(request: Request, device_id: str, person: Person) -> IdentityAnswer | None:
    """What the page shows of a device's identity: to admins alone."""
    if person.role is not Role.ADMIN:
        return None
    return await services_of(request).get(EnrolmentService).identity(device_id)


@router.post("/devices/{device_id}/approve")
async def approve(request: Request, device_id: str, enrolments: Enrolments, person: Admin) -> Response:
    """Approve exactly the key that was shown."""
    await enrolments.approve(device_id, await _field(request, "fingerprint"), person)
    return go_to(f"/devices/{device_id}?notice=box_approved#identity")


@router.post("/devices/{device_id}/reject")
async def reject(request: Request, device_id: str, enrolments: Enrolments, person: Admin) -> Response:
    """Give the box that waits nothing."""
    del request
    await enrolments.reject(device_id, "rejected on the device's page", person)
    return go_to(f"/devices/{device_id}?notice=box_rejected#identity")


@router.post("/devices/{device_id}/revoke")
async def revoke(request: Request, device_id: str, enrolments: Enrolments, person: Admin) -> Response:
    """Nobody may speak as this device any more."""
    await enrolments.revoke(device_id, await _field(request, "reason"), person)
    return go_to(f"/devices/{device_id}?notice=device_revoked#identity")


async def _field(request: Request, name: str) -> str:
    form: Any = await request.form()
    text = str(form.get(name, "")).strip()
    if not text:
        raise ProblemError(422, "field_missing", "Something is missing", f"Fill in {name}.")
    return text[:REASON_CHARACTERS_MAX]
