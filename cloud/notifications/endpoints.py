"""Deliveries, contact points and wishes over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from cloud.api.access import Person, Role, allow
from cloud.api.services import service
from cloud.notifications.schemas import (
    CodeBody,
    ContactAnswer,
    ContactBody,
    ContactList,
    DeliveryList,
    Outcome,
    PreferencesBody,
    PushKeyAnswer,
)
from cloud.notifications.service import NotificationService

router = APIRouter(prefix="/api/v1/notifications", tags=["notifications"])

Notifications = Annotated[NotificationService, Depends(service(NotificationService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]


@router.get("/deliveries")
async def list_deliveries(
    notifications: Notifications,
    _person: OnDuty,
    *,
    reference: Annotated[str | None, Query(max_length=200, description="id of a call, alarm or order")] = None,
    channel: Annotated[str | None, Query(max_length=64)] = None,
    recipient: Annotated[str | None, Query(max_length=64, description="id of a person")] = None,
    outcome: Annotated[Outcome | None, Query()] = None,
    delivery_id: Annotated[str | None, Query(max_length=64)] = None,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="`next_before` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> DeliveryList:
    """Every attempt to tell somebody, newest first."""
    wanted = {
        "reference": reference, "channel": channel, "recipient": recipient, "outcome": outcome,
        "delivery_id": delivery_id,
    }  # fmt: skip
    chosen = {name: str(value) for name, value in wanted.items() if value is not None}
    return await notifications.deliveries(chosen, before, limit)


@router.get("/contacts")
async def list_contacts(
    notifications: Notifications,
    person: OnDuty,
    person_id: Annotated[str | None, Query(max_length=64, description="somebody else: for admins")] = None,
) -> ContactList:
    """How I am reached; for admins, how somebody else is, with addresses shortened."""
    own = person_id is None or person_id == person.id or person.role is not Role.ADMIN
    return await notifications.contacts(person.id if own else person_id, to_owner=own)


@router.post("/contacts", status_code=201)
async def add_contact(body: ContactBody, notifications: Notifications, person: OnDuty) -> ContactAnswer:
    """A new way to me. A code is sent through it; nothing else is before it was typed here."""
    return await notifications.add_contact(body, person)


@router.post("/contacts/{contact_id}/code")
async def send_code(contact_id: str, notifications: Notifications, person: OnDuty) -> ContactAnswer:
    """Another code."""
    return await notifications.send_code(contact_id, person)


@router.post("/contacts/{contact_id}/verify")
async def verify(contact_id: str, body: CodeBody, notifications: Notifications, person: OnDuty) -> ContactAnswer:
    """The code that came."""
    return await notifications.verify(contact_id, body.code, person)


@router.post("/contacts/{contact_id}/test")
async def send_test(contact_id: str, notifications: Notifications, person: OnDuty) -> dict[str, str]:
    """Send a test there; `delivery_id` names it in the log."""
    return {"delivery_id": await notifications.test(contact_id, person)}


@router.delete("/contacts/{contact_id}", status_code=204, response_class=Response)
async def remove(contact_id: str, notifications: Notifications, person: OnDuty) -> None:
    """Forget it."""
    await notifications.remove(contact_id, person)


@router.get("/preferences")
async def read_preferences(notifications: Notifications, person: OnDuty) -> PreferencesBody:
    """What I want of notices that are no emergency."""
    return await notifications.preferences(person.id)


@router.put("/preferences")
async def set_preferences(body: PreferencesBody, notifications: Notifications, person: OnDuty) -> PreferencesBody:
    """Change it. Emergencies ignore all of it."""
    return await notifications.set_preferences(body, person)


@router.get("/push-key")
async def push_key(notifications: Notifications, _person: OnDuty) -> PushKeyAnswer:
    """What a browser subscribes to."""
    return PushKeyAnswer(public_key=notifications.push_public_key)
