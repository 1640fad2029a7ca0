"""Answers made of rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from cloud.alarms.schemas import TextAnswer
from cloud.roster import check, crews, duty, rows
from cloud.roster.coverage import Stretch
from cloud.roster.drafts import TIER_TEXTS
from cloud.roster.imports import Comparison, Planned
from cloud.roster.keeper import WHATS
from cloud.roster.schemas import (
    BadLineAnswer,
    CheckAnswer,
    CrewAnswer,
    CrewList,
    FindingAnswer,
    HandoverAnswer,
    ImportAnswer,
    MemberAnswer,
    NowAnswer,
    OpenItem,
    PersonOnDuty,
    PlanChange,
    RosterAnswer,
    ShiftAnswer,
    StretchAnswer,
    Tier,
    TierNow,
)
from fleet.kind import Text

NEXT_MS = 7 * rows.DAY_MS
SHIFTS_SHOWN_MAX = 5000


def text(of: Text) -> TextAnswer:
    """Both languages."""
    return TextAnswer(zh=of.zh, en=of.en)


def now(tx: Connection, at_ms: int) -> NowAnswer:
    """Who is on duty, and who comes next."""
    near = rows.in_time(tx, at_ms, at_ms + NEXT_MS)
    names = {row.person_id: row.name for row in near}
    found = {tier: duty.on_duty(tx, tier, at_ms) for tier in duty.TIERS}
    unreachable = check.out_of_reach(tx, (one.person_id for those in found.values() for one in those))
    instead = check.people_by_id(tx, (row.stands_in_for for row in near if row.stands_in_for))
    tiers = []
    for tier, those in found.items():
        theirs = [row for row in near if row.tier == tier and row.disabled_at is None]
        current = {row.person_id: row for row in theirs if row.from_at <= at_ms}
        later = [row for row in theirs if row.from_at > at_ms]
        next_at = later[0].from_at if later else None
        tiers.append(
            TierNow(
                tier=Tier(tier),
                title=text(TIER_TEXTS[tier]),
                people=[_on_duty(one, current.get(one.person_id), unreachable, instead) for one in those],
                next_at=next_at,
                next_names=[names[row.person_id] for row in later if row.from_at == next_at],
            )
        )
    return NowAnswer(at=at_ms, planned=duty.anything_planned(tx), tiers=tiers)


def _on_duty(
    one: duty.OnDuty, row: Row[Any] | None, unreachable: Mapping[str, Text], people: Mapping[str, Row[Any]]
) -> PersonOnDuty:
    planned = people.get(row.stands_in_for) if row is not None and row.stands_in_for else None
    why = unreachable.get(one.person_id)
    return PersonOnDuty(
        person_id=one.person_id,
        name=one.name,
        crew_id=one.crew_id,
        skills=sorted(one.skills),
        from_at=row.from_at if row is not None else None,
        until_at=row.until_at if row is not None else None,
        stands_in_for_name=planned.name if planned is not None else None,
        unreachable=text(why) if why is not None else None,
    )


def roster(tx: Connection, from_ms: int, until_ms: int, person_id: str | None = None) -> RosterAnswer:
    """Shifts in a time, everybody's or one person's."""
    found = [row for row in rows.in_time(tx, from_ms, until_ms) if person_id in {None, row.person_id}]
    people = check.people_by_id(tx, {row.stands_in_for for row in found if row.stands_in_for})
    shifts = [
        ShiftAnswer(
            id=row.id,
            tier=Tier(row.tier),
            person_id=row.person_id,
            name=row.name,
            crew_id=row.crew_id,
            from_at=row.from_at,
            until_at=row.until_at,
            stands_in_for_name=people[row.stands_in_for].name if row.stands_in_for in people else None,
            disabled=row.disabled_at is not None,
        )
        for row in found[:SHIFTS_SHOWN_MAX]
    ]
    planned = duty.anything_planned(tx)
    return RosterAnswer(from_at=from_ms, until_at=until_ms, planned=planned, shifts=shifts, total=len(found))


def checked(found: check.Check) -> CheckAnswer:
    """What is wrong, in words."""
    findings = [
        FindingAnswer(
            what=one.what,
            is_hole=one.is_hole,
            tier=Tier(one.tier),
            from_at=one.from_ms,
            until_at=one.until_ms,
            person_id=one.person_id,
            name=one.name,
            text=TextAnswer(
                zh=WHATS[one.what].zh + (f"：{one.reason.zh}" if one.reason else ""),
                en=WHATS[one.what].en + (f": {one.reason.en}" if one.reason else ""),
            ),
        )
        for one in found.findings
    ]
    return CheckAnswer(
        from_at=found.from_ms, until_at=found.until_ms, planned=found.planned, ok=not findings, findings=findings
    )


def imported(found: Comparison, existing: Mapping[str, Row[Any]], *, done: bool) -> ImportAnswer:
    """What an import did, or would do."""
    gone = [existing[identity] for identity in found.removed]
    return ImportAnswer(
        imported=done,
        added=[_change(one) for one in found.added],
        changed=[_change(one) for one in found.changed],
        removed=[
            PlanChange(line=0, id=row.id, tier=row.tier, who=row.person_id or row.crew_id, next_at=None) for row in gone
        ],
        unchanged_count=len(found.unchanged),
        take_overs_lost=found.take_overs_lost,
        bad=[BadLineAnswer(line=one.line, why=text(one.why), fix=text(one.fix)) for one in found.bad],
        holes_before=_stretches(found.holes_before),
        holes_after=_stretches(found.holes_after),
    )


def _change(one: Planned) -> PlanChange:
    who = one.draft.person or one.draft.crew
    next_at = one.times[0][0] if one.times else None
    return PlanChange(line=one.draft.line, id=one.draft.id, tier=one.draft.tier, who=who, next_at=next_at)


def _stretches(by_tier: Mapping[str, Sequence[Stretch]]) -> list[StretchAnswer]:
    return [
        StretchAnswer(tier=Tier(tier), from_at=begin, until_at=end)
        for tier, holes in by_tier.items()
        for begin, end in holes
    ]


def handover(row: Row[Any]) -> HandoverAnswer:
    """One hand-over."""
    items = [OpenItem.model_validate(one) for one in msgspec.json.decode(row.open_items)]
    return HandoverAnswer.model_validate({**row._mapping, "open_items": items})  # noqa: SLF001


def crew_list(tx: Connection) -> CrewList:
    """Crews with their members."""
    by_crew: dict[str | None, list[MemberAnswer]] = defaultdict(list)
    for row in crews.members(tx):
        by_crew[row.crew_id].append(_member(row))
    found = [
        CrewAnswer(
            id=one.id,
            name=TextAnswer(zh=one.name_zh, en=one.name_en),
            latitude=one.latitude,
            longitude=one.longitude,
            vehicle_capacity=one.vehicle_capacity,
            members=by_crew.get(one.id, []),
        )
        for one in crews.crews(tx)
    ]
    return CrewList(crews=found, without_crew=by_crew.get(None, []))


def _member(row: Row[Any]) -> MemberAnswer:
    return MemberAnswer(
        person_id=row.id,
        login=row.login,
        name=row.name,
        role=row.role,
        crew_id=row.crew_id,
        skills=sorted(duty.skills_of(row.skills)),
    )


def names(people: Iterable[PersonOnDuty]) -> str:
    """For one line."""
    return ", ".join(one.name for one in people)
