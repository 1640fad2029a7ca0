"""How a ride lives: it exists from the moment the lock reports open, or it never began."""

from enum import StrEnum
from typing import Final

from fleet.lifecycle import Lifecycle


class RideState(StrEnum):
    """`unlocking` and `riding` hold the bike and the rider; the database admits one of each."""

    UNLOCKING = "unlocking"
    RIDING = "riding"
    ENDED = "ended"
    NEVER_BEGAN = "never_began"


class RideEvent(StrEnum):
    """Evidence from the lock, or its absence. People only ask."""

    OPENED = "opened"
    CLOSED = "closed"
    JAMMED = "jammed"
    FAILED = "failed"
    EXPIRED = "expired"
    REVOKED = "revoked"
    """The bike is believed no longer: whatever it says of its lock from now on is not heard."""


RIDE: Final = Lifecycle[RideState, RideEvent](
    name="ride",
    initial=RideState.UNLOCKING,
    table={
        (RideState.UNLOCKING, RideEvent.OPENED): RideState.RIDING,
        (RideState.UNLOCKING, RideEvent.JAMMED): RideState.NEVER_BEGAN,
        (RideState.UNLOCKING, RideEvent.FAILED): RideState.NEVER_BEGAN,
        (RideState.UNLOCKING, RideEvent.EXPIRED): RideState.NEVER_BEGAN,
        (RideState.UNLOCKING, RideEvent.REVOKED): RideState.NEVER_BEGAN,
        (RideState.RIDING, RideEvent.CLOSED): RideState.ENDED,
        # A rider whose lock jams did all they could: the clock stops, the crew has the alarm.
        (RideState.RIDING, RideEvent.JAMMED): RideState.ENDED,
        # Its end could never be proven: the rider pays up to that moment and is told.
        (RideState.RIDING, RideEvent.REVOKED): RideState.ENDED,
    },
    final=frozenset({RideState.ENDED, RideState.NEVER_BEGAN}),
)
OPEN_STATES: Final = tuple(state.value for state in RideState if state not in RIDE.final)
