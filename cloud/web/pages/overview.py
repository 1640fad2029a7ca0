"""The fleet at a glance."""

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

import devices
from cloud.api.access import Role
from cloud.api.services import service
from cloud.devices import views
from cloud.devices.service import DeviceService
from cloud.web.pages.base import Anybody, go_to, page

router = APIRouter(include_in_schema=False)

PAGE_ROWS = 25
Status = Literal["", "online", "silent", "alarm", "retired"]


@router.get("/", response_class=HTMLResponse)
async def overview(
    request: Request,
    fleet: Annotated[DeviceService, Depends(service(DeviceService))],
    person: Anybody,
    kind: Annotated[str, Query(max_length=64)] = "",
    q: Annotated[str, Query(max_length=64)] = "",
    state: Status = "",
    after: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Counts, map and list for those on duty; employees have their own page."""
    if person.role == Role.EMPLOYEE:
        return go_to("/me")
    counts, waiting = await fleet.counts()
    rows = await fleet.lines(kind=kind, words=q.strip(), status=state, after=after, limit=PAGE_ROWS + 1)
    lines = [views.device_line(row) for row in rows[:PAGE_ROWS]]
    chosen = {"kind": kind, "q": q, "state": state}
    more = "/?" + urlencode({**chosen, "after": lines[-1].device_id}) + "#list" if len(rows) > PAGE_ROWS else ""
    return await page(
        request,
        "overview.html",
        person,
        fleet=views.fleet(counts, waiting, fleet.now_ms()),
        lines=lines,
        titles={name: installed.title for name, installed in devices.kinds().items()},
        chosen=chosen,
        is_filtered=any(chosen.values()),
        more=more,
    )
