"""Proof tests, substitute measures and test mode of emergency buttons."""

import pytest
from button_bench import Room
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from cloud import tables
from cloud.ports import IntentRefusedError
from cloud.rules.calls import TEST_CLEARED_WITHIN_S
from fleet.incident import CallState

DAY_S = 86_400.0
HOUR_S = 3_600.0


@pytest.fixture
def room():
    room = Room()
    room.reading()
    room.take()
    return room


@pytest.fixture
def stored(tmp_path):
    room = Room(tmp_path)
    room.reading()
    yield room
    room.database.close()


# --- proof tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "fields", "proves"),
    [
        ("pressed", {}, True),
        ("self_test_result", {"passed": True, "failure": "none"}, True),
        ("self_test_result", {"passed": False, "failure": "cord"}, False),
        ("mains_lost", {}, False),
    ],
    ids=["press", "self-test", "failed self-test", "another event"],
)
def test_a_button_that_nobody_saw_work_for_seven_days_is_an_alarm_until_it_does(room, type_, fields, proves):
    room.pass_time(6.99 * DAY_S)
    assert not room.holds("test_overdue")
    room.pass_time(0.02 * DAY_S)
    assert room.holds("test_overdue")
    assert ("test_overdue", "activate") in room.alarms()
    room.event(type_, **fields)
    assert room.holds("test_overdue") is not proves
    if proves:
        room.pass_time(6.99 * DAY_S)
        assert not room.holds("test_overdue")
        room.pass_time(0.02 * DAY_S)
        assert room.holds("test_overdue"), "and the next one is due seven days later"


def test_a_test_is_overdue_also_in_a_silent_room_and_after_a_restart(room):
    room.pass_time(3 * DAY_S)
    room.restart()
    room.pass_time(4.1 * DAY_S, alive=False)
    assert room.holds("silent")
    assert room.holds("test_overdue")


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_jumps_neither_proves_a_button_nor_keeps_it_from_being_overdue(room, years):
    room.event("pressed")
    room.clock.jump(seconds=years * 365 * DAY_S)
    room.rules.clock_set(room.lane, room.now)
    room.fire()
    if years > 0:
        assert room.holds("test_overdue")
    else:
        room.pass_time(7.1 * DAY_S)
        assert room.holds("test_overdue")


def test_a_room_whose_own_clock_is_wrong_is_not_thereby_tested(room):
    room.event("self_test_result", at=room.now + 300_000, passed=True, failure="none")
    room.pass_time(7.01 * DAY_S)
    assert room.holds("test_overdue")


# --- substitute measures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [{"button_link_ok": False}, {"cord_in_place": False}, {"button_battery_percent": 3}], ids=str
)
def test_a_fault_of_two_hours_demands_a_measure_until_one_is_recorded_and_again_when_it_ends(room, fault):
    def stay(seconds):
        for _ in range(round(seconds / 60)):
            room.clock.advance(seconds=60)
            room.lane.last_heard_at = room.lane.data_at = room.now
            room.reading(**fault)
            room.fire()

    room.reading(**fault)
    stay(1.95 * HOUR_S)
    assert not room.holds("substitute_due")
    stay(0.1 * HOUR_S)
    assert room.holds("substitute_due")
    room.take()
    answer = room.intent("record_substitute", until_at=room.now + 3_600_000)
    assert answer["until_at"] == room.now + 3_600_000
    assert ("substitute_due", "return") in room.alarms()
    stay(0.9 * HOUR_S)
    room.restart()
    assert not room.holds("substitute_due")
    stay(0.2 * HOUR_S)
    assert room.holds("substitute_due"), "the measure has ended and the fault has not"
    room.reading()
    room.fire()
    assert not room.holds("substitute_due"), "repaired"
    assert room.lane.desk.button.faulty_since == 0


def test_silence_demands_a_measure_too(room):
    room.pass_time(50, alive=False)
    assert room.holds("silent")
    room.pass_time(2 * HOUR_S, alive=False)
    assert room.holds("substitute_due")


@pytest.mark.parametrize("hours", [0, -1, 24 * 7 + 1])
def test_a_measure_that_is_over_or_without_end_is_refused(room, hours):
    room.reading(button_link_ok=False)
    with pytest.raises(IntentRefusedError):
        room.intent("record_substitute", until_at=room.now + round(hours * 3_600_000))


def test_a_measure_for_a_room_that_can_call_is_refused(room):
    with pytest.raises(IntentRefusedError, match="no substitute measure is needed"):
        room.intent("record_substitute", until_at=room.now + 3_600_000)


# --- supervision in 60 s ------------------------------------------------------------------------------------------


