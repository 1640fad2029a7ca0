"""Who is on duty: now, the next two weeks with their holes, hand-overs, swaps; admins also bring in rosters."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from cloud.api.access import Person, Role, allow
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.roster import calendars
from cloud.roster.check import DAYS
from cloud.roster.duty import SKILLS
from cloud.roster.schemas import (
    CheckAnswer,
    CrewBody,
    FileFormat,
    ImportAnswer,
    MemberBody,
    RosterAnswer,
    ShiftAnswer,
    TakeOverBody,
    Tier,
)
from cloud.roster.service import RosterService
from cloud.web.pages.base import OnDuty, clock_of, go_to, page, services_of

router = APIRouter(include_in_schema=False)

Rosters = Annotated[RosterService, Depends(service(RosterService))]
Admin = Annotated[Person, Depends(allow("admin"))]
Word = Annotated[str, Form(max_length=64)]
SHOWN_HANDOVERS: Final = 5
LINE_WIDTH: Final = 1000


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a time line: `x` and `width` of `LINE_WIDTH`; `look` is covered, uncovered or unreached."""

    x: float
    width: float
    look: str


@router.get("/roster", response_class=HTMLResponse)
async def roster(request: Request, person: OnDuty) -> Response:
    """The page."""
    return await _page(request, person)


@router.post("/roster/take-over")
async def take_over(
    request: Request,
    rosters: Rosters,
    person: OnDuty,
    from_person: Word,
    to_person: Word = "",
    begin: Word = "",
    end: Word = "",
) -> Response:
    """The form of a swap; times are those of the roster's clock."""
    try:
        at, until = _moment(begin, rosters), _moment(end, rosters)
        await rosters.take_over(TakeOverBody(from_person=from_person, to_person=to_person, at=at, until=until), person)
    except ProblemError as problem:
        return await _page(request, person, problem)
    return go_to("/roster?notice=roster_changed#now")


