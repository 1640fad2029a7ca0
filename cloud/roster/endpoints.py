"""People on duty over HTTP."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from cloud.api.access import Person, allow, public
from cloud.api.services import service
from cloud.roster.check import DAYS, DAYS_MAX
from cloud.roster.schemas import (
    CheckAnswer,
    CrewBody,
    CrewList,
    FeedAnswer,
    FileFormat,
    HandoverAnswer,
    HandoverList,
    ImportAnswer,
    LeaveBody,
    MemberBody,
    NowAnswer,
    RosterAnswer,
    TakeOverBody,
)
from cloud.roster.service import RosterService

router = APIRouter(prefix="/api/v1/roster", tags=["people on duty"])

Rosters = Annotated[RosterService, Depends(service(RosterService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Admin = Annotated[Person, Depends(allow("admin"))]
Days = Annotated[int, Query(ge=1, le=DAYS_MAX)]
CrewId = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,32}$")]
Word = Annotated[str, Path(max_length=64, description="a person's id or login")]

MEDIA_TYPES: Final = {FileFormat.CSV: "text/csv; charset=utf-8", FileFormat.ICAL: "text/calendar; charset=utf-8"}
FILE_NAMES: Final = {FileFormat.CSV: "roster.csv", FileFormat.ICAL: "roster.ics"}
_FILE = {
    "requestBody": {
        "required": True,
        "content": {
            kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()
        },
    }
}


@router.get("/now")
async def who_is_on_call(rosters: Rosters, person: OnDuty) -> NowAnswer:
    """Who is on call now in each tier, until when, and who comes next."""
    del person
    return await rosters.now()


@router.get("")
async def list_shifts(
    rosters: Rosters,
    person: OnDuty,
    *,
    days: Days = DAYS,
    from_at: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    mine: Annotated[bool, Query(description="only one's own")] = False,
) -> RosterAnswer:
    """Shifts of the next days, by tier and begin."""
    return await rosters.roster(days, from_at, person.id if mine else None)


@router.get("/check")
async def check_roster(rosters: Rosters, person: OnDuty, days: Days = DAYS) -> CheckAnswer:
    """Whether every minute of the next days is covered by people who can be reached."""
    del person
    return await rosters.check(days)


@router.post("/import", openapi_extra=_FILE)
async def import_roster(
    request: Request,
    rosters: Rosters,
    person: Admin,
    *,
    file_format: Annotated[FileFormat, Query(alias="format")],
    dry_run: Annotated[bool, Query(description="only say what would change")] = False,
    replace: Annotated[bool, Query(description="end plans that the file does not have")] = False,
) -> ImportAnswer:
    """Take over a file, all of it or nothing; each bad line is named with what is wrong and how to mend it."""
    return await rosters.import_file(await request.body(), file_format, person, dry_run=dry_run, replace=replace)


@router.get("/export", response_class=Response)
async def export_roster(
    rosters: Rosters, person: OnDuty, file_format: Annotated[FileFormat, Query(alias="format")]
) -> Response:
    """All plans as a file that can be imported again."""
    del person
    return file_answer(await rosters.export(file_format), file_format)


@router.post("/take-over")
async def take_over(body: TakeOverBody, rosters: Rosters, person: OnDuty) -> RosterAnswer:
    """Do (the rest of) somebody's shift; admins also on behalf of others."""
    return await rosters.take_over(body, person)


@router.get("/handovers")
async def list_handovers(rosters: Rosters, person: OnDuty) -> HandoverList:
    """The latest hand-overs with what was open then."""
    del person
    return await rosters.handovers()


@router.post("/handovers", status_code=201)
async def leave(body: LeaveBody, rosters: Rosters, person: OnDuty) -> HandoverAnswer:
    """Go off duty with a note; open calls, alarms and orders are listed by themselves."""
    return await rosters.leave(body.tier.value, body.note, person)


@router.post("/handovers/{handover_id}/confirm")
async def confirm(handover_id: Annotated[str, Path(max_length=64)], rosters: Rosters, person: OnDuty) -> HandoverAnswer:
    """The next one has read it."""
    return await rosters.confirm(handover_id, person)


@router.get("/crews")
async def list_crews(rosters: Rosters, person: OnDuty) -> CrewList:
    """Crews with members, skills, home base and capacity."""
    del person
    return await rosters.crews()


@router.put("/crews/{crew_id}")
async def put_crew(crew_id: CrewId, body: CrewBody, rosters: Rosters, person: Admin) -> CrewList:
    """Make or change a crew."""
    return await rosters.put_crew(crew_id, body, person)


@router.delete("/crews/{crew_id}")
async def remove_crew(crew_id: CrewId, rosters: Rosters, person: Admin) -> CrewList:
    """Remove an empty crew that was never planned."""
    return await rosters.remove_crew(crew_id, person)


@router.put("/members/{word}")
async def put_member(word: Word, body: MemberBody, rosters: Rosters, person: Admin) -> CrewList:
    """Set somebody's crew and skills."""
    return await rosters.put_member(word, body, person)


@router.post("/calendar")
async def new_calendar(rosters: Rosters, person: OnDuty) -> FeedAnswer:
    """A new secret address of one's own shifts for a calendar program; the one before ends."""
    return await rosters.new_feed(person)


@router.get(
    "/calendar.ics",
    response_class=Response,
    dependencies=[Depends(public("calendar programs have no session; the address itself is the secret"))],
)
async def calendar(
    rosters: Rosters, token: Annotated[str, Query(min_length=20, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
) -> Response:
    """One person's shifts, for the calendar program that was given this address."""
    return Response(await rosters.feed(token), media_type=MEDIA_TYPES[FileFormat.ICAL])


def file_answer(content: bytes, file_format: FileFormat) -> Response:
    """A file to be saved."""
    name = f'attachment; filename="{FILE_NAMES[file_format]}"'
    return Response(content, media_type=MEDIA_TYPES[file_format], headers={"content-disposition": name})