def test_a_silent_or_disconnected_button_is_announced_within_60_seconds():
    from cloud.dispatch.floods import SHORT_S  # how long a notice may wait to be grouped

    room = Room()
    room.clock.advance(seconds=600)
    room.reading()
    room.take()
    began = room.now
    while not room.holds("silent"):
        assert room.now - began <= 60_000
        room.clock.advance(seconds=0.5)
        room.fire()
    silent_s = (room.now - began) / 1000
    assert silent_s + SHORT_S <= 60.0, (silent_s, SHORT_S)
    other = Room()
    other.reading(button_link_ok=False)
    (change,) = [one for one in other.take().alarms if one.definition.key == "button_disconnected"]
    assert change.at == other.now, "the hardware reports a broken wire at once, and it counts at once"


# --- test mode ----------------------------------------------------------------------------------------------------


def test_a_test_press_walks_the_whole_way_and_pages_nobody(stored):
    stored.intent("begin_button_test", seconds=120)
    stored.pass_time(20)
    call_id = stored.event("pressed")
    assert [(row.id, row.state, row.purpose) for row in stored.rows(tables.call)] == [(call_id, "calling", "test")]
    stored.pass_time(10)
    stored.event("cleared_at_origin")
    stored.pass_time(600)
    assert stored.pages() == []
    assert [row.state for row in stored.rows(tables.call)] == ["cleared"]


@pytest.mark.parametrize("how", ["second press", "not cleared", "after the window", "waited on the device"])
def test_a_real_press_in_test_mode_pages(stored, how):
    began = stored.now
    stored.intent("begin_button_test", seconds=60)
    if how == "after the window":
        stored.pass_time(61)
    at = began - 60_000 if how == "waited on the device" else None
    stored.event("pressed", at=at)
    paged_at_once = how in {"after the window", "waited on the device"}
    assert bool(stored.pages()) is paged_at_once
    if how == "second press":
        stored.pass_time(3)
        stored.event("pressed")
        assert len(stored.pages()) == 1
    elif how == "not cleared":
        stored.pass_time(TEST_CLEARED_WITHIN_S - 1)
        assert stored.pages() == []
        stored.pass_time(2)
        assert len(stored.pages()) == 1
    (row,) = stored.rows(tables.call)
    assert row.purpose == "help"
    stored.pass_time(61)
    assert len(stored.pages()) >= 2, "and its ladder goes on"


def test_there_is_one_test_press_only(stored):
    stored.intent("begin_button_test", seconds=120)
    stored.event("pressed")
    stored.event("cleared_at_origin")
    stored.pass_time(5)
    stored.event("pressed")
    assert len(stored.pages()) == 1


def test_test_mode_is_refused_while_somebody_calls(stored):
    stored.event("pressed")
    with pytest.raises(IntentRefusedError, match="open call"):
        stored.intent("begin_button_test", seconds=60)


def test_two_people_who_accept_within_one_commit_with_a_press_between_them_both_count(stored):
    """All at one business ms: what is known by its time alone would be taken for a repeat."""
    call_id = stored.event("pressed")
    for actor in ("p1", "p2"):
        stored.intent("acknowledge_call", actor, call_id=call_id)
        assert [row.state for row in stored.rows(tables.call)] == ["acknowledged"]
        waiting = [row for row in stored.pages() if row.urgent == 1 and row.given_up_at is None]
        assert waiting == [], "a page on its way although somebody took over"
        stored.event("pressed")
    told = [row for row in stored.pages() if row.urgent == 2]
    assert len(told) == 2, "each of them is told to those who were paged"
    accepted = [row.actor for row in stored.rows(tables.call_transition) if row.step == "acknowledge"]
    assert accepted == ["p1", "p2"]


# --- the lock in the database -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    ["UPDATE call SET state = 'cleared'", "DELETE FROM call", "UPDATE call SET state = 'cleared', id = 'x'"],
)
def test_sqlite_refuses_to_clear_a_call_without_its_room(stored, statement):
    stored.event("pressed")
    with pytest.raises(IntegrityError):
        stored.database.write_here(lambda tx: tx.execute(text(statement)))
    assert [row.state for row in stored.rows(tables.call)] == ["calling"]
    stored.event("cleared_at_origin")
    assert [row.state for row in stored.rows(tables.call)] == ["cleared"]


# --- the synthetic room -------------------------------------------------------------------------------------------


def test_the_synthetic_room_has_its_call_and_nothing_else(tmp_path):
    from cloud.synthetic import PROBE_CHANNEL, ROOM

    room = Room(tmp_path, ROOM)
    call_id = room.event("pressed")
    room.pass_time(8 * DAY_S, alive=False)
    assert room.rules.next_due(room.lane, room.listening_since) is None
    assert [change.call_id for change in room.take().calls] == [call_id], "no ladder"
    assert {row.channel for row in room.rows(tables.outbox)} == {PROBE_CHANNEL}
    assert room.rows(tables.alarm) == []
    assert room.rows(tables.work_order) == []
    assert room.lane.desk.call.state is CallState.CALLING
    room.event("cleared_at_origin")
    assert [row.state for row in room.rows(tables.call)] == ["cleared"]
    room.database.close()
