"""Swaps of shifts in SQL, and who may have or had which."""

from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row

from cloud.api.problem import ProblemError, conflict
from cloud.roster import calendars, duty, rows

LATELY_MS: Final = 12 * 3_600_000
"""So long after a shift its hand-over may still be written."""
SWAP_MS_MAX: Final = 31 * rows.DAY_MS


def take_over(
    tx: Connection, giver: Row[Any], taker: Row[Any], at: int | None, until: int | None, now_ms: int, zone: ZoneInfo
) -> tuple[int, int, list[str]]:
    """`taker` does the shifts of `giver` from `at` (None: now) until `until` (None: the end of the shift then).

    Returns from when, until when, and the tiers.

    Raises:
        ProblemError: 409 nothing to take over, or the taker is on duty then; 422 for who can't be on duty, times
            that have passed, and times too long.
    """
    begin = now_ms if at is None else at
    if begin < now_ms:
        raise ProblemError(422, "in_the_past", "Not possible", "What has passed can't be changed; choose a later time.")
    if until is not None and not begin < until <= begin + SWAP_MS_MAX:
        raise ProblemError(422, "times_wrong", "Not possible", "`until` must come after `at`, within 31 days.")
    if giver.id == taker.id:
        raise ProblemError(422, "same_person", "Not possible", "Name two different people.")
    refuse_unfit(taker)
    reach = begin + 1 if until is None else until
    theirs = rows.of_person(tx, giver.id, begin, reach)
    if not theirs:
        raise conflict("nothing_to_take_over", f"{giver.name} is not on duty then.")
    end = theirs[0].until_at if until is None else min(until, max(row.until_at for row in theirs))
    begin = max(begin, theirs[0].from_at)
    for mine in rows.of_person(tx, taker.id, begin, end):
        for row in theirs:
            if mine.from_at < min(end, row.until_at) and max(begin, row.from_at) < mine.until_at:
                raise twice(taker.name, mine, zone)
    for row in theirs:
        rows.hand_part_over(tx, row, taker.id, begin, end)
    return begin, end, sorted({row.tier for row in theirs})


def refuse_unfit(row: Row[Any]) -> None:
    """Raises ProblemError 422 for who can't be on duty."""
    if row.disabled_at is not None or row.role not in {"crew", "admin"}:
        why = "the account is disabled" if row.disabled_at is not None else "neither crew nor admin"
        raise ProblemError(422, "not_fit_for_duty", "Not possible", f"{row.name} can't be on duty: {why}.")


def twice(name: str, row: Row[Any], zone: ZoneInfo) -> ProblemError:
    """409: somebody would be on duty twice at once."""
    times = " – ".join(f"{calendars.moment_of(at, zone):%m-%d %H:%M}" for at in (row.from_at, row.until_at))
    return conflict("on_duty_already", f"{name} is on duty already as {row.tier}, {times}.")


def is_on_duty(tx: Connection, person_id: str, tier: str, at_ms: int) -> bool:
    """Whether somebody is on duty in that tier."""
    return any(one.person_id == person_id for one in duty.on_duty(tx, tier, at_ms))


def was_on_duty(tx: Connection, person_id: str, tier: str, at_ms: int) -> bool:
    """Whether somebody is on duty in that tier, or was until lately."""
    lately = rows.of_person(tx, person_id, at_ms - LATELY_MS, at_ms + 1)
    return any(row.tier == tier for row in lately) or is_on_duty(tx, person_id, tier, at_ms)
