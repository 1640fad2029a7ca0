"""Plans and shifts in SQL: unrolling plans, and changing what was unrolled. Nothing before now is ever changed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from cloud.ports import Database
from cloud.roster import calendars
from cloud.roster.duty import SHIFT_MS_MAX
from cloud.tables import crew_member, duty_plan, person, shift

_log = structlog.get_logger(__name__)

DAY_MS: Final = 86_400_000
FIRST_MS: Final = DAY_MS
"""So far ahead shifts are written with the import itself; `keep_ahead` goes on, in small transactions."""
SHIFTS_PER_WRITE_MAX: Final = 250
AHEAD_MS: Final = 56 * DAY_MS
"""So far ahead shifts exist, and overlaps are refused: an eight-week rota comes round once."""


def plans(tx: Connection) -> Sequence[Row[Any]]:
    """Plans from which shifts follow, by id."""
    return tx.execute(select(duty_plan).where(duty_plan.c.ended_at.is_(None)).order_by(duty_plan.c.id)).all()


def _occurrences(plan: Row[Any], from_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """A plan that can't be unrolled any more leaves a hole, which the check names, and stops no other."""
    try:
        return calendars.occurrences(plan.calendar, from_ms, until_ms)
    except calendars.CalendarError as error:
        _log.error("a plan of the roster can't be unrolled; import it again", plan=plan.id, error=str(error))
        return []


def members_by_crew(tx: Connection) -> dict[str, list[str]]:
    """People of each crew by id, also disabled ones: they keep their shifts, and the check names them."""
    found: dict[str, list[str]] = {}
    statement = select(crew_member.c.crew_id, crew_member.c.person_id).where(crew_member.c.crew_id.is_not(None))
    for crew_id, person_id in tx.execute(statement.order_by(crew_member.c.person_id)):
        found.setdefault(crew_id, []).append(person_id)
    return found


def unroll(
    plan: Mapping[str, Any],
    times: Iterable[tuple[int, int]],
    members: Mapping[str, Sequence[str]],
    now_ms: int,
) -> list[dict[str, Any]]:
    """The rows of `shift` that follow from a plan's occurrences; what has begun before now begins now."""
    people = [plan["person_id"]] if plan["person_id"] else members.get(plan["crew_id"], ())
    return [
        _row(plan["id"], plan["tier"], person_id, plan["crew_id"], max(begin, now_ms), end)
        for begin, end in times
        if end > now_ms
        for person_id in people
    ]


def _row(
    plan_id: str,
    tier: str,
    person_id: str,
    crew_id: str | None,
    from_ms: int,
    until_ms: int,
    instead: str | None = None,
) -> dict[str, Any]:
    return {
        "id": f"{plan_id}/{from_ms}/{person_id}", "plan_id": plan_id, "tier": tier, "person_id": person_id,
        "crew_id": crew_id, "from_at": from_ms, "until_at": until_ms, "stands_in_for": instead,
    }  # fmt: skip


