"""Crews and their members in SQL. Whoever joins or leaves a crew gains or loses its shifts from now on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from cloud.roster import coverage, rows
from cloud.tables import crew, crew_member, duty_plan, person


@dataclass(frozen=True, slots=True)
class Crew:
    """A crew as planning needs it: `latitude` and `longitude` of its home base in WGS-84."""

    id: str
    name_zh: str
    name_en: str
    latitude: float
    longitude: float
    vehicle_capacity: int


class TwiceOnDutyError(Exception):
    """The change would put somebody on duty twice at once; `row` is the shift in the way."""

    def __init__(self, row: Row[Any]) -> None:
        super().__init__(row.id)
        self.row = row


_crew_columns = (crew.c.id, crew.c.name_zh, crew.c.name_en, crew.c.latitude, crew.c.longitude, crew.c.vehicle_capacity)


def crews(tx: Connection) -> list[Crew]:
    """All crews, by id."""
    return [Crew(*row) for row in tx.execute(select(*_crew_columns).order_by(crew.c.id))]


def put_crew(tx: Connection, one: Crew, now_ms: int) -> bool:
    """Make or change a crew; returns whether it is new."""
    values = {
        "name_zh": one.name_zh, "name_en": one.name_en, "latitude": one.latitude, "longitude": one.longitude,
        "vehicle_capacity": one.vehicle_capacity,
    }  # fmt: skip
    if tx.execute(update(crew).where(crew.c.id == one.id).values(values)).rowcount:
        return False
    tx.execute(insert(crew).values(id=one.id, created_at=now_ms, **values))
    return True


def in_use(tx: Connection, crew_id: str) -> bool:
    """Whether it has members, or was ever planned: then it stays."""
    member = select(crew_member.c.person_id).where(crew_member.c.crew_id == crew_id).limit(1)
    planned = select(duty_plan.c.id).where(duty_plan.c.crew_id == crew_id).limit(1)
    return tx.scalar(member) is not None or tx.scalar(planned) is not None


def remove_crew(tx: Connection, crew_id: str) -> bool:
    """Remove one that is not `in_use`; returns whether there was one."""
    return bool(tx.execute(delete(crew).where(crew.c.id == crew_id)).rowcount)


def members(tx: Connection) -> list[Row[Any]]:
    """Everybody who may be on duty, with crew and skills (None: no row, so all of them); by name."""
    joined = person.outerjoin(crew_member, crew_member.c.person_id == person.c.id)
    columns = (
        person.c.id, person.c.login, person.c.name, person.c.role, crew_member.c.crew_id, crew_member.c.skills,
    )  # fmt: skip
    may = person.c.role.in_(("crew", "admin")) & person.c.disabled_at.is_(None)
    return list(tx.execute(select(*columns).select_from(joined).where(may).order_by(person.c.login)))


def member(tx: Connection, person_id: str) -> Row[Any] | None:
    """Crew and skills of one person, or None."""
    return tx.execute(select(crew_member).where(crew_member.c.person_id == person_id)).one_or_none()


def put_member(tx: Connection, person_id: str, crew_id: str | None, skills: Sequence[str], now_ms: int) -> None:
    """Set somebody's crew and skills; a change of crew changes their shifts from now on.

    Raises:
        TwiceOnDutyError: the new crew's shifts overlap their own.
    """
    old = member(tx, person_id)
    values = {"crew_id": crew_id, "skills": ",".join(sorted(set(skills)))}
    if old is None:
        tx.execute(insert(crew_member).values(person_id=person_id, **values))
    else:
        tx.execute(update(crew_member).where(crew_member.c.person_id == person_id).values(values))
    before = old.crew_id if old is not None else None
    if before == crew_id:
        return
    if before is not None:
        theirs = tx.scalars(select(duty_plan.c.id).where(duty_plan.c.crew_id == before)).all()
        rows.end_from(tx, theirs, now_ms, person_id)
    if crew_id is not None:
        new = rows.join_crew(tx, crew_id, person_id, now_ms)
        kept = rows.of_person(tx, person_id, now_ms, now_ms + rows.AHEAD_MS + rows.DAY_MS)
        stretches = [(row.from_at, row.until_at, -mark - 1) for mark, row in enumerate(kept)]
        stretches += [(row["from_at"], row["until_at"], mark) for mark, row in enumerate(new)]
        for pair in coverage.overlaps(stretches):
            if min(pair) < 0 <= max(pair):
                raise TwiceOnDutyError(kept[-min(pair) - 1])
        rows.add(tx, new)
