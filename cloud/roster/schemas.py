"""What the API says and accepts about people on duty. Times are business ms; `until_at` is no longer part of it."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cloud.alarms.schemas import NOTE_LENGTH_MAX, TextAnswer
from cloud.roster.check import What
from fleet.kind import Skill


class Tier(StrEnum):
    """The steps of the escalation that have a roster."""

    ON_CALL = "on_call"
    SECOND_CREW = "second_crew"
    DUTY_MANAGER = "duty_manager"


class FileFormat(StrEnum):
    """`csv`: a table as spreadsheets keep it; `ical`: a calendar."""

    CSV = "csv"
    ICAL = "ical"


class PersonOnDuty(BaseModel):
    """Somebody on duty now. `until_at` is None while there is no roster; `unreachable` says why nobody reaches them."""

    person_id: str
    name: str
    crew_id: str | None
    skills: list[str]
    from_at: int | None
    until_at: int | None
    stands_in_for_name: str | None
    unreachable: TextAnswer | None


class TierNow(BaseModel):
    """One tier now, and who comes next. Nobody in `people` is a hole, which the escalation bridges."""

    tier: Tier
    title: TextAnswer
    people: list[PersonOnDuty]
    next_at: int | None
    next_names: list[str]


class NowAnswer(BaseModel):
    """Who is on call now. `planned` is false while there is no roster: then everybody enabled is on duty."""

    at: int
    planned: bool
    tiers: list[TierNow]


class ShiftAnswer(BaseModel):
    """One person's time on duty."""

    id: str
    tier: Tier
    person_id: str
    name: str
    crew_id: str | None
    from_at: int
    until_at: int
    stands_in_for_name: str | None
    disabled: bool


class RosterAnswer(BaseModel):
    """Shifts by tier and begin; `total` counts those in that time, also beyond the limit."""

    from_at: int
    until_at: int
    planned: bool
    shifts: list[ShiftAnswer]
    total: int


class FindingAnswer(BaseModel):
    """Something that is wrong. Holes (`uncovered`, `unreached`) have no person."""

    what: What
    is_hole: bool
    tier: Tier
    from_at: int
    until_at: int
    person_id: str
    name: str
    text: TextAnswer


class CheckAnswer(BaseModel):
    """Whether everything is covered by people who can be reached."""

    from_at: int
    until_at: int
    planned: bool
    ok: bool
    findings: list[FindingAnswer]


class PlanChange(BaseModel):
    """One plan of an import; `line` is 0 for one that the file does not have."""

    line: int
    id: str
    tier: str
    who: str
    next_at: int | None


class BadLineAnswer(BaseModel):
    """A line that can't be imported."""

    line: int
    why: TextAnswer
    fix: TextAnswer


class StretchAnswer(BaseModel):
    """A time nobody covers."""

    tier: Tier
    from_at: int
    until_at: int


class ImportAnswer(BaseModel):
    """What an import changed, or would change. Nothing is imported while `bad` holds a line."""

    imported: bool
    added: list[PlanChange]
    changed: list[PlanChange]
    removed: list[PlanChange]
    unchanged_count: int
    take_overs_lost: int
    bad: list[BadLineAnswer]
    holes_before: list[StretchAnswer]
    holes_after: list[StretchAnswer]


class TakeOverBody(BaseModel):
    """`to_person` does the shift of `from_person` from `at` (now) until `until` (its end). People by id or login."""

    model_config = ConfigDict(extra="forbid")

    from_person: Annotated[str, Field(min_length=1, max_length=64)]
    to_person: Annotated[str, Field(max_length=64, description="empty: who asks")] = ""
    at: Annotated[int | None, Field(ge=0, le=2**53)] = None
    until: Annotated[int | None, Field(ge=0, le=2**53)] = None


class LeaveBody(BaseModel):
    """The words of who goes off duty; what is open is added by itself."""

    model_config = ConfigDict(extra="forbid")

    tier: Tier = Tier.ON_CALL
    note: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""


class OpenItem(BaseModel):
    """Something that was open at a hand-over."""

    sort: str
    id: str
    device_id: str
    device_name: str
    state: str
    since: int
    priority: str
    title_zh: str
    title_en: str


class HandoverAnswer(BaseModel):
    """One hand-over. `confirmed_at` is None until the next one has read it."""

    id: str
    tier: Tier
    left_by: str
    left_by_name: str
    left_at: int
    note: str
    open_items: list[OpenItem]
    confirmed_by: str | None
    confirmed_by_name: str | None
    confirmed_at: int | None


class HandoverList(BaseModel):
    """The latest first."""

    handovers: list[HandoverAnswer]


class MemberAnswer(BaseModel):
    """Somebody who may be on duty. No skills of their own set: all of them."""

    person_id: str
    login: str
    name: str
    role: str
    crew_id: str | None
    skills: list[str]


class CrewAnswer(BaseModel):
    """A crew with its members."""

    id: str
    name: TextAnswer
    latitude: float
    longitude: float
    vehicle_capacity: int
    members: list[MemberAnswer]


class CrewList(BaseModel):
    """All crews, and those who are in none."""

    crews: list[CrewAnswer]
    without_crew: list[MemberAnswer]


class CrewBody(BaseModel):
    """A crew: its names, its home base in WGS-84, and how much its vehicle carries."""

    model_config = ConfigDict(extra="forbid")

    name_zh: Annotated[str, Field(min_length=1, max_length=64)]
    name_en: Annotated[str, Field(min_length=1, max_length=64)]
    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]
    vehicle_capacity: Annotated[int, Field(ge=0, le=100_000)]

    @field_validator("name_zh", "name_en")
    @classmethod
    def _printable(cls, text: str) -> str:
        if not text.isprintable() or not text.strip():
            raise ValueError("write a name")
        return text.strip()


class MemberBody(BaseModel):
    """Somebody's crew (None: none) and skills (None: all)."""

    model_config = ConfigDict(extra="forbid")

    crew_id: Annotated[str | None, Field(max_length=32)] = None
    skills: list[Skill] | None = None


class FeedAnswer(BaseModel):
    """The address of one's own shifts for a calendar program; whoever knows it reads them. A new one ends the old."""

    path: str
