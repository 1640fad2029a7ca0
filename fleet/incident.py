"""How alarms, emergency calls and work orders live and end, after public summaries."""

from enum import StrEnum
from typing import Final

from fleet.lifecycle import Lifecycle


class Priority(StrEnum):
    """In order of urgency. Emergencies are calls, never alarms, and queue behind nothing."""

    EMERGENCY = "emergency"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class AlarmState(StrEnum):
    """ISA-18.2 alarm states; shelving and suppression come with the alarm desk."""

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED_UNACKNOWLEDGED = "returned_unacknowledged"


class AlarmEvent(StrEnum):
    """What moves an alarm: the process (activate, return) or a person (acknowledge)."""

    ACTIVATE = "activate"
    RETURN = "return"
    ACKNOWLEDGE = "acknowledge"


ALARM: Final = Lifecycle[AlarmState, AlarmEvent](
    name="alarm",
    initial=AlarmState.NORMAL,
    table={
        (AlarmState.NORMAL, AlarmEvent.ACTIVATE): AlarmState.UNACKNOWLEDGED,
        (AlarmState.UNACKNOWLEDGED, AlarmEvent.ACKNOWLEDGE): AlarmState.ACKNOWLEDGED,
        (AlarmState.UNACKNOWLEDGED, AlarmEvent.RETURN): AlarmState.RETURNED_UNACKNOWLEDGED,
        (AlarmState.ACKNOWLEDGED, AlarmEvent.RETURN): AlarmState.NORMAL,
        (AlarmState.RETURNED_UNACKNOWLEDGED, AlarmEvent.ACTIVATE): AlarmState.UNACKNOWLEDGED,
        (AlarmState.RETURNED_UNACKNOWLEDGED, AlarmEvent.ACKNOWLEDGE): AlarmState.NORMAL,
    },
)


class CallState(StrEnum):
    """An emergency call of a room (or of any place with a button)."""

    IDLE = "idle"
    CALLING = "calling"
    ACKNOWLEDGED = "acknowledged"
    ATTENDED = "attended"
    CLEARED = "cleared"


class CallEvent(StrEnum):
    """`acknowledge` comes from a named person; all others from the device at the origin."""

    PRESS = "press"
    ACKNOWLEDGE = "acknowledge"
    ATTEND = "attend"
    CLEAR_AT_ORIGIN = "clear_at_origin"


CALL: Final = Lifecycle[CallState, CallEvent](
    name="call",
    initial=CallState.IDLE,
    table={
        (CallState.IDLE, CallEvent.PRESS): CallState.CALLING,
        (CallState.CALLING, CallEvent.ACKNOWLEDGE): CallState.ACKNOWLEDGED,
        (CallState.CALLING, CallEvent.ATTEND): CallState.ATTENDED,  # somebody was there before anybody accepted
        (CallState.ACKNOWLEDGED, CallEvent.ATTEND): CallState.ATTENDED,
        (CallState.CALLING, CallEvent.CLEAR_AT_ORIGIN): CallState.CLEARED,
        (CallState.ACKNOWLEDGED, CallEvent.CLEAR_AT_ORIGIN): CallState.CLEARED,
        (CallState.ATTENDED, CallEvent.CLEAR_AT_ORIGIN): CallState.CLEARED,
        # A further press during an open call joins it, and a person in need is never refused.
        (CallState.CALLING, CallEvent.PRESS): CallState.CALLING,
        (CallState.ACKNOWLEDGED, CallEvent.PRESS): CallState.CALLING,
        (CallState.ATTENDED, CallEvent.PRESS): CallState.CALLING,
    },
    final=frozenset({CallState.CLEARED}),
)


class OrderState(StrEnum):
    """A work order of the crew."""

    DRAFT = "draft"
    DISPATCHABLE = "dispatchable"
    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    TRAVELLING = "travelling"
    IN_PROGRESS = "in_progress"
    ON_HOLD = "on_hold"
    DONE = "done"
    CANNOT_COMPLETE = "cannot_complete"
    CANCELLED = "cancelled"


class OrderEvent(StrEnum):
    """What moves a work order."""

    RELEASE = "release"
    ASSIGN = "assign"
    ACCEPT = "accept"
    TRAVEL = "travel"
    START = "start"
    HOLD = "hold"
    RESUME = "resume"
    COMPLETE = "complete"
    GIVE_UP = "give_up"
    CANCEL = "cancel"
    REOPEN = "reopen"


_OPEN_STATES: Final = (
    OrderState.DRAFT,
    OrderState.DISPATCHABLE,
    OrderState.ASSIGNED,
    OrderState.ACCEPTED,
    OrderState.TRAVELLING,
    OrderState.IN_PROGRESS,
    OrderState.ON_HOLD,
)

ORDER: Final = Lifecycle[OrderState, OrderEvent](
    name="work order",
    initial=OrderState.DRAFT,
    table={
        (OrderState.DRAFT, OrderEvent.RELEASE): OrderState.DISPATCHABLE,
        (OrderState.DISPATCHABLE, OrderEvent.ASSIGN): OrderState.ASSIGNED,
        (OrderState.ASSIGNED, OrderEvent.ASSIGN): OrderState.ASSIGNED,
        (OrderState.ASSIGNED, OrderEvent.ACCEPT): OrderState.ACCEPTED,
        (OrderState.ACCEPTED, OrderEvent.TRAVEL): OrderState.TRAVELLING,
        (OrderState.TRAVELLING, OrderEvent.START): OrderState.IN_PROGRESS,
        (OrderState.IN_PROGRESS, OrderEvent.COMPLETE): OrderState.DONE,
        (OrderState.IN_PROGRESS, OrderEvent.GIVE_UP): OrderState.CANNOT_COMPLETE,
        (OrderState.CANNOT_COMPLETE, OrderEvent.RELEASE): OrderState.DISPATCHABLE,
        (OrderState.ON_HOLD, OrderEvent.RESUME): OrderState.DISPATCHABLE,
        (OrderState.DONE, OrderEvent.REOPEN): OrderState.DISPATCHABLE,
        **{
            (state, OrderEvent.HOLD): OrderState.ON_HOLD
            for state in _OPEN_STATES
            if state not in {OrderState.DRAFT, OrderState.ON_HOLD}
        },
        **{(state, OrderEvent.CANCEL): OrderState.CANCELLED for state in (*_OPEN_STATES, OrderState.CANNOT_COMPLETE)},
    },
    final=frozenset({OrderState.CANCELLED}),
)
