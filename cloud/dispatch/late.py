"""What a person's own channel did not take in time: it joins the next digest instead of waiting in a heap.

A channel that was away for hours would else bring everything at once when it comes back. So a notice is tried for one
window of the quota and then goes back to what is collected; and a notice that arrives late counts when it arrives.
With both, nobody is told more than `NOTICES_MAX` times within a window, whatever the channels did.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, exists, select

from cloud.dispatch import attempts, quotas
from cloud.dispatch.leases import Leased, Outcome
from cloud.dispatch.letters import ORDINARY
from cloud.dispatch.quotas import WINDOW_S, Quota
from cloud.tables import outbox
from fleet.clock import MILLISECONDS_PER_SECOND

OWN: Final = "own:"
"""Begin of the steps of rows for a person's own contact points that are no emergency."""

_WINDOW_MS: Final = round(WINDOW_S * MILLISECONDS_PER_SECOND)
_c = outbox.c


def ended(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, where a repeat would come too late as an end of the row. Before they are written."""
    return [_given_up(one) if _comes_too_late(one) else one for one in outcomes]


def remember(tx: Connection, outcomes: Sequence[Outcome]) -> None:
    """After they were written, in the same commit: collect what ended unsaid, and count what was said late."""
    for one in sorted(filter(_is_own, outcomes), key=lambda one: (_person(one.leased), one.leased.id)):
        leased = one.leased
        if one.error is None and leased.attempt > 1:
            quota = quotas.load(tx, _person(leased))
            quota.tell_late(leased.created_at, one.at)
            quotas.store(tx, _person(leased), quota)
        elif one.error is not None and one.available_at is None and _ended_by_us(tx, one) and _is_unsaid(tx, leased):
            quota = quotas.load(tx, _person(leased))
            if _collect(quota, leased, one.at):
                quotas.store(tx, _person(leased), quota)


def _is_own(outcome: Outcome) -> bool:
    leased = outcome.leased
    return leased.urgent == ORDINARY and leased.recipient is not None and leased.step.startswith(OWN)


def _comes_too_late(outcome: Outcome) -> bool:
    again_at = outcome.available_at
    return _is_own(outcome) and again_at is not None and again_at >= outcome.leased.created_at + _WINDOW_MS


def _given_up(outcome: Outcome) -> Outcome:
    error = f"grouped: into the next digest, after {outcome.error}"
    return replace(outcome, available_at=None, error=error, result=attempts.GIVEN_UP)


def _ended_by_us(tx: Connection, outcome: Outcome) -> bool:
    """Not where somebody acknowledged it meanwhile, or another worker holds the row."""
    mine = (_c.id == outcome.leased.id) & (_c.given_up_at == outcome.at) & (_c.last_error == outcome.error)
    return outcome.result == attempts.GIVEN_UP and bool(tx.scalar(select(exists(select(_c.id).where(mine)))))


def _is_unsaid(tx: Connection, leased: Leased) -> bool:
    """Whether no other channel brought this person the same, nor may still bring it: the last one to fail collects."""
    same = (_c.reference == leased.reference) & (_c.step == leased.step) & (_c.recipient == _person(leased))
    said = same & (_c.id != leased.id) & (_c.delivered_at.is_not(None) | _c.given_up_at.is_(None))
    return not tx.scalar(select(exists(select(_c.id).where(said))))


def _collect(quota: Quota, leased: Leased, now_ms: int) -> bool:
    notification = leased.notification()
    listed = notification.facts.get("notices") if notification.kind_of == "digest" else None
    if listed is None:
        said = [[notification.reference, notification.priority, notification.title_zh, notification.title_en]]
        count = 1
    else:
        said = [[one["reference"], one["priority"], one["zh"], one["en"]] for one in listed]
        count = int(notification.facts["count"])
    if all(entry in quota.digest for entry in said):
        return False  # the row of another channel was earlier
    quota.collect_again(said, count, quota.free_at(now_ms))
    return True


def _person(leased: Leased) -> str:
    return leased.recipient.person_id if leased.recipient is not None else ""
