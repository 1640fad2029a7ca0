"""Who is on duty: one indexed query, so that nothing that is wrong with a roster ever delays a call.

Reading only. Importable from any stage: it knows the tables and `fleet`, nothing else of the cloud.

While no shift was ever planned, every enabled member of the crew is on call and every enabled admin is a duty
manager: a fresh installation must reach somebody. From the first plan on, only who is planned is on duty, and an
empty answer is a hole. Disabled people never appear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from sqlalchemy import BigInteger, Connection, Row, Select, Text, bindparam, exists, literal, select, union_all

from cloud.tables import crew_member, duty_plan, person, shift
from fleet.kind import Skill

ON_CALL: Final = "on_call"
SECOND_CREW: Final = "second_crew"
DUTY_MANAGER: Final = "duty_manager"
TIERS: Final = (ON_CALL, SECOND_CREW, DUTY_MANAGER)

SKILLS: Final[frozenset[str]] = frozenset(get_args(Skill))
SHIFT_MS_MAX: Final = 8 * 86_400_000
"""No shift is longer: it bounds how far back a reader has to look. A week on call, handed over late, fits."""

_WITHOUT_ROSTER: Final = {ON_CALL: "crew", DUTY_MANAGER: "admin"}


@dataclass(frozen=True, slots=True)
class OnDuty:
    """Somebody on duty. `language` as in `person`; `skills` are values of `fleet.kind.Skill`, all if none were set."""

    person_id: str
    name: str
    language: str
    crew_id: str | None
    skills: frozenset[str]


@dataclass(frozen=True, slots=True)
class ShiftRow:
    """One person's time on duty: from `from_ms` up to, without, `until_ms`."""

    person_id: str
    tier: str
    from_ms: int
    until_ms: int
    crew_id: str | None = None
    stands_in_for: str | None = None
    id: str = ""


_columns = (person.c.id, person.c.name, person.c.language, person.c.role, crew_member.c.skills)
_people = person.outerjoin(crew_member, crew_member.c.person_id == person.c.id)
_enabled = person.c.disabled_at.is_(None)
_at: Final = bindparam("at", type_=BigInteger)
_nothing_planned = ~exists(select(literal(1)).select_from(shift)) & ~exists(select(literal(1)).select_from(duty_plan))

_planned: Final[Select[Any]] = (
    select(*_columns, shift.c.crew_id.label("shift_crew_id"), crew_member.c.crew_id)
    .select_from(_people.join(shift, shift.c.person_id == person.c.id))
    .where(
        shift.c.tier == bindparam("tier", type_=Text),
        shift.c.from_at <= _at,
        shift.c.from_at > bindparam("since", type_=BigInteger),  # bounds the range of the index that is read
        shift.c.until_at > _at,
        _enabled,
    )
)
_everybody: Final[Select[Any]] = (
    select(*_columns, literal(None, Text).label("shift_crew_id"), crew_member.c.crew_id)
    .select_from(_people)
    .where(person.c.role == bindparam("role", type_=Text), _enabled, _nothing_planned)
)
ON_DUTY_QUERY: Final = union_all(_planned, _everybody).order_by("id")


def on_duty(tx: Connection, tier: str, at_ms: int) -> list[OnDuty]:
    """Who is on duty in `tier` at that moment, by person id; empty: a hole in the roster."""
    return [_person(row) for row in _read(tx, tier, at_ms)]


def crew_on_duty(tx: Connection, at_ms: int) -> list[OnDuty]:
    """Who can be given work orders: the members of the crew among those on call, with their skills."""
    return [_person(row) for row in _read(tx, ON_CALL, at_ms) if row.role == "crew"]


def shifts_between(tx: Connection, from_ms: int, until_ms: int) -> list[ShiftRow]:
    """Shifts of enabled people that touch the time from `from_ms` up to, without, `until_ms`, by their begin."""
    columns = (
        shift.c.person_id, shift.c.tier, shift.c.from_at, shift.c.until_at, shift.c.crew_id, shift.c.stands_in_for,
        shift.c.id,
    )  # fmt: skip
    statement = (
        select(*columns)
        .select_from(shift.join(person, person.c.id == shift.c.person_id))
        .where(
            shift.c.tier.in_(TIERS),
            shift.c.from_at < until_ms,
            shift.c.from_at > from_ms - SHIFT_MS_MAX,
            shift.c.until_at > from_ms,
            _enabled,
        )
        .order_by(shift.c.from_at, shift.c.tier, shift.c.person_id)
    )
    return [ShiftRow(*row) for row in tx.execute(statement)]


def anything_planned(tx: Connection) -> bool:
    """Whether there ever was a roster; without one everybody is on duty, see the head of this file."""
    return not tx.scalar(select(_nothing_planned))


def _read(tx: Connection, tier: str, at_ms: int) -> Sequence[Row[Any]]:
    if tier not in TIERS:
        raise ValueError(f"tier {tier!r}: one of {', '.join(TIERS)}")
    found = {"tier": tier, "at": at_ms, "since": at_ms - SHIFT_MS_MAX, "role": _WITHOUT_ROSTER.get(tier, "")}
    rows = {row.id: row for row in tx.execute(ON_DUTY_QUERY, found)}  # whoever is there twice is told once
    return list(rows.values())


def _person(row: Row[Any]) -> OnDuty:
    return OnDuty(row.id, row.name, row.language, row.shift_crew_id or row.crew_id, skills_of(row.skills))


def skills_of(text: str | None) -> frozenset[str]:
    """Skills as `crew_member.skills` holds them; all of them for who has no row."""
    return SKILLS if text is None else frozenset(part for part in text.split(",") if part)
