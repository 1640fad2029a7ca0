"""Which press "help is coming" is for."""

import pytest

from devices.nursing_room import messages, rules, state

ROOM = state.initial("room-001")
FIRST, SECOND = "a" * 32, "b" * 32
NOW = 1_800_000_000_000


def pressed(now, press_id, at):
    return state.apply_event(now, messages.Pressed(event_id=press_id, press_id=press_id), at)


def coming(now):
    return rules.call_feedback(now, acknowledged=True)


def test_it_is_for_the_latest_press_of_the_open_call():
    once = pressed(ROOM, FIRST, NOW)
    assert coming(once) == messages.ShowHelpComing(press_id=FIRST)
    twice = pressed(once, SECOND, NOW + 5_000)
    assert coming(twice) == messages.ShowHelpComing(press_id=SECOND)
    assert rules.call_feedback(twice, acknowledged=False) == messages.ShowReceived(press_id=SECOND)
    assert twice.open_press_id == FIRST


def test_a_press_that_was_overtaken_is_not_the_latest():
    later_first = pressed(pressed(ROOM, SECOND, NOW + 5_000), FIRST, NOW)
    assert coming(later_first).press_id == SECOND


def test_who_came_before_the_latest_press_has_not_come_for_it():
    twice = pressed(pressed(ROOM, FIRST, NOW), SECOND, NOW + 5_000)
    came = messages.Attended(event_id="c" * 32, press_id=FIRST)
    assert state.apply_event(twice, came, NOW + 3_000).attended_at is None
    assert state.apply_event(twice, came, NOW + 7_000).attended_at == NOW + 7_000


@pytest.mark.parametrize("set_by_ms", [-10 * 365 * 86_400_000, 10 * 365 * 86_400_000])
def test_a_clock_that_was_set_hides_no_press(set_by_ms):
    assert coming(pressed(pressed(ROOM, FIRST, NOW), SECOND, NOW + set_by_ms)).press_id == SECOND


def test_after_the_call_was_cleared_it_is_for_none():
    cleared = state.apply_event(
        pressed(ROOM, FIRST, NOW), messages.ClearedAtOrigin(event_id="c" * 32, press_id=FIRST), NOW + 9
    )
    assert coming(cleared) == messages.ShowHelpComing(press_id=None)
    assert coming(pressed(cleared, SECOND, NOW + 10)).press_id == SECOND


def test_it_goes_before_other_commands():
    assert messages.ShowHelpComing.urgent
    assert messages.ShowReceived.urgent
    assert not messages.Reboot.urgent
