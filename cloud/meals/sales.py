"""What moves a purchase after it was asked for: payment, the machine's events, its answers, and deadlines.

Everything runs inside a transaction of the caller: the pipeline's commit (events and answers), or the
service's own. A refund is one ledger transaction named after its purchase, so it can't happen twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row

from cloud.meals import repository
from cloud.meals.lifecycle import SALE, SaleState, SaleStep
from cloud.model import CommandOutcome, EventHandler, OutcomeHandler, StoredEvent
from cloud.wallet import ledger
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.messages import ReplyStatus

_log = structlog.get_logger(__name__)

RESOLVE_WITHIN_S: Final = 180.0
"""Business seconds from payment to a refund if the machine can't be asked (ADR 0010). It starts no motor later than
160 s after it accepted (`devices.meal_machine.controller.SALE_LIMIT_MS`): no refunded meal is vended afterwards."""
DOUBT_S: Final = 30.0
"""Business seconds in which proof may still follow after the machine itself said "unknown"."""
DEADLINES_AT_ONCE_MAX: Final = 100
LATE_DELIVERY: Final = "delivered_late"

_STEPS: Final[Mapping[str, SaleStep]] = {
    "sale_reserved": SaleStep.RESERVE,
    "sale_heating": SaleStep.HEAT,
    "sale_dispensing": SaleStep.DISPENSE,
    "sale_delivered": SaleStep.DELIVER,
    "sale_failed": SaleStep.FAIL,
}
_UNPROVEN: Final = frozenset({"unknown", "hardware_silent", "link_lost"})
"""Reasons after which a box may or may not have left the machine."""
_ENDED: Final = frozenset({ReplyStatus.REFUSED, ReplyStatus.FAILED, ReplyStatus.EXPIRED})


def event_handlers() -> dict[tuple[str, str], Sequence[EventHandler]]:
    """For the pipeline's registry: (kind, event type) → handlers."""
    return {(repository.KIND, event_type): (on_event,) for event_type in _STEPS}


def outcome_handlers() -> dict[str, Sequence[OutcomeHandler]]:
    """For the command sender's registry: action → handlers."""
    return {"dispense": (on_outcome,)}


def deadline_after(at: int, seconds: float) -> int:
    return at + round(seconds * MILLISECONDS_PER_SECOND)


def take_payment(tx: Connection, row: Row[Any], at: int) -> Row[Any]:
    """Charge the wallet of the buyer: `paid`, or `payment_failed` without enough money."""
    entries = {ledger.wallet_of(row.person_id): -row.price_fen, ledger.SALES: row.price_fen}
    try:
        ledger.post(tx, f"purchase:{row.id}", f"purchase:{row.id}", entries, at)
    except ledger.InsufficientFundsError:
        return repository.move(tx, row, SaleStep.REFUSE_PAYMENT, at, reason="insufficient_funds")
    return repository.move(tx, row, SaleStep.PAY, at, paid_at=at, deadline_at=deadline_after(at, RESOLVE_WITHIN_S))


def fail(tx: Connection, row: Row[Any], reason: str, at: int) -> Row[Any]:
    """The machine did not deliver: give the money back, in the same transaction."""
    return refund(tx, repository.move(tx, row, SaleStep.FAIL, at, reason=reason), at)


def refund(tx: Connection, row: Row[Any], at: int) -> Row[Any]:
    """Give the price back, exactly once; `manual` if the ledger holds another transaction of that name."""
    if row.state != SaleState.REFUND_PENDING.value:
        row = repository.move(tx, row, SaleStep.ASK_REFUND, at)
    entries = {ledger.wallet_of(row.person_id): row.price_fen, ledger.SALES: -row.price_fen}
    try:
        ledger.post(tx, f"refund:{row.id}", f"refund:{row.id}", entries, at)
    except ledger.LedgerConflictError as error:
        _log.error("refund refused by the ledger", purchase_id=row.id, error=str(error))
        row = repository.move(tx, row, SaleStep.REFUSE_REFUND, at)
        return repository.move(tx, row, SaleStep.HAND_OVER, at)
    return repository.move(tx, row, SaleStep.REFUND, at, refunded_at=at)