def add(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write shifts."""
    if rows:
        tx.execute(insert(shift), [dict(row) for row in rows])


def end_from(tx: Connection, plan_ids: Sequence[str], now_ms: int, person_id: str | None = None) -> None:
    """Nothing follows from these plans after now (for one person, or for all): what runs ends now."""
    theirs: ColumnElement[bool] = shift.c.plan_id.in_(plan_ids)
    if person_id is not None:
        theirs &= shift.c.person_id == person_id
    tx.execute(delete(shift).where(theirs, shift.c.from_at >= now_ms))
    tx.execute(update(shift).where(theirs, shift.c.until_at > now_ms).values(until_at=now_ms))


def _is_late(now_ms: int) -> ColumnElement[bool]:
    # In steps of a day at least, not a little with every tick.
    return duty_plan.c.ended_at.is_(None) & (duty_plan.c.expanded_until < now_ms + AHEAD_MS - DAY_MS)


@dataclass(frozen=True, slots=True)
class Ahead:
    """Occurrences of one plan between `since_ms` and `goal_ms`, not written yet."""

    plan_id: str
    calendar: str
    since_ms: int
    goal_ms: int
    times: Sequence[tuple[int, int]]


def times_ahead(tx: Connection, now_ms: int, shifts_max: int) -> list[Ahead]:
    """What is to be written next, about `shifts_max` shifts; reading only, for unrolling takes its time."""
    goal = now_ms + AHEAD_MS
    members = members_by_crew(tx)
    found: list[Ahead] = []
    shifts = 0
    for plan in tx.execute(select(duty_plan).where(_is_late(now_ms)).order_by(duty_plan.c.id)).all():
        since = plan.expanded_until
        times = [one for one in _occurrences(plan, since, goal) if one[0] >= since]
        found.append(Ahead(plan.id, plan.calendar, since, goal, times))
        shifts += len(times) * (1 if plan.person_id else len(members.get(plan.crew_id, ())))
        if shifts >= shifts_max:
            break
    return found


def write_ahead(tx: Connection, found: Sequence[Ahead], now_ms: int) -> int:
    """Write shifts of plans that did not change since `times_ahead`; returns how many.

    Shifts that would begin while somebody is on duty anyway are written nevertheless: a call then reaches them
    once, and the check names them.
    """
    members = members_by_crew(tx)
    written = 0
    for one in found:
        same = (duty_plan.c.id == one.plan_id) & duty_plan.c.ended_at.is_(None)
        same &= (duty_plan.c.expanded_until == one.since_ms) & (duty_plan.c.calendar == one.calendar)
        plan = tx.execute(select(duty_plan).where(same).with_for_update()).one_or_none()
        if plan is None:
            continue
        rows = unroll(dict(plan._mapping), one.times, members, now_ms)  # noqa: SLF001
        add(tx, rows)
        tx.execute(update(duty_plan).where(duty_plan.c.id == one.plan_id).values(expanded_until=one.goal_ms))
        written += len(rows)
    return written


async def keep_ahead(database: Database, now_ms: int) -> int:
    """Write all shifts up to `AHEAD_MS`, in commits so small that those of calls need not wait; returns how many."""
    written = 0
    while found := await database.read(lambda tx: times_ahead(tx, now_ms, SHIFTS_PER_WRITE_MAX)):
        written += await database.write(lambda tx, found=found: write_ahead(tx, found, now_ms))  # type: ignore[misc]
    return written


def not_unrolled_yet(tx: Connection, now_ms: int) -> list[dict[str, Any]]:
    """The shifts up to `AHEAD_MS` that `keep_ahead` has not written yet."""
    goal = now_ms + AHEAD_MS
    members = members_by_crew(tx)
    found: list[dict[str, Any]] = []
    for plan in plans(tx):
        since = plan.expanded_until
        if since < goal:
            times = [one for one in _occurrences(plan, since, goal) if one[0] >= since]
            found += unroll(dict(plan._mapping), times, members, now_ms)  # noqa: SLF001
    return found


def join_crew(tx: Connection, crew_id: str, person_id: str, now_ms: int) -> list[dict[str, Any]]:
    """The shifts that somebody gets who joins a crew now; not written yet."""
    rows: list[dict[str, Any]] = []
    for plan in tx.execute(select(duty_plan).where(duty_plan.c.ended_at.is_(None), duty_plan.c.crew_id == crew_id)):
        until = plan.expanded_until
        times = [one for one in _occurrences(plan, now_ms, until) if one[0] < until]
        rows += unroll(dict(plan._mapping), times, {crew_id: [person_id]}, now_ms)  # noqa: SLF001
    return rows


def of_person(tx: Connection, person_id: str, from_ms: int, until_ms: int) -> Sequence[Row[Any]]:
    """Somebody's shifts that touch a time, by their begin; also of a disabled person."""
    touching = (
        shift.c.from_at < until_ms, shift.c.from_at > from_ms - SHIFT_MS_MAX, shift.c.until_at > from_ms,
    )  # fmt: skip
    statement = select(shift).where(shift.c.person_id == person_id, *touching).order_by(shift.c.from_at)
    return tx.execute(statement).all()


def in_time(tx: Connection, from_ms: int, until_ms: int) -> Sequence[Row[Any]]:
    """Everybody's shifts that touch a time, with whom they are of; by tier, begin and person."""
    touching = (
        shift.c.from_at < until_ms, shift.c.from_at > from_ms - SHIFT_MS_MAX, shift.c.until_at > from_ms,
    )  # fmt: skip
    columns = (*shift.c, person.c.name, person.c.login, person.c.role, person.c.disabled_at)
    joined = shift.join(person, person.c.id == shift.c.person_id)
    return tx.execute(
        select(*columns).select_from(joined).where(*touching).order_by(shift.c.tier, shift.c.from_at, shift.c.person_id)
    ).all()


def hand_part_over(tx: Connection, row: Row[Any], to_person_id: str, from_ms: int, until_ms: int) -> None:
    """`to_person_id` does this shift from `from_ms` until `until_ms`; the rest stays whose it was."""
    begin, end = max(from_ms, row.from_at), min(until_ms, row.until_at)
    planned = row.stands_in_for or row.person_id
    instead = None if planned == to_person_id else planned
    rows = [_row(row.plan_id, row.tier, to_person_id, row.crew_id, begin, end, instead)]
    if end < row.until_at:
        rows.append(_row(row.plan_id, row.tier, row.person_id, row.crew_id, end, row.until_at, row.stands_in_for))
    if begin > row.from_at:
        tx.execute(update(shift).where(shift.c.id == row.id).values(until_at=begin))
    else:
        tx.execute(delete(shift).where(shift.c.id == row.id))
    add(tx, rows)
