"""What becomes of a box's request for a certificate."""

from enum import StrEnum
from typing import Final

from fleet.lifecycle import Lifecycle


class EnrolmentState(StrEnum):
    """How far a request came."""

    PENDING = "pending"
    APPROVED = "approved"
    GRANTED = "granted"
    REJECTED = "rejected"
    EXPIRED = "expired"


class EnrolmentEvent(StrEnum):
    """What happens to it."""

    APPROVE = "approve"
    SIGN = "sign"
    REJECT = "reject"
    EXPIRE = "expire"


ENROLMENT: Final = Lifecycle(
    "enrolment",
    EnrolmentState.PENDING,
    {
        (EnrolmentState.PENDING, EnrolmentEvent.APPROVE): EnrolmentState.APPROVED,
        (EnrolmentState.PENDING, EnrolmentEvent.REJECT): EnrolmentState.REJECTED,
        (EnrolmentState.PENDING, EnrolmentEvent.EXPIRE): EnrolmentState.EXPIRED,
        (EnrolmentState.APPROVED, EnrolmentEvent.SIGN): EnrolmentState.GRANTED,
        (EnrolmentState.APPROVED, EnrolmentEvent.REJECT): EnrolmentState.REJECTED,
    },
    frozenset({EnrolmentState.GRANTED, EnrolmentState.REJECTED, EnrolmentState.EXPIRED}),
)
