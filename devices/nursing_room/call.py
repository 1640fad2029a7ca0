"""The call as the room's own hardware knows it: which light is on, and what may change it.

It is narrower than `fleet.incident.CALL`: the hardware does not know who acknowledged, only what it was
told to show. Nothing but the clear key in the room leads back to `idle`: no command, no time-out, no
loss of power (the state is kept in non-volatile memory).
"""

from enum import StrEnum
from typing import Final

from fleet.lifecycle import Lifecycle


class RoomCallState(StrEnum):
    """What the room shows."""

    IDLE = "idle"
    CALLING = "calling"
    RECEIVED = "received"
    HELP_COMING = "help_coming"
    ATTENDED = "attended"


class RoomCallEvent(StrEnum):
    """What happens to it: the first three by hand in the room, the others from the cloud through the edge."""

    PRESS = "press"
    LONG_PRESS = "long_press"
    CLEAR_KEY = "clear_key"
    SHOW_RECEIVED = "show_received"
    SHOW_HELP_COMING = "show_help_coming"


_OPEN: Final = (RoomCallState.CALLING, RoomCallState.RECEIVED, RoomCallState.HELP_COMING, RoomCallState.ATTENDED)

ROOM_CALL: Final = Lifecycle[RoomCallState, RoomCallEvent](
    name="room call",
    initial=RoomCallState.IDLE,
    table={
        (RoomCallState.IDLE, RoomCallEvent.PRESS): RoomCallState.CALLING,
        # A further press starts the lights again: the caller must see that this press was received too.
        **{(state, RoomCallEvent.PRESS): RoomCallState.CALLING for state in _OPEN},
        **{(state, RoomCallEvent.LONG_PRESS): RoomCallState.ATTENDED for state in _OPEN},
        **{(state, RoomCallEvent.CLEAR_KEY): RoomCallState.IDLE for state in _OPEN},
        (RoomCallState.CALLING, RoomCallEvent.SHOW_RECEIVED): RoomCallState.RECEIVED,
        (RoomCallState.RECEIVED, RoomCallEvent.SHOW_RECEIVED): RoomCallState.RECEIVED,
        # A late "received" never takes back better news.
        (RoomCallState.HELP_COMING, RoomCallEvent.SHOW_RECEIVED): RoomCallState.HELP_COMING,
        (RoomCallState.ATTENDED, RoomCallEvent.SHOW_RECEIVED): RoomCallState.ATTENDED,
        (RoomCallState.CALLING, RoomCallEvent.SHOW_HELP_COMING): RoomCallState.HELP_COMING,
        (RoomCallState.RECEIVED, RoomCallEvent.SHOW_HELP_COMING): RoomCallState.HELP_COMING,
        (RoomCallState.HELP_COMING, RoomCallEvent.SHOW_HELP_COMING): RoomCallState.HELP_COMING,
        (RoomCallState.ATTENDED, RoomCallEvent.SHOW_HELP_COMING): RoomCallState.ATTENDED,
    },
)
