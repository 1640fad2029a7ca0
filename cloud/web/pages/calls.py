"""Emergency calls: the list, each second of one, and the buttons that need somebody."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse

from cloud.api.access import Person
from cloud.api.paging import MARK_LENGTH_MAX
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.calls.service import CallService
from cloud.calls.timeline import timeline
from cloud.supervision.schemas import BeginTest, RecordMeasure
from cloud.supervision.service import SupervisionService
from cloud.web.pages.base import OnDuty, clock_of, go_to, page, services_of

router = APIRouter(include_in_schema=False)

ROWS_MAX = 50
BUTTONS_SHOWN_MAX = 100
TEST_SECONDS = 120.0
HOUR_MS = 3_600_000

Calls = Annotated[CallService, Depends(service(CallService))]
Supervision = Annotated[SupervisionService, Depends(service(SupervisionService))]


@router.get("/calls", response_class=HTMLResponse)
async def calls(
    request: Request,
    person: OnDuty,
    before: Annotated[str | None, Query(max_length=MARK_LENGTH_MAX)] = None,
) -> Response:
    """Whether calls arrive, buttons that need somebody, and all calls, newest first."""
    return await _page(request, person, before=before)


@router.get("/calls/{call_id}", response_class=HTMLResponse)
async def one_call(request: Request, call_id: str, calls: Calls, person: OnDuty) -> Response:
    """Each second of one call, and who did what."""
    call = await calls.call(call_id, person)
    return await page(request, "call.html", person, call=call, moments=timeline(call))


@router.post("/rooms/{device_id}/test")
async def begin_test(request: Request, device_id: str, supervision: Supervision, person: OnDuty) -> Response:
    """The button of a proof test: the next press there is one."""
    try:
        await supervision.begin_test(device_id, BeginTest(seconds=TEST_SECONDS), person)
    except ProblemError as problem:
        return await _page(request, person, problem)
    return go_to(f"/calls?notice=test_begun#room-{device_id}")


@router.post("/rooms/{device_id}/substitute")
async def record_measure(
    request: Request,
    device_id: str,
    supervision: Supervision,
    person: OnDuty,
    *,
    measure: Annotated[str, Form(min_length=3, max_length=500)],
    responsible: Annotated[str, Form(min_length=1, max_length=100)],
    hours: Annotated[int, Form(ge=1, le=168)],
) -> Response:
    """The form of a substitute measure."""
    until_at = clock_of(request).now_ms() + hours * HOUR_MS
    try:
        body = RecordMeasure(measure=measure, responsible=responsible, until_at=until_at)
        await supervision.record_measure(device_id, body, person)
    except ProblemError as problem:
        return await _page(request, person, problem)
    return go_to(f"/calls?notice=measure_recorded#room-{device_id}")


async def _page(
    request: Request, person: Person, problem: ProblemError | None = None, before: str | None = None
) -> Response:
    services = services_of(request)
    supervision = services.get(SupervisionService)
    found = await services.get(CallService).calls(person, is_open=None, device_id=None, before=before, limit=ROWS_MAX)
    buttons = await supervision.needing_somebody()
    titles = supervision.titles()
    return await page(
        request, "calls.html", person, problem, path="/calls", calls=found.calls, older=found.next_before or "",
        buttons=buttons[:BUTTONS_SHOWN_MAX], buttons_more=max(0, len(buttons) - BUTTONS_SHOWN_MAX), titles=titles,
        supervision=supervision.chain(),
    )  # fmt: skip
