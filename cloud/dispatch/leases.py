"""The outbox in SQL: who holds which row until when, and how it ended.

A lease is a token and an end in real ms. Every later write names the token, so a worker whose lease ran
out and was given to another changes nothing any more (fencing).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select, update

from cloud.dispatch import notices
from cloud.model import Notification
from cloud.tables import outbox

_c = outbox.c
_waiting = _c.delivered_at.is_(None) & _c.given_up_at.is_(None)
_mine = (_c.id == bindparam("b_id")) & (_c.lease_token == bindparam("b_token"))

_DELIVERED: Final = (
    update(outbox)
    .where(_mine, _c.delivered_at.is_(None))
    .values(delivered_at=bindparam("b_at"), lease_token=None, lease_until=None, last_error=None)
)
_RETRY: Final = (
    update(outbox)
    .where(_mine, _waiting)
    .values(
        available_at=bindparam("b_available_at"), lease_token=None, lease_until=None, last_error=bindparam("b_error")
    )
)
_GIVE_UP: Final = (
    update(outbox)
    .where(_mine, _waiting)
    .values(given_up_at=bindparam("b_at"), lease_token=None, lease_until=None, last_error=bindparam("b_error"))
)


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, in both times, and how far from it a stored time can be without a clock having been set wrong.

    A time that lies further ahead was written before the clock was set back: it counts as reached.
    """

    now_ms: int
    real_ms: int
    delay_ms_max: int
    lease_ms_max: int

    def is_due(self) -> ColumnElement[bool]:
        """The row may be delivered: its time has come and nobody holds it."""
        return or_(_c.available_at <= self.now_ms, _c.available_at > self.now_ms + self.delay_ms_max) & self.is_free()

    def is_free(self) -> ColumnElement[bool]:
        """Nobody holds a lease on the row."""
        until = _c.lease_until
        return or_(until.is_(None), until <= self.real_ms, until > self.real_ms + self.lease_ms_max)


@dataclass(frozen=True, slots=True)
class Leased:
    """One row in a worker's hands. `attempt` counts from 1 and includes this one."""

    id: int
    delivery_id: str
    channel: str
    body: str
    created_at: int
    attempt: int
    urgent: bool
    token: str

    def notification(self) -> Notification:
        """What is to be delivered."""
        return notices.decode(self.body)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: delivered (`error` is None), to be repeated at `available_at`, or given up (both set)."""

    leased: Leased
    at: int
    error: str | None = None
    available_at: int | None = None


def next_due_ms(tx: Connection, moment: Moment, *, urgent: bool, channels: Sequence[str]) -> int | None:
    """When the next free row is to be delivered, business ms; at or before now: at once. None: nothing waits."""
    found: int | None = tx.scalar(
        select(func.min(_c.available_at)).where(
            _waiting, _c.urgent == int(urgent), _c.channel.in_(channels), moment.is_free()
        )
    )
    if found is not None and found > moment.now_ms + moment.delay_ms_max:
        return moment.now_ms
    return found


def lease(
    tx: Connection, moment: Moment, *, urgent: bool, room: Mapping[str, int], token: str, until_ms: int
) -> list[Leased]:
    """Take up to `room[channel]` due rows of each channel, oldest first."""
    taken: list[Leased] = []
    for channel, count in room.items():
        if count <= 0:
            continue
        due = (
            select(_c.id)
            .where(_waiting, _c.urgent == int(urgent), _c.channel == channel, moment.is_due())
            .order_by(_c.id)
            .limit(count)
            .with_for_update(skip_locked=True)
            .cte("due")  # PostgreSQL runs a subquery that locks more than once, each time with a limit of its own
        )
        statement = (
            update(outbox)
            .where(_c.id.in_(select(due.c.id)), _waiting, moment.is_free())
            .values(lease_token=token, lease_until=until_ms, attempts=_c.attempts + 1)
            .returning(_c.id, _c.delivery_id, _c.notification, _c.created_at, _c.attempts)
        )
        taken += [
            Leased(
                row.id,
                row.delivery_id,
                channel,
                row.notification,
                row.created_at,
                row.attempts,
                urgent=urgent,
                token=token,
            )
            for row in tx.execute(statement)
        ]
    return sorted(taken, key=lambda leased: leased.id)


def finish(tx: Connection, outcomes: Sequence[Outcome]) -> int:
    """Write how attempts ended; returns how many of them were fenced off, because somebody else holds the row."""
    written = 0
    for outcome in sorted(outcomes, key=lambda outcome: outcome.leased.id):  # one order of locks for everybody
        leased = outcome.leased
        values: dict[str, Any] = {"b_id": leased.id, "b_token": leased.token, "b_error": outcome.error}
        if outcome.error is None:
            del values["b_error"]
            statement, values["b_at"] = _DELIVERED, outcome.at
        elif outcome.available_at is not None:
            statement, values["b_available_at"] = _RETRY, outcome.available_at
        else:
            statement, values["b_at"] = _GIVE_UP, outcome.at
        written += tx.execute(statement, values).rowcount
    return len(outcomes) - written


def release_all(tx: Connection) -> int:
    """Free every lease: only for the one process that uses this database, after a restart."""
    statement = update(outbox).where(_waiting, _c.lease_token.is_not(None)).values(lease_token=None, lease_until=None)
    return tx.execute(statement).rowcount


def counts(tx: Connection) -> dict[str, int]:
    """Rows by what became of them: `waiting`, `delivered`, `withdrawn`, `grouped`, `given_up`."""
    found = {"waiting": 0, "delivered": 0, "withdrawn": 0, "grouped": 0, "given_up": 0}
    kind = func.substr(func.coalesce(_c.last_error, ""), 1, 8)
    states = (_c.delivered_at.is_not(None), _c.given_up_at.is_not(None), kind)
    for delivered, ended, error, number in tx.execute(select(*states, func.count()).group_by(*states)):
        name = "waiting"
        if delivered:
            name = "delivered"
        elif ended:
            name = {"withdraw": "withdrawn", "grouped:": "grouped"}.get(error, "given_up")
        found[name] += number
    return found
