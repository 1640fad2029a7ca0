"""What follows from an attempt besides its row: the log, the state of a contact point, the next channel of a person."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from cloud.dispatch import leases
from cloud.dispatch.leases import Outcome
from cloud.dispatch.letters import EMERGENCY, encode
from cloud.synthetic import PROBE_CHANNEL
from cloud.tables import contact_point, delivery_attempt, outbox

DELIVERED: Final = "delivered"
FAILED: Final = "failed"
TIMED_OUT: Final = "timed_out"
REFUSED: Final = "refused"
"""The address itself is wrong or gone."""
GIVEN_UP: Final = "given_up"
"""The last of the attempts failed, too."""
TOO_LATE: Final = "too_late"
"""Delivered, but meanwhile it was withdrawn: it could not be recalled any more."""
RESULTS: Final = (DELIVERED, FAILED, TIMED_OUT, REFUSED, GIVEN_UP, leases.RECALLED, TOO_LATE)

_o = outbox.c
_p = contact_point.c
_waiting = _o.delivered_at.is_(None) & _o.given_up_at.is_(None)

_WORKS: Final = (
    update(contact_point)
    .where(_p.id == bindparam("b_id"))
    .values(delivered_at=bindparam("b_at"), failing_since=None, failure="")
)
_FAILS: Final = (
    update(contact_point)
    .where(_p.id == bindparam("b_id"), _p.failing_since.is_(None))
    .values(failing_since=bindparam("b_at"), failure=bindparam("b_failure"))
)


def settle(tx: Connection, outcomes: Sequence[Outcome]) -> int:
    """In the commit that writes how attempts ended, before it; returns how many could not be recalled any more."""
    late = leases.withdrawn(tx, [one for one in outcomes if one.result == DELIVERED])
    # The deployment's calls to itself, one every ten seconds, would be most of the log that people read.
    logged = [one for one in outcomes if one.result != leases.ROUTED and one.leased.channel != PROBE_CHANNEL]
    if logged:
        tx.execute(insert(delivery_attempt), [_line(one, late=one.leased.id in late) for one in logged])
    _mark_contacts(tx, logged)
    _forget_codes(tx, logged)
    _bring_forward(tx, [one for one in logged if one.error is not None])
    return len(late)


def _line(outcome: Outcome, *, late: bool) -> dict[str, Any]:
    leased, to = outcome.leased, outcome.leased.recipient
    return {
        "at": outcome.at,
        "delivery_id": leased.delivery_id,
        "reference": leased.reference,
        "kind_of": leased.notification().kind_of,
        "channel": leased.channel,
        "recipient": to.person_id if to else "",
        "contact_id": to.contact_id if to else "",
        "attempt": leased.attempt,
        "urgent": int(leased.urgent),
        "outcome": TOO_LATE if late else outcome.result,
        "duration_ms": outcome.duration_ms,
        "error": outcome.error or "",
    }


def _mark_contacts(tx: Connection, outcomes: Sequence[Outcome]) -> None:
    works: dict[str, int] = {}
    fails: dict[str, Outcome] = {}
    for outcome in outcomes:
        to = outcome.leased.recipient
        if to is None or not to.contact_id or outcome.result == leases.RECALLED:
            continue
        if outcome.error is None:
            works[to.contact_id] = outcome.at
        elif outcome.result in {REFUSED, GIVEN_UP}:
            fails[to.contact_id] = outcome
    for contact_id, outcome in sorted(fails.items()):
        tx.execute(_FAILS, {"b_id": contact_id, "b_at": outcome.at, "b_failure": outcome.error})
    for contact_id, at in sorted(works.items()):
        tx.execute(_WORKS, {"b_id": contact_id, "b_at": at})


def _forget_codes(tx: Connection, outcomes: Sequence[Outcome]) -> None:
    """A code that was sent stands in nothing that is kept: whoever reads the database later proves nothing by it."""
    for outcome in outcomes:
        said = outcome.leased.notification()
        if outcome.available_at is None and "code" in said.facts:
            kept = replace(said, title_zh="验证码", title_en="Verification code", facts={})
            tx.execute(update(outbox).where(_o.id == outcome.leased.id).values(notification=encode(kept)))


def _bring_forward(tx: Connection, failed: Sequence[Outcome]) -> None:
    """Nobody waits for a channel of a person whose every earlier channel failed: the next one goes now."""
    pages: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for outcome in failed:
        leased = outcome.leased
        first_or_last = leased.attempt == 1 or outcome.available_at is None
        if leased.urgent == EMERGENCY and leased.recipient is not None and first_or_last:
            key = (leased.reference, leased.step, leased.recipient.person_id)
            pages[key] = max(pages[key], outcome.at)
    for (reference, step, recipient), at in sorted(pages.items()):
        same_page = (_o.reference == reference) & (_o.step == step) & (_o.recipient == recipient)
        columns = (_o.id, _o.stage, _o.delivered_at, _o.given_up_at, _o.last_error, _o.available_at, _o.attempts)
        rows = tx.execute(select(*columns).where(same_page, _o.urgent == EMERGENCY).order_by(_o.stage, _o.id)).all()
        later = [row for row in rows if row.attempts == 0 and row.given_up_at is None and row.available_at > at]
        if not later:
            continue
        stage = later[0].stage
        hopeful = [row for row in rows if row.stage < stage and row.given_up_at is None and row.last_error is None]
        if hopeful:
            continue
        ids = [row.id for row in later if row.stage == stage]
        tx.execute(update(outbox).where(_o.id.in_(ids), _waiting, _o.attempts == 0).values(available_at=at))
