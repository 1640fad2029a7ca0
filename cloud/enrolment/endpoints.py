"""Enrolment over HTTP: two doors. Boxes come with a claim, admins with a session."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request

from cloud.api.access import Person, allow, public
from cloud.api.services import service
from cloud.enrolment.schemas import (
    AuthorityAnswer,
    ClaimAnswer,
    ClaimBody,
    DecisionBody,
    EnrolmentAnswer,
    EnrolmentBody,
    IdentityAnswer,
    ReasonBody,
    WaitingList,
)
from cloud.enrolment.service import EnrolmentService
from cloud.members.endpoints import address_of

router = APIRouter(prefix="/api/v1", tags=["enrolment"])

Enrolments = Annotated[EnrolmentService, Depends(service(EnrolmentService))]
Admin = Annotated[Person, Depends(allow("admin"))]


@router.get("/enrolments/authority", dependencies=[Depends(public("a certificate is public; boxes check its pin"))])
async def authority(enrolments: Enrolments) -> AuthorityAnswer:
    """The root certificate that boxes are to trust; they compare it with the pin in their claim."""
    return AuthorityAnswer(authority=enrolments.authority())


@router.post("/enrolments", status_code=202, dependencies=[Depends(public("a box without identity has only a claim"))])
async def ask(body: EnrolmentBody, request: Request, enrolments: Enrolments) -> EnrolmentAnswer:
    """Ask for a certificate with a claim. Asking again with the same key finds the same request."""
    return await enrolments.ask(body, address_of(request))


@router.get("/enrolments/{enrolment_id}", dependencies=[Depends(public("the box shows the secret of its request"))])
async def progress(
    enrolment_id: str,
    request: Request,
    enrolments: Enrolments,
    secret: Annotated[str, Header(alias="x-enrolment-secret", max_length=128)] = "",
) -> EnrolmentAnswer:
    """How far the request came; from `granted` on with the certificate."""
    return await enrolments.progress(enrolment_id, secret, address_of(request))


@router.get("/enrolments")
async def waiting(enrolments: Enrolments, _admin: Admin) -> WaitingList:
    """Boxes that wait for approval, oldest first."""
    return WaitingList(waiting=await enrolments.waiting())


@router.post("/devices/{device_id}/claims", status_code=201)
async def claim(device_id: str, body: ClaimBody, enrolments: Enrolments, admin: Admin) -> ClaimAnswer:
    """A single-use claim for one piece of hardware, good for 15 minutes and shown this once."""
    text, expires_at = await enrolments.claim(device_id, body.hardware_serial, admin)
    return ClaimAnswer(device_id=device_id, hardware_serial=body.hardware_serial, claim=text, expires_at=expires_at)


@router.get("/devices/{device_id}/identity")
async def identity(device_id: str, enrolments: Enrolments, _admin: Admin) -> IdentityAnswer:
    """Certificates, the box that waits, and what was tried."""
    return await enrolments.identity(device_id)


@router.post("/devices/{device_id}/approve", status_code=204)
async def approve(device_id: str, body: DecisionBody, enrolments: Enrolments, admin: Admin) -> None:
    """Give the box that waits its certificate, if it has the key with this fingerprint."""
    await enrolments.approve(device_id, body.fingerprint, admin)


@router.post("/devices/{device_id}/reject", status_code=204)
async def reject(device_id: str, body: ReasonBody, enrolments: Enrolments, admin: Admin) -> None:
    """Give the box that waits nothing."""
    await enrolments.reject(device_id, body.reason, admin)


@router.post("/devices/{device_id}/revoke", status_code=204)
async def revoke(device_id: str, body: ReasonBody, enrolments: Enrolments, admin: Admin) -> None:
    """Nobody may speak as this device until it is enrolled anew."""
    await enrolments.revoke(device_id, body.reason, admin)