@router.post("/roster/leave")
async def leave(
    request: Request,
    rosters: Rosters,
    person: OnDuty,
    tier: Annotated[Tier, Form()],
    note: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """The form of who goes off duty."""
    try:
        await rosters.leave(tier.value, note.strip(), person)
    except ProblemError as problem:
        return await _page(request, person, problem)
    return go_to("/roster?notice=handed_over#handovers")


@router.post("/roster/handovers/{handover_id}/confirm")
async def confirm(request: Request, handover_id: str, rosters: Rosters, person: OnDuty) -> Response:
    """The button of who comes."""
    try:
        await rosters.confirm(handover_id, person)
    except ProblemError as problem:
        return await _page(request, person, problem)
    return go_to("/roster?notice=handed_over#handovers")


@router.post("/roster/calendar")
async def calendar(request: Request, rosters: Rosters, person: OnDuty) -> Response:
    """A new address for one's own calendar program; it is shown once."""
    return await _page(request, person, feed=(await rosters.new_feed(person)).path)


@router.post("/roster/import")
async def import_roster(request: Request, rosters: Rosters, person: Admin) -> Response:
    """The file of an admin: `act` says whether it is only looked at."""
    form = await request.form()
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        return await _page(request, person, ProblemError(422, "file_missing", "No file", "Choose a file first."))
    kind = FileFormat.ICAL if file.filename.lower().endswith((".ics", ".ical")) else FileFormat.CSV
    dry_run = form.get("act") != "import"
    raw = await file.read()
    replace = form.get("replace") == "on"
    try:
        answer = await rosters.import_file(raw, kind, person, dry_run=True, replace=replace)
        if not dry_run and not answer.bad:
            answer = await rosters.import_file(raw, kind, person, dry_run=False, replace=replace)
    except ProblemError as problem:
        return await _page(request, person, problem)
    return await _page(request, person, imported=answer)


@router.post("/roster/crews")
async def put_crew(
    request: Request,
    rosters: Rosters,
    person: Admin,
    crew_id: Annotated[str, Form(pattern=r"^[a-z0-9-]{1,32}$")],
    name_zh: Word,
    name_en: Word,
    latitude: Annotated[float, Form(ge=-90, le=90)],
    longitude: Annotated[float, Form(ge=-180, le=180)],
    vehicle_capacity: Annotated[int, Form(ge=0, le=100_000)],
) -> Response:
    """The form of a crew."""
    try:
        body = CrewBody(
            name_zh=name_zh, name_en=name_en, latitude=latitude, longitude=longitude, vehicle_capacity=vehicle_capacity
        )
        await rosters.put_crew(crew_id, body, person)
    except ValidationError:
        return await _page(request, person, ProblemError(422, "invalid_input", "Input not valid"))
    except ProblemError as problem:
        return await _page(request, person, problem)
    return go_to("/roster?notice=roster_changed#crews")


@router.post("/roster/members/{person_id}")
async def put_member(request: Request, person_id: str, rosters: Rosters, person: Admin) -> Response:
    """The form of a member: crew and skills."""
    form = await request.form()
    skills = [str(one) for one in form.getlist("skill")]
    try:
        body = MemberBody.model_validate({"crew_id": str(form.get("crew_id", "")) or None, "skills": skills})
        await rosters.put_member(person_id, body, person)
    except ValidationError:
        return await _page(request, person, ProblemError(422, "invalid_input", "Input not valid"))
    except ProblemError as problem:
        return await _page(request, person, problem)
    return go_to("/roster?notice=roster_changed#crews")


def _moment(text: str, rosters: RosterService) -> int | None:
    if not text:
        return None
    try:
        return calendars.ms_of(calendars.aware(datetime.fromisoformat(text), rosters.zone))
    except ValueError:
        raise ProblemError(422, "invalid_input", "Input not valid") from None


async def _page(
    request: Request,
    person: Person,
    problem: ProblemError | None = None,
    imported: ImportAnswer | None = None,
    feed: str = "",
) -> Response:
    rosters = services_of(request).get(RosterService)
    now_ms = clock_of(request).now_ms()
    check = await rosters.check()
    shifts = await rosters.roster(DAYS)
    now = await rosters.now()
    listed = await rosters.crews()
    handovers = (await rosters.handovers()).handovers[:SHOWN_HANDOVERS]
    on_duty_as = [tier.tier.value for tier in now.tiers if any(one.person_id == person.id for one in tier.people)]
    is_admin = person.role is Role.ADMIN
    return await page(
        request,
        "roster.html",
        person,
        problem,
        path="/roster",
        now=now,
        check=check,
        lines=_lines(check, shifts),
        days=_days(now_ms, rosters),
        shifts_by_day=_by_day(shifts, rosters),
        on_duty_as=on_duty_as,
        leaves_as=[tier.value for tier in Tier] if is_admin else on_duty_as,
        handovers=handovers,
        crews=listed.crews,
        members=[*(one for crew in listed.crews for one in crew.members), *listed.without_crew],
        skills=sorted(SKILLS),
        is_admin=is_admin,
        imported=imported,
        feed=str(request.base_url).rstrip("/") + feed if feed else "",
    )


def _lines(check: CheckAnswer, shifts: RosterAnswer) -> dict[str, list[Stretch]]:
    """Per tier what to draw: covered ground, holes upon it."""
    long_ms = check.until_at - check.from_at

    def stretch(begin: int, end: int, look: str) -> Stretch:
        left, right = (
            (min(max(at, check.from_at), check.until_at) - check.from_at) * LINE_WIDTH / long_ms for at in (begin, end)
        )
        return Stretch(round(left, 2), round(max(right - left, 1.5), 2), look)

    lines: dict[str, list[Stretch]] = {tier.value: [] for tier in Tier}
    for shift in shifts.shifts:
        if not shift.disabled:
            lines[shift.tier].append(stretch(shift.from_at, shift.until_at, "covered"))
    for finding in check.findings:
        if finding.is_hole:
            lines[finding.tier].append(stretch(finding.from_at, finding.until_at, finding.what.value))
    return lines


def _days(now_ms: int, rosters: RosterService) -> list[tuple[int, float]]:
    """Where on the lines each day begins: its ms and x."""
    first = calendars.moment_of(now_ms, rosters.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    long_ms = DAYS * 86_400_000
    days = []
    for number in range(1, DAYS + 1):
        at = calendars.ms_of(datetime.combine(first.date() + timedelta(days=number), first.timetz()))
        days.append((at, round((at - now_ms) * LINE_WIDTH / long_ms, 2)))
    return days


def _by_day(shifts: RosterAnswer, rosters: RosterService) -> dict[int, list[ShiftAnswer]]:
    """Shifts under the day they begin on, or today for those that run; days as the ms of their midnight."""
    found: dict[int, list[Any]] = defaultdict(list)
    for shift in sorted(shifts.shifts, key=lambda one: (one.from_at, one.tier, one.name)):
        begin = calendars.moment_of(max(shift.from_at, shifts.from_at), rosters.zone)
        found[calendars.ms_of(begin.replace(hour=0, minute=0, second=0, microsecond=0))].append(shift)
    return dict(found)
