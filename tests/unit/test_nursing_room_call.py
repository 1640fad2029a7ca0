"""The room's call is a table; nothing but the clear key ends a call."""

from itertools import product

import pytest

from devices.nursing_room.call import ROOM_CALL, RoomCallEvent, RoomCallState
from devices.nursing_room.messages import RoomReading
from fleet.lifecycle import IllegalTransitionError

ILLEGAL = [pair for pair in product(RoomCallState, RoomCallEvent) if pair not in ROOM_CALL.table]


def test_what_is_illegal_is_exactly_what_needs_an_open_call():
    assert set(ILLEGAL) == {(RoomCallState.IDLE, event) for event in RoomCallEvent if event is not RoomCallEvent.PRESS}


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_every_illegal_transition_is_refused(state, event):
    with pytest.raises(IllegalTransitionError):
        ROOM_CALL.next(state, event)


def test_only_the_clear_key_ends_a_call():
    endings = {event for (_, event), to in ROOM_CALL.table.items() if to is RoomCallState.IDLE}
    assert endings == {RoomCallEvent.CLEAR_KEY}


def test_a_press_is_never_refused_and_always_calls():
    assert {ROOM_CALL.next(state, RoomCallEvent.PRESS) for state in RoomCallState} == {RoomCallState.CALLING}


def test_better_news_is_never_taken_back():
    assert ROOM_CALL.next(RoomCallState.HELP_COMING, RoomCallEvent.SHOW_RECEIVED) is RoomCallState.HELP_COMING
    for light in (RoomCallEvent.SHOW_RECEIVED, RoomCallEvent.SHOW_HELP_COMING):
        assert ROOM_CALL.next(RoomCallState.ATTENDED, light) is RoomCallState.ATTENDED


def test_every_state_is_reachable_and_reported():
    assert ROOM_CALL.reachable() == frozenset(RoomCallState)
    reported = RoomReading.model_fields["call_state"].annotation.__args__
    assert set(reported) == {state.value for state in RoomCallState}