def lose(tx: Connection, row: Row[Any], reason: str, at: int, deadline_at: int) -> Row[Any]:
    """Nothing proves what happened: wait until `deadline_at` for proof, then refund."""
    return repository.move(tx, row, SaleStep.LOSE, at, reason=reason, deadline_at=deadline_at)


def on_event(tx: Connection, event: StoredEvent) -> None:
    """A step of the sale, told by the machine."""
    row = repository.by_id(tx, event.body.purchase_id)
    if row is None or row.device_id != event.device_id or row.command_id != event.body.command_id:
        _log.warning("a sale that was not asked for", device_id=event.device_id, event_id=event.event_id)
        return
    at, step, state = event.received_at, _STEPS[event.type], SaleState(row.state)
    if step is SaleStep.FAIL and event.body.reason in _UNPROVEN:
        if SALE.allows(state, SaleStep.LOSE):
            lose(tx, row, event.body.reason, at, min(row.deadline_at, deadline_after(at, DOUBT_S)))
    elif step is SaleStep.FAIL and SALE.allows(state, step):
        fail(tx, row, event.body.reason, at)
    elif step is SaleStep.DELIVER and SALE.allows(state, step):
        repository.move(tx, row, step, at, delivered_at=event.occurred_at, reason="")
    elif step is not SaleStep.FAIL and SALE.allows(state, step):
        repository.move(tx, row, step, at)
    elif step is SaleStep.DELIVER and state is SaleState.REFUNDED:
        # Proof came after the refund: the refund stands, and the loss is on record.
        repository.flag(tx, row.id, LATE_DELIVERY, at)
        repository.note(tx, row.id, step.value, state.value, state.value, at)


def on_outcome(tx: Connection, outcome: CommandOutcome) -> None:
    """How the dispense command went. Success is proven by the drop sensor's event alone."""
    row = repository.by_command(tx, outcome.command_id)
    if row is None:
        return
    state, status = SaleState(row.state), ReplyStatus(outcome.status)
    if _nothing_moved(outcome):
        if SALE.allows(state, SaleStep.FAIL):
            fail(tx, row, outcome.reason or "unknown", outcome.at)
    elif status in _ENDED and SALE.allows(state, SaleStep.LOSE):
        # If the cloud gave up waiting, an acceptance may be on its way behind a broken link and the machine may be
        # heating: wait for its last moment.
        lose(tx, row, "link_lost" if status is ReplyStatus.EXPIRED else outcome.reason, outcome.at, row.deadline_at)


def _nothing_moved(outcome: CommandOutcome) -> bool:
    """Whether the outcome proves that no box came out and none will."""
    status = ReplyStatus(outcome.status)
    if status is ReplyStatus.REFUSED:
        # After a change of its storage the edge does not know what its predecessor began.
        return outcome.reason != "wrong_generation"
    if status is ReplyStatus.FAILED:
        return outcome.reason not in _UNPROVEN
    # Read too late, the order was never begun, and the edge's journal keeps it from being begun later.
    return status is ReplyStatus.EXPIRED and outcome.by_device


def resolve_due(tx: Connection, now_ms: int) -> list[str]:
    """End what waited too long; returns the ids of the purchases that ended."""
    rows = repository.due(tx, now_ms, DEADLINES_AT_ONCE_MAX)
    for row in rows:
        state = SaleState(row.state)
        if state in {SaleState.REQUESTED, SaleState.PAYMENT_PENDING}:
            # Nothing was charged: charge and `paid` are one transaction.
            repository.move(tx, row, SaleStep.CANCEL, now_ms, reason="timeout")
        elif SALE.allows(state, SaleStep.LOSE):
            refund(tx, lose(tx, row, row.reason or "timeout", now_ms, row.deadline_at), now_ms)
        else:
            refund(tx, row, now_ms)
    return [row.id for row in rows]
