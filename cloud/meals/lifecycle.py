"""How a purchase lives and ends.

Events of the machine come late or not at all (a link is lost, a frame is damaged), so a later step is
taken from every earlier one. What was paid ends in `delivered` or `refunded`, or in `manual` if the
ledger itself refuses the refund.
"""

from enum import StrEnum
from typing import Final

from fleet.lifecycle import Lifecycle


class SaleState(StrEnum):
    """Where a purchase stands."""

    REQUESTED = "requested"
    PAYMENT_PENDING = "payment_pending"
    PAID = "paid"
    RESERVED = "reserved"
    HEATING = "heating"
    DISPENSING = "dispensing"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    PAYMENT_FAILED = "payment_failed"
    DISPENSE_FAILED = "dispense_failed"
    IN_DOUBT = "in_doubt"
    REFUND_PENDING = "refund_pending"
    REFUNDED = "refunded"
    REFUND_FAILED = "refund_failed"
    MANUAL = "manual"


class SaleStep(StrEnum):
    """What moves a purchase."""

    ASK_PAYMENT = "ask_payment"
    PAY = "pay"
    REFUSE_PAYMENT = "refuse_payment"
    CANCEL = "cancel"
    RESERVE = "reserve"
    HEAT = "heat"
    DISPENSE = "dispense"
    DELIVER = "deliver"
    FAIL = "fail"
    LOSE = "lose"
    """Nothing proves what the machine did."""
    ASK_REFUND = "ask_refund"
    REFUND = "refund"
    REFUSE_REFUND = "refuse_refund"
    HAND_OVER = "hand_over"


_S = SaleState
AT_THE_MACHINE: Final = (_S.PAID, _S.RESERVED, _S.HEATING, _S.DISPENSING)
FINAL: Final = frozenset({_S.DELIVERED, _S.CANCELLED, _S.PAYMENT_FAILED, _S.REFUNDED, _S.MANUAL})

SALE: Final = Lifecycle[SaleState, SaleStep](
    name="sale",
    initial=_S.REQUESTED,
    table={
        (_S.REQUESTED, SaleStep.ASK_PAYMENT): _S.PAYMENT_PENDING,
        (_S.REQUESTED, SaleStep.CANCEL): _S.CANCELLED,
        (_S.PAYMENT_PENDING, SaleStep.PAY): _S.PAID,
        (_S.PAYMENT_PENDING, SaleStep.REFUSE_PAYMENT): _S.PAYMENT_FAILED,
        (_S.PAYMENT_PENDING, SaleStep.CANCEL): _S.CANCELLED,
        (_S.PAID, SaleStep.RESERVE): _S.RESERVED,
        **{(state, SaleStep.HEAT): _S.HEATING for state in (_S.PAID, _S.RESERVED)},
        **{(state, SaleStep.DISPENSE): _S.DISPENSING for state in (_S.PAID, _S.RESERVED, _S.HEATING)},
        **{(state, SaleStep.DELIVER): _S.DELIVERED for state in (*AT_THE_MACHINE, _S.IN_DOUBT)},
        **{(state, SaleStep.FAIL): _S.DISPENSE_FAILED for state in (*AT_THE_MACHINE, _S.IN_DOUBT)},
        **{(state, SaleStep.LOSE): _S.IN_DOUBT for state in AT_THE_MACHINE},
        **{
            (state, SaleStep.ASK_REFUND): _S.REFUND_PENDING
            for state in (_S.DISPENSE_FAILED, _S.IN_DOUBT, _S.REFUND_FAILED)
        },
        (_S.REFUND_PENDING, SaleStep.REFUND): _S.REFUNDED,
        (_S.REFUND_PENDING, SaleStep.REFUSE_REFUND): _S.REFUND_FAILED,
        (_S.REFUND_FAILED, SaleStep.HAND_OVER): _S.MANUAL,
    },
    final=FINAL,
)
