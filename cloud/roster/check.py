"""Whether every minute of the next days is covered in every tier, by people who can be reached.

What is found wrong is shown and announced; it never stands between a call and those who are on duty.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from cloud.roster import coverage, duty, rows
from cloud.roster.coverage import Stretch
from cloud.roster.duty import DUTY_MANAGER, ON_CALL, TIERS
from cloud.tables import contact_point, person
from fleet.kind import Text

DAYS: Final = 14
DAYS_MAX: Final = 56


class What(StrEnum):
    """What may be wrong with a roster."""

    UNCOVERED = "uncovered"
    """Nobody is on duty."""
    UNREACHED = "unreached"
    """Somebody is on duty, but nobody of them can be reached."""
    UNREACHABLE = "unreachable"
    """One of those planned can't be reached."""
    DISABLED = "disabled"
    """The account of somebody who is planned was closed: the shift covers nothing."""
    OVERLAPPING = "overlapping"
    """Somebody is planned twice at once."""


HOLES: Final = frozenset({What.UNCOVERED, What.UNREACHED})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, from `from_ms` up to, without, `until_ms`. Holes have no person."""

    what: What
    tier: str
    from_ms: int
    until_ms: int
    person_id: str = ""
    name: str = ""
    reason: Text | None = None

    @property
    def is_hole(self) -> bool:
        """Whether nobody would come."""
        return self.what in HOLES


@dataclass(frozen=True, slots=True)
class Check:
    """The answer for one stretch of time. `planned` is False while there is no roster: then everybody is on duty."""

    from_ms: int
    until_ms: int
    planned: bool
    findings: list[Finding]


NO_CONTACT: Final = Text("没有任何联系方式", "no way to reach them is entered")
NOT_VERIFIED: Final = Text("联系方式尚未验证", "none of their contacts is verified")
FAILING: Final = Text("联系方式全部失败", "all of their contacts fail")
ACCOUNT_CLOSED: Final = Text("账号已停用", "the account is disabled")
TWICE: Final = Text("同时有两个班次", "two shifts at once")


def out_of_reach(tx: Connection, person_ids: Iterable[str]) -> dict[str, Text]:
    """Who of these people no message would reach, and why. Reachable: a verified contact that does not fail."""
    wanted = sorted(set(person_ids))
    found = dict.fromkeys(wanted, NO_CONTACT)
    columns = (contact_point.c.person_id, contact_point.c.verified_at, contact_point.c.failing_since)
    usable: set[str] = set()
    for row in tx.execute(select(*columns).where(contact_point.c.person_id.in_(wanted))):
        if row.verified_at is None:
            found[row.person_id] = NOT_VERIFIED if found[row.person_id] is NO_CONTACT else found[row.person_id]
        elif row.failing_since is not None:
            found[row.person_id] = FAILING
        else:
            usable.add(row.person_id)
    return {person_id: why for person_id, why in found.items() if person_id not in usable}


def check(tx: Connection, from_ms: int, until_ms: int) -> Check:
    """Everything that is wrong in that time, holes first, then by time."""
    if not duty.anything_planned(tx):
        return Check(from_ms, until_ms, planned=False, findings=_without_roster(tx, from_ms, until_ms))
    shifts = rows.in_time(tx, from_ms, until_ms)
    unreachable = out_of_reach(tx, (row.person_id for row in shifts))
    # Where nobody has a contact of their own, people are told through common channels: that is no hole.
    alone = unreachable if tx.scalar(select(contact_point.c.id).limit(1)) is not None else {}
    found = [*_holes(shifts, alone, from_ms, until_ms), *_people(shifts, unreachable, from_ms, until_ms)]
    found.sort(key=lambda one: (not one.is_hole, one.from_ms, one.tier, one.person_id))
    return Check(from_ms, until_ms, planned=True, findings=found)


def _without_roster(tx: Connection, from_ms: int, until_ms: int) -> list[Finding]:
    return [
        Finding(What.UNCOVERED, tier, from_ms, until_ms)
        for tier in (ON_CALL, DUTY_MANAGER)
        if not duty.on_duty(tx, tier, from_ms)
    ]


def _holes(shifts: Sequence[Row[Any]], unreachable: dict[str, Text], from_ms: int, until_ms: int) -> Iterable[Finding]:
    for tier in TIERS:
        enabled = [row for row in shifts if row.tier == tier and row.disabled_at is None]
        uncovered = coverage.holes(_stretches(enabled), from_ms, until_ms)
        unreached = coverage.holes(
            [*_stretches(row for row in enabled if row.person_id not in unreachable), *uncovered], from_ms, until_ms
        )
        for what, holes in ((What.UNCOVERED, uncovered), (What.UNREACHED, unreached)):
            yield from (Finding(what, tier, begin, end) for begin, end in holes)


def _stretches(shifts: Iterable[Row[Any]]) -> list[Stretch]:
    return [(row.from_at, row.until_at) for row in shifts]


def _people(shifts: Sequence[Row[Any]], unreachable: dict[str, Text], from_ms: int, until_ms: int) -> Iterable[Finding]:
    """One finding per person and tier, from the first shift to the last that it concerns."""
    by_person: dict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
    of_one: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in shifts:
        by_person[row.tier, row.person_id].append(row)
        of_one[row.person_id].append(row)
    for (tier, person_id), theirs in by_person.items():
        begin, end = max(from_ms, theirs[0].from_at), min(until_ms, max(row.until_at for row in theirs))
        if theirs[0].disabled_at is not None:
            yield Finding(What.DISABLED, tier, begin, end, person_id, theirs[0].name, ACCOUNT_CLOSED)
        elif person_id in unreachable:
            yield Finding(What.UNREACHABLE, tier, begin, end, person_id, theirs[0].name, unreachable[person_id])
    for person_id, theirs in of_one.items():
        for _, later in coverage.overlaps((row.from_at, row.until_at, mark) for mark, row in enumerate(theirs)):
            row = theirs[later]
            yield Finding(What.OVERLAPPING, row.tier, row.from_at, row.until_at, person_id, row.name, TWICE)


def people_by_id(tx: Connection, person_ids: Iterable[str]) -> dict[str, Row[Any]]:
    """Login, name, role and language of people, for those who show them."""
    columns = (person.c.id, person.c.login, person.c.name, person.c.role, person.c.language, person.c.disabled_at)
    wanted = sorted(set(person_ids))
    found: list[Row[Any]] = list(tx.execute(select(*columns).where(person.c.id.in_(wanted))))
    return {row.id: row for row in found}
