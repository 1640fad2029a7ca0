"""Emergency calls and work: the ladder repeats until a person answers, and only the origin ends a call."""

import inspect
import re

import pytest
from rules_cases import Attended, Bench, Broken, Cleared, Mended, Pressed

from cloud.ports import IntentRefusedError
from cloud.rules import stage
from cloud.rules.calls import ESCALATION_STEPS_S
from fleet.incident import CALL, CallEvent, CallState
from tests.device_messages import NOW_MS, hex_id

YEARS_S = 10 * 365 * 86_400.0


@pytest.fixture
def bench():
    bench = Bench()
    bench.reading()
    return bench


def escalations(bench, seconds):
    """(second, step) of every step of the ladder while `seconds` pass."""
    began, found = bench.now, []
    for _ in range(round(seconds)):
        bench.wait(1)
        found += [((bench.now - began) // 1000, change.escalation) for change in bench.take().calls]
    return found


# --- the call -----------------------------------------------------------------------------------------------------


def test_a_press_opens_a_call_named_after_it(bench):
    event_id = bench.event(Pressed)
    (change,) = bench.take().calls
    assert (change.call_id, change.event_id, change.escalation) == (event_id, event_id, 0)
    assert (change.before, change.after) == (CallState.IDLE, CallState.CALLING)
    assert bench.lane.desk.call.pressed_at == bench.now


def test_the_ladder_goes_on_until_a_person_answers_and_then_repeats_its_last_step(bench):
    bench.event(Pressed)
    bench.take()
    first, second, third = (round(step) for step in ESCALATION_STEPS_S)
    expected = [(first, 1), (second, 2), (third, 3)]
    expected += [(third + number * first, 3 + number) for number in range(1, 8)]
    assert escalations(bench, third + 7 * first) == expected


def test_nobody_is_paged_after_the_acknowledgement(bench):
    call_id = bench.event(Pressed)
    bench.wait(ESCALATION_STEPS_S[0])
    bench.take()
    assert bench.intent("acknowledge_call", call_id=call_id) == {"state": "acknowledged"}
    (change,) = bench.take().calls
    assert (change.actor, change.escalation, change.step) == ("p1", None, None)
    assert escalations(bench, 3600) == []
    with pytest.raises(IntentRefusedError, match="already acknowledged"):
        bench.intent("acknowledge_call", call_id=call_id)


@pytest.mark.parametrize("downtime_s", [0, 30, 59, 60, 3600])
def test_after_a_restart_the_ladder_goes_on_where_it_was(bench, downtime_s):
    bench.event(Pressed)
    bench.wait(ESCALATION_STEPS_S[0])
    assert [step for _, step in bench.calls()] == [0, 1]
    bench.wait(20)
    bench.restart(seconds=downtime_s)
    left = max(0, 40 - downtime_s)
    found = escalations(bench, 120)
    assert found[0] == (max(1, left), 2), "the next step, once, when it is due or at once"
    assert found[1] == (found[0][0] + 60, 3)
    assert bench.lane.desk.call.state is CallState.CALLING


@pytest.mark.parametrize("seconds", [-YEARS_S, YEARS_S])
def test_a_jump_of_the_clock_takes_at_most_one_step_of_the_wait(bench, seconds):
    bench.event(Pressed)
    bench.wait(20)
    bench.take()
    bench.clock.jump(seconds=seconds)
    bench.listening_since = bench.now
    bench.rules.clock_set(bench.lane, bench.now)
    found = escalations(bench, 61)
    assert [step for _, step in found][:1] == [1]
    assert len(found) <= 2
    assert bench.take().alarms == []


def test_a_further_press_joins_the_call_pages_at_once_and_never_pushes_the_ladder_back(bench):
    call_id = bench.event(Pressed)
    bench.wait(100)
    bench.take()
    second = bench.event(Pressed)
    (change,) = bench.take().calls
    assert (change.call_id, change.event_id, change.escalation) == (call_id, second, 1)
    assert (change.before, change.after) == (CallState.CALLING, CallState.CALLING)
    assert escalations(bench, 81) == [(20, 2), (80, 3)]


def test_somebody_who_presses_every_second_still_reaches_everybody(bench):
    for _ in range(200):
        bench.event(Pressed)
        bench.wait(1)
    assert max(change.escalation for change in bench.take().calls) == 3


@pytest.mark.parametrize("of", [Attended, None])
def test_a_press_after_somebody_answered_or_came_calls_again(bench, of):
    call_id = bench.event(Pressed)
    bench.intent("acknowledge_call", call_id=call_id)
    if of is not None:
        bench.event(of)
    bench.take()
    bench.event(Pressed)
    assert bench.calls() == [("calling", 0)]
    assert escalations(bench, 60) == [(60, 1)]
    bench.intent("acknowledge_call", call_id=call_id)
    assert bench.lane.desk.call.state is CallState.ACKNOWLEDGED


def test_attended_ends_the_paging_and_only_the_clear_key_ends_the_call(bench):
    bench.event(Pressed)
    bench.event(Attended)
    bench.event(Attended)
    assert [change.after.value for change in bench.take().calls] == ["calling", "attended"]
    assert escalations(bench, 600) == []
    bench.event(Cleared)
    assert bench.calls() == [("cleared", None)]
    assert bench.lane.desk.call is None
    bench.event(Cleared)
    assert bench.calls() == []


def test_the_next_press_after_a_clear_is_another_call(bench):
    first = bench.event(Pressed)
    bench.event(Cleared)
    second = bench.event(Pressed)
    assert bench.lane.desk.call.call_id == second != first


@pytest.mark.parametrize("of", [Attended, Cleared])
def test_a_step_without_a_press_is_no_call(bench, of):
    bench.event(of)
    assert bench.calls() == []
    assert bench.lane.desk.call is None


def test_a_press_that_waited_on_the_device_pages_from_now_on(bench):
    bench.event(Pressed, at=NOW_MS - 3_600_000)
    (change,) = bench.take().calls
    assert (change.at, change.received_at) == (NOW_MS - 3_600_000, NOW_MS)
    assert escalations(bench, 60) == [(60, 1)]


def test_silence_of_the_room_does_not_stop_the_ladder(bench):
    bench.event(Pressed)
    bench.take()
    bench.wait(125, hearing=False)
    assert [step for _, step in bench.calls()] == [1, 2]


# --- who may end it -----------------------------------------------------------------------------------------------


def act_names():
    """Every name of an act that the stage knows, read from its code."""
    names = set(re.findall(r'"([a-z_]+)"', inspect.getsource(stage.Rules.on_intent))) - {"retired", "revoked"}
    assert {"acknowledge_call", "acknowledge_alarm", "retire"} <= names
    return sorted(names)


@pytest.mark.parametrize("name", [*act_names(), "clear", "clear_call", "clear_at_origin", "cleared", "close_call", ""])
@pytest.mark.parametrize("state", [CallState.CALLING, CallState.ACKNOWLEDGED, CallState.ATTENDED])
def test_no_act_of_a_person_clears_a_call(bench, name, state):
    call_id = bench.event(Pressed)
    if state is not CallState.CALLING:
        bench.intent("acknowledge_call", call_id=call_id)
    if state is CallState.ATTENDED:
        bench.event(Attended)
    for arguments in ({}, {"call_id": call_id}, {"call_id": call_id, "state": "cleared", "event": "clear_at_origin"}):
        try:
            bench.intent(name, **arguments)
        except IntentRefusedError:
            continue
    assert bench.lane.desk.call is not None
    assert all(change.after is not CallState.CLEARED for change in bench.take().calls)


def test_no_timer_and_no_sign_of_life_clears_a_call(bench):
    bench.event(Pressed)
    for _ in range(50):
        bench.wait(300, hearing=False)
        bench.reading()
        bench.event(Broken)
        bench.event(Mended)
        bench.restart(seconds=300)
    assert all(change.after is not CallState.CLEARED for change in bench.take().calls)
    assert bench.lane.desk.call.state is CallState.CALLING


def test_in_the_table_only_the_origin_leads_to_cleared():
    assert {event for (_, event), to in CALL.table.items() if to is CallState.CLEARED} == {CallEvent.CLEAR_AT_ORIGIN}


def test_a_device_with_an_open_call_cannot_be_retired(bench):
    bench.event(Pressed)
    with pytest.raises(IntentRefusedError, match="origin"):
        bench.intent("retire")
    assert not bench.lane.retired
    bench.event(Cleared)
    assert bench.intent("retire") == {"retired": True}


@pytest.mark.parametrize("call_id", [None, "", hex_id("another")])
def test_a_call_that_is_not_open_is_refused(bench, call_id):
    with pytest.raises(IntentRefusedError):
        bench.intent("acknowledge_call", call_id=call_id)
    bench.event(Pressed)
    bench.take()
    with pytest.raises(IntentRefusedError):
        bench.intent("acknowledge_call", call_id=call_id)
    assert not bench.take()


# --- work ---------------------------------------------------------------------------------------------------------


def needs(bench):
    return [(change.cause, change.wanted) for change in bench.take().needs]


def test_work_is_wanted_once_per_cause_and_again_after_it_was_gone(bench):
    bench.reading(celsius=120.0)
    assert needs(bench) == [("cool", True)]
    for _ in range(5):
        bench.clock.advance(seconds=1)
        bench.reading(celsius=120.0)
        bench.wait(1)
    bench.restart()
    bench.reading(celsius=121.0)
    assert needs(bench) == []
    bench.event(Broken)
    assert needs(bench) == [("mend", True)]
    bench.clock.advance(seconds=1)
    bench.reading(celsius=20.0)
    assert needs(bench) == [("cool", False)]
    bench.clock.advance(seconds=1)
    bench.reading(celsius=120.0)
    assert needs(bench) == [("cool", True)]
    bench.event(Mended)
    assert needs(bench) == [("mend", False)]


# --- presses out of turn ------------------------------------------------------------------------------------------


def test_a_press_that_overtook_the_end_of_an_earlier_call_asks_again_in_its_turn(bench):
    bench.event(Pressed)
    second = bench.event(Pressed, early=True)  # its number is not the next: the earlier call's end is still missing
    bench.event(Cleared)
    assert bench.lane.desk.call is None
    bench.take()
    bench.restart()
    bench.repeat(Pressed, second)
    (again,) = bench.take().calls
    assert (again.step, again.escalation, bench.lane.desk.call.call_id) == ("press", 0, again.call_id)
    assert again.event_id not in {second, ""}, "or the page would count as sent already"
    bench.event(Cleared)
    bench.repeat(Pressed, second)
    assert bench.lane.desk.call is None, "only its first turn counts"


def test_a_press_that_overtook_asks_again_even_if_another_press_has_opened_a_call_by_then(bench):
    bench.event(Pressed)
    second = bench.event(Pressed, early=True)
    bench.event(Cleared)  # and with it goes the page of the second, if that waits still
    third = bench.event(Pressed, early=True)
    bench.take()
    bench.repeat(Pressed, second)
    (again,) = bench.take().calls
    assert (again.step, again.call_id, again.after) == ("press", bench.lane.desk.call.call_id, "calling")
    assert again.event_id not in {second, third}
    bench.repeat(Pressed, third)
    assert bench.take().calls == [], "its page stands"


def test_a_press_that_was_early_and_is_open_changes_nothing_in_its_turn(bench):
    press = bench.event(Pressed, early=True)
    bench.take()
    bench.repeat(Pressed, press)
    assert bench.take().calls == []
    assert bench.lane.desk.early == {}


def test_who_came_before_a_press_that_overtook_says_nothing_of_it(bench):
    bench.event(Pressed)
    second = bench.event(Pressed, early=True)
    bench.take()
    bench.event(Attended)  # a lower number: in the room it happened before the second press
    assert bench.take().calls == [], "the second press calls on, and its page stands"
    bench.restart()
    bench.repeat(Pressed, second)
    assert (bench.take().calls, bench.lane.desk.call.state) == ([], "calling")
    bench.event(Attended)
    (came,) = bench.take().calls
    assert (came.step, came.after) == ("attend", "attended")
