"""What every page has: the person, the language, the banner of open calls, a notice after a form."""

from typing import Annotated, Any, Final, cast

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from cloud.api.access import Person, Role, allow
from cloud.api.problem import ProblemError
from cloud.api.services import Services
from cloud.calls.schemas import CallList
from cloud.calls.service import CallService
from cloud.settings import CloudSettings
from cloud.supervision.service import SupervisionService
from cloud.web.language import language_of
from cloud.web.templating import render
from fleet.clock import Clock

OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Employee = Annotated[Person, Depends(allow("employee"))]
Anybody = Annotated[Person, Depends(allow("employee", "crew", "admin"))]

CALLS_SHOWN_MAX: Final = 200
NOTICES: Final = frozenset({
    "acknowledged", "order_moved", "command_sent", "purchase_made", "ride_asked", "box_approved", "box_rejected",
    "device_revoked", "scanned", "order_made", "planned", "noted", "roster_changed", "handed_over", "shelved",
    "latch_reset", "shown_again", "test_begun", "measure_recorded", "acknowledged_off_duty",
    "order_moved_off_duty",
})  # fmt: skip
"""What a page may be asked to say after a form; its words stand in `base.html`."""


def clock_of(request: Request) -> Clock:
    """Business time."""
    return cast(Clock, request.app.state.clock)


def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


async def page(
    request: Request, template: str, person: Person, problem: ProblemError | None = None, **values: Any
) -> HTMLResponse:
    """Render a page for somebody who is signed in; `problem` is said on top and gives the status."""
    on_duty = person.role in {Role.CREW, Role.ADMIN}
    notice = request.query_params.get("notice", "")
    settings = cast(CloudSettings, request.app.state.settings)
    calls = await open_calls(request) if on_duty else CallList(calls=[], next_before=None)
    # After a form that was refused, the address is the form's; links back lead to the page itself.
    own_path = str(values.pop("path", request.url.path))
    path = request.url.path if request.method == "GET" else own_path
    query = f"?{request.url.query}" if request.method == "GET" and request.url.query else ""
    return render(
        template,
        language_of(request, person),
        problem.status if problem else 200,
        person=person,
        on_duty=on_duty,
        open_calls=calls.calls,
        more_calls=calls.next_before or "",
        chain=services_of(request).get(SupervisionService).chain() if on_duty else None,
        notice=notice if notice in NOTICES and problem is None else "",
        problem=problem,
        now_ms=clock_of(request).now_ms(),
        clock_speed=clock_of(request).speed,
        path=path,
        here=path + query,
        **{"map_tiles_url": settings.map_tiles_url, "map_tiles_attribution": settings.map_tiles_attribution, **values},
    )


async def open_calls(request: Request) -> CallList:
    """Emergency calls that are not cleared: those that nobody accepted first, then the oldest.

    The query `calls` of an address leads to those further on.
    """
    after = request.query_params.get("calls") if request.method == "GET" else None
    return await services_of(request).get(CallService).open_calls(after, CALLS_SHOWN_MAX)


def go_to(path: str) -> Response:
    """Answer a form: load that page."""
    return RedirectResponse(path, 303)


def local_path(wanted: str) -> str:
    """`wanted` if it is a path of ours, else the start page: nobody is sent elsewhere after signing in."""
    plain = wanted.startswith("/") and not wanted.startswith("//") and wanted.isprintable()
    return wanted if plain and "\\" not in wanted else "/"
