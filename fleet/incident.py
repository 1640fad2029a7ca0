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
    """Is it true, and has a person seen it? After ISA-18.2 / IEC 62682. Whether it is shown is `AlarmView`.

    The latched states are for alarms whose trace a return does not remove: somebody inspects the device on site.
    """

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED_UNACKNOWLEDGED = "returned_unacknowledged"
    LATCHED_UNACKNOWLEDGED = "latched_unacknowledged"
    LATCHED_ACKNOWLEDGED = "latched_acknowledged"


class AlarmEvent(StrEnum):
    """What moves an alarm: the process, its re-alarm time, or a person.

    `return_latched` is the return of an alarm that latches; `realarm` says it again because it is still true;
    `reset` is said by who inspected the device on site.
    """

    ACTIVATE = "activate"
    RETURN = "return"
    RETURN_LATCHED = "return_latched"
    REALARM = "realarm"
    ACKNOWLEDGE = "acknowledge"
    RESET = "reset"


ALARM: Final = Lifecycle[AlarmState, AlarmEvent](
    name="alarm",
    initial=AlarmState.NORMAL,
    table={
        (AlarmState.NORMAL, AlarmEvent.ACTIVATE): AlarmState.UNACKNOWLEDGED,
        (AlarmState.UNACKNOWLEDGED, AlarmEvent.ACKNOWLEDGE): AlarmState.ACKNOWLEDGED,
        (AlarmState.UNACKNOWLEDGED, AlarmEvent.REALARM): AlarmState.UNACKNOWLEDGED,
        (AlarmState.ACKNOWLEDGED, AlarmEvent.REALARM): AlarmState.UNACKNOWLEDGED,
        (AlarmState.UNACKNOWLEDGED, AlarmEvent.RETURN): AlarmState.RETURNED_UNACKNOWLEDGED,
        (AlarmState.ACKNOWLEDGED, AlarmEvent.RETURN): AlarmState.NORMAL,
        (AlarmState.RETURNED_UNACKNOWLEDGED, AlarmEvent.ACTIVATE): AlarmState.UNACKNOWLEDGED,
        (AlarmState.RETURNED_UNACKNOWLEDGED, AlarmEvent.ACKNOWLEDGE): AlarmState.NORMAL,
        (AlarmState.UNACKNOWLEDGED, AlarmEvent.RETURN_LATCHED): AlarmState.LATCHED_UNACKNOWLEDGED,
        (AlarmState.ACKNOWLEDGED, AlarmEvent.RETURN_LATCHED): AlarmState.LATCHED_ACKNOWLEDGED,
        (AlarmState.LATCHED_UNACKNOWLEDGED, AlarmEvent.ACTIVATE): AlarmState.UNACKNOWLEDGED,
        (AlarmState.LATCHED_ACKNOWLEDGED, AlarmEvent.ACTIVATE): AlarmState.UNACKNOWLEDGED,
        (AlarmState.LATCHED_UNACKNOWLEDGED, AlarmEvent.ACKNOWLEDGE): AlarmState.LATCHED_ACKNOWLEDGED,
        (AlarmState.LATCHED_ACKNOWLEDGED, AlarmEvent.RESET): AlarmState.NORMAL,
    },
)

ALARM_TRUE: Final = frozenset({AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED})
"""States in which the alarm's condition holds (its delays are over)."""
ALARM_UNSEEN: Final = frozenset(
    {AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED_UNACKNOWLEDGED, AlarmState.LATCHED_UNACKNOWLEDGED}
)
"""States that a person can acknowledge."""


class AlarmView(StrEnum):
    """Whether people are shown an alarm, and if not, why: the strongest reason of those in force (ADR 0022)."""

    SHOWN = "shown"
    SHELVED = "shelved"
    SUPPRESSED_BY_DESIGN = "suppressed_by_design"
    OUT_OF_SERVICE = "out_of_service"


class ViewEvent(StrEnum):
    """A reason to hide begins to be the strongest one, or the last one ended."""

    SHOW = "show"
    SHELVE = "shelve"
    SUPPRESS = "suppress"
    TAKE_OUT_OF_SERVICE = "take_out_of_service"


ALARM_VIEW: Final = Lifecycle[AlarmView, ViewEvent](
    name="alarm view",
    initial=AlarmView.SHOWN,
    table={
        (AlarmView.SHOWN, ViewEvent.SHELVE): AlarmView.SHELVED,
        (AlarmView.SHOWN, ViewEvent.SUPPRESS): AlarmView.SUPPRESSED_BY_DESIGN,
        (AlarmView.SHOWN, ViewEvent.TAKE_OUT_OF_SERVICE): AlarmView.OUT_OF_SERVICE,
        (AlarmView.SHELVED, ViewEvent.SUPPRESS): AlarmView.SUPPRESSED_BY_DESIGN,
        (AlarmView.SHELVED, ViewEvent.TAKE_OUT_OF_SERVICE): AlarmView.OUT_OF_SERVICE,
        (AlarmView.SHELVED, ViewEvent.SHOW): AlarmView.SHOWN,
        (AlarmView.SUPPRESSED_BY_DESIGN, ViewEvent.SHELVE): AlarmView.SHELVED,
        (AlarmView.SUPPRESSED_BY_DESIGN, ViewEvent.TAKE_OUT_OF_SERVICE): AlarmView.OUT_OF_SERVICE,
        (AlarmView.SUPPRESSED_BY_DESIGN, ViewEvent.SHOW): AlarmView.SHOWN,
        (AlarmView.OUT_OF_SERVICE, ViewEvent.SHELVE): AlarmView.SHELVED,
        (AlarmView.OUT_OF_SERVICE, ViewEvent.SUPPRESS): AlarmView.SUPPRESSED_BY_DESIGN,
        (AlarmView.OUT_OF_SERVICE, ViewEvent.SHOW): AlarmView.SHOWN,
    },
)


class IncidentState(StrEnum):
    """Many alarms with one cause, told as one."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    ENDED = "ended"


class IncidentEvent(StrEnum):
    """`grow`: a further alarm belongs to it, or one of its alarms came back; `end`: all of its alarms returned."""

    GROW = "grow"
    ACKNOWLEDGE = "acknowledge"
    END = "end"


INCIDENT: Final = Lifecycle[IncidentState, IncidentEvent](
    name="incident",
    initial=IncidentState.OPEN,
    table={
        (IncidentState.OPEN, IncidentEvent.GROW): IncidentState.OPEN,
        (IncidentState.OPEN, IncidentEvent.ACKNOWLEDGE): IncidentState.ACKNOWLEDGED,
        (IncidentState.OPEN, IncidentEvent.END): IncidentState.ENDED,
        (IncidentState.ACKNOWLEDGED, IncidentEvent.GROW): IncidentState.OPEN,
        (IncidentState.ACKNOWLEDGED, IncidentEvent.ACKNOWLEDGE): IncidentState.ACKNOWLEDGED,
        (IncidentState.ACKNOWLEDGED, IncidentEvent.END): IncidentState.ENDED,
        (IncidentState.ENDED, IncidentEvent.GROW): IncidentState.OPEN,
        (IncidentState.ENDED, IncidentEvent.ACKNOWLEDGE): IncidentState.ENDED,  # what returned unseen is seen now
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
        (OrderState.ACCEPTED, OrderEvent.GIVE_UP): OrderState.CANNOT_COMPLETE,  # some things show before one is there
        (OrderState.TRAVELLING, OrderEvent.GIVE_UP): OrderState.CANNOT_COMPLETE,
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
