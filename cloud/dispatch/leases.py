"""The outbox in SQL: who holds which row until when, and how it ended.

A lease is a token and an end in real ms. Every later write names the token, so a worker whose lease ran
out and was given to another changes nothing any more (fencing).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, or_, select, update

from cloud.dispatch import notices
from cloud.model import Notification, Recipient
from cloud.tables import contact_point, notification_preference, outbox, person

RECALLED: Final = "recalled"
ROUTED: Final = "routed"
NOT_WRITTEN: Final = frozenset({RECALLED, ROUTED})
"""Ends of attempts that leave the row as it is: it was withdrawn, or whoever took it ended it in its own commit."""

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
    urgent: int
    token: str
    reference: str = ""
    step: str = ""
    stage: int = 0
    recipient: "Recipient | None" = None

    def notification(self) -> Notification:
        """What is to be delivered."""
        return notices.decode(self.body)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: delivered (`error` is None), to be repeated at `available_at`, or given up.

    `result` says it in one word for the log of attempts; `recalled`: nothing was sent and nothing is to be written.
    """

    leased: Leased
    at: int
    error: str | None = None
    available_at: int | None = None
    result: str = "delivered"
    duration_ms: int = 0


def next_due_ms(tx: Connection, moment: Moment, *, urgent: int, channels: Sequence[str]) -> int | None:
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
    tx: Connection, moment: Moment, *, urgent: int, room: Mapping[str, int], token: str, until_ms: int
) -> list[Leased]:
    """Take up to `room[channel]` due rows of each channel: those that were tried least, then the oldest.

    Else the repeats of one receiver that hangs would keep a channel's whole room, and later pages to others wait.
    """
    taken: list[Leased] = []
    waits = set(tx.scalars(select(_c.channel).where(_waiting, _c.urgent == int(urgent), moment.is_due()).distinct()))
    for channel, count in room.items():
        if channel not in waits:
            continue
        if count <= 0:
            continue
        due = (
            select(_c.id)
            .where(_waiting, _c.urgent == int(urgent), _c.channel == channel, moment.is_due())
            .order_by(_c.attempts, _c.id)
            .limit(count)
            .with_for_update(skip_locked=True)
            .cte("due")  # PostgreSQL runs a subquery that locks more than once, each time with a limit of its own
        )
        statement = (
            update(outbox)
            .where(_c.id.in_(select(due.c.id)), _waiting, moment.is_free())
            .values(lease_token=token, lease_until=until_ms, attempts=_c.attempts + 1)
            .returning(
                _c.id, _c.delivery_id, _c.notification, _c.created_at, _c.attempts, _c.reference, _c.step, _c.stage,
                _c.recipient, _c.contact_id,
            )
        )  # fmt: skip
        found = tx.execute(statement).all()
        people = _recipients(tx, found)
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
                reference=row.reference,
                step=row.step,
                stage=row.stage,
                recipient=people.get((row.recipient, row.contact_id)),
            )
            for row in found
        ]
    return sorted(taken, key=lambda leased: leased.id)


def _recipients(tx: Connection, rows: Sequence[Row[Any]]) -> dict[tuple[str, str], Recipient]:
    """The people behind rows, with the addresses of now: who changes a number is not called at the old one."""
    wanted = {(row.recipient, row.contact_id) for row in rows if row.recipient}
    if not wanted:
        return {}
    languages = person.outerjoin(notification_preference, notification_preference.c.person_id == person.c.id)
    language = func.coalesce(func.nullif(notification_preference.c.language, ""), person.c.language)
    statement = select(person.c.id, language).select_from(languages)
    spoken = {
        row[0]: row[1] for row in tx.execute(statement.where(person.c.id.in_(sorted({one for one, _ in wanted}))))
    }
    contact_ids = sorted({contact_id for _, contact_id in wanted if contact_id})
    ways = select(contact_point.c.id, contact_point.c.address).where(contact_point.c.id.in_(contact_ids))
    addresses = {row.id: row.address for row in tx.execute(ways)} if contact_ids else {}
    return {
        (person_id, contact_id): Recipient(
            person_id, contact_id, addresses.get(contact_id, ""), spoken.get(person_id, "")
        )
        for person_id, contact_id in wanted
    }


def still_wanted(tx: Connection, rows: Sequence[Leased]) -> frozenset[int]:
    """Ids of those rows that are still this worker's and that nobody withdrew since they were leased."""
    wanted = {row.id: row.token for row in rows}
    found = select(_c.id, _c.lease_token).where(_c.id.in_(sorted(wanted)), _waiting)
    return frozenset(row.id for row in tx.execute(found) if row.lease_token == wanted[row.id])


def finish(tx: Connection, outcomes: Sequence[Outcome]) -> int:
    """Write how attempts ended; returns how many of them were fenced off, because somebody else holds the row."""
    written = 0
    theirs = [outcome for outcome in outcomes if outcome.result not in NOT_WRITTEN]
    for outcome in sorted(theirs, key=lambda outcome: outcome.leased.id):  # one order of locks for everybody
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
    return len(theirs) - written


def withdrawn(tx: Connection, delivered: Sequence[Outcome]) -> frozenset[int]:
    """Ids of rows that were delivered although they had been withdrawn: they were on their way already."""
    ids = sorted(outcome.leased.id for outcome in delivered)
    return (
        frozenset(tx.scalars(select(_c.id).where(_c.id.in_(ids), _c.given_up_at.is_not(None)))) if ids else frozenset()
    )


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
