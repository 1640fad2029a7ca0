"""What every page has: the person, the language, the banner of open calls, a notice after a form."""

from typing import Annotated, Any, Final, cast

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from cloud.api.access import Person, Role, allow
from cloud.api.services import Services
from cloud.settings import CloudSettings
from cloud.web.language import language_of
from cloud.web.read_models import ReadModels
from cloud.web.templating import render
from fleet.clock import Clock

OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Anybody = Annotated[Person, Depends(allow("employee", "crew", "admin"))]

NOTICES: Final = frozenset({"acknowledged", "order_moved", "command_sent", "purchase_made", "ride_asked"})
"""What a page may be asked to say after a form; its words stand in `base.html`."""


def read_models(request: Request) -> ReadModels:
    """The pages' own queries."""
    return cast(Services, request.app.state.services).get(ReadModels)


def clock_of(request: Request) -> Clock:
    return cast(Clock, request.app.state.clock)


async def page(request: Request, template: str, person: Person, **values: Any) -> HTMLResponse:
    """Render a page for somebody who is signed in."""
    on_duty = person.role in {Role.CREW, Role.ADMIN}
    notice = request.query_params.get("notice", "")
    settings = cast(CloudSettings, request.app.state.settings)
    return render(
        template,
        language_of(request, person),
        person=person,
        on_duty=on_duty,
        open_calls=await read_models(request).open_calls() if on_duty else [],
        notice=notice if notice in NOTICES else "",
        now_ms=clock_of(request).now_ms(),
        clock_speed=clock_of(request).speed,
        path=request.url.path,
        here=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        map_tiles_url=settings.map_tiles_url,
        map_tiles_attribution=settings.map_tiles_attribution,
        **values,
    )


def go_to(path: str) -> Response:
    """Answer a form: load that page."""
    return RedirectResponse(path, 303)


def local_path(wanted: str) -> str:
    """`wanted` if it is a path of ours, else the start page: nobody is sent elsewhere after signing in."""
    plain = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if plain and "\\" not in wanted else "/"
