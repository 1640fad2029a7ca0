"""How one is told: contact points, quiet hours, which channels for what, and this browser itself."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import ValidationError

from cloud.api.access import Person, public
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.notifications.schemas import ContactBody, PreferencesBody
from cloud.notifications.service import NotificationService
from cloud.web.pages.base import OnDuty, go_to, page
from cloud.web.templating import STATIC

router = APIRouter(include_in_schema=False)

Notifications = Annotated[NotificationService, Depends(service(NotificationService))]
ATTEMPTS_SHOWN = 10
PATH = "/me/notifications"


@router.get(PATH, response_class=HTMLResponse)
async def own_notifications(request: Request, notifications: Notifications, person: OnDuty) -> Response:
    """The page."""
    return await _page(request, notifications, person)


@router.get(
    "/service-worker.js", dependencies=[Depends(public("browsers fetch it without a session to show notifications"))]
)
async def service_worker() -> Response:
    """What shows pushed notifications; it must lie at the root to answer for all pages."""
    return FileResponse(
        STATIC / "service-worker.js", media_type="text/javascript", headers={"cache-control": "no-cache"}
    )


@router.post(f"{PATH}/contacts")
async def add(
    request: Request,
    notifications: Notifications,
    person: OnDuty,
    channel: Annotated[str, Form(max_length=16)],
    address: Annotated[str, Form(max_length=2000)] = "",
    label: Annotated[str, Form(max_length=60)] = "",
) -> Response:
    """The form with a number, a mail address or a bot."""
    try:
        body = ContactBody.model_validate({"channel": channel, "address": address, "label": label})
        await notifications.add_contact(body, person)
    except ValidationError:
        return await _page(request, notifications, person, ProblemError(422, "invalid_input", "Input not valid"))
    except ProblemError as problem:
        return await _page(request, notifications, person, problem)
    return go_to(f"{PATH}#contacts")


@router.post(f"{PATH}/contacts/{{contact_id}}/{{act}}")
async def change(
    request: Request,
    contact_id: str,
    act: str,
    notifications: Notifications,
    person: OnDuty,
    code: Annotated[str, Form(max_length=12)] = "",
) -> Response:
    """The buttons of one contact point: `verify`, `code`, `test`, `remove`."""
    try:
        if act == "verify":
            await notifications.verify(contact_id, code, person)
        elif act == "code":
            await notifications.send_code(contact_id, person)
        elif act == "test":
            await notifications.test(contact_id, person)
        elif act == "remove":
            await notifications.remove(contact_id, person)
        else:
            raise ProblemError(404, "not_found", "No such button")
    except ProblemError as problem:
        return await _page(request, notifications, person, problem)
    return go_to(f"{PATH}#contacts")


@router.post(f"{PATH}/preferences")
async def set_preferences(request: Request, notifications: Notifications, person: OnDuty) -> Response:
    """The form with quiet hours, channels and language."""
    form: Any = await request.form()
    try:
        body = PreferencesBody.model_validate({
            "channels": {priority: form.getlist(priority) for priority in ("high", "medium", "low")},
            "quiet_from_minute": _minute(str(form.get("quiet_from", ""))),
            "quiet_until_minute": _minute(str(form.get("quiet_until", ""))),
            "time_zone": form.get("time_zone", ""),
            "language": form.get("language", ""),
        })  # fmt: skip
    except ValueError:
        return await _page(request, notifications, person, ProblemError(422, "invalid_input", "Input not valid"))
    await notifications.set_preferences(body, person)
    return go_to(f"{PATH}#preferences")


def _minute(text: str) -> int | None:
    """`22:30` → 1350; empty → None. Raises ValueError."""
    if not text:
        return None
    hours, colon, minutes = text.partition(":")
    if not colon:
        raise ValueError("write hours and minutes, as in 22:30")
    return int(hours) * 60 + int(minutes)


async def _page(
    request: Request, notifications: NotificationService, person: Person, problem: ProblemError | None = None
) -> Response:
    attempts = await notifications.deliveries({"recipient": person.id}, None, ATTEMPTS_SHOWN)
    return await page(
        request,
        "notifications.html",
        person,
        problem,
        path=PATH,
        found=await notifications.contacts(person.id),
        wishes=await notifications.preferences(person.id),
        attempts=attempts.deliveries,
        push_key=notifications.push_public_key,
    )
