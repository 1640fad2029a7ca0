"""Alarms from state and time: deadbands, delays in the readings' own time, silence, flapping."""

import pytest
from rules_cases import ALARMS, SILENT_AFTER_S, Bench, Broken, Mended, ProbeReading, definition

from cloud.ports import IntentRefusedError
from cloud.rules.conditions import SILENT, compile_conditions
from cloud.rules.links import NEVER_HEARD_AFTER_S
from fleet.kind import Flag, Threshold
from tests.device_messages import NOW_MS


@pytest.fixture
def bench():
    return Bench()


# --- thresholds ---------------------------------------------------------------------------------------------------


def test_above_with_a_deadband(bench):
    for celsius, expected in [
        (80.0, []), (80.1, [("hot", "activate")]), (75.0, []), (70.1, []), (70.0, [("hot", "return")]), (79.9, []),
        (90.0, [("hot", "activate")]), (20.0, [("hot", "return")]),
    ]:  # fmt: skip
        bench.clock.advance(seconds=1)
        bench.reading(celsius=celsius)
        assert bench.alarms() == expected, celsius


def test_below_with_a_deadband(bench):
    for celsius, expected in [
        (-10.0, []), (-10.1, [("cold", "activate")]), (-5.1, []), (-5.0, [("cold", "return")]), (-9.0, []),
    ]:  # fmt: skip
        bench.clock.advance(seconds=1)
        bench.reading(celsius=celsius)
        assert bench.alarms() == expected, celsius


def test_a_value_that_is_missing_is_no_alarm_and_ends_one(bench):
    bench.reading(volts=2.0)
    assert bench.alarms() == [("low", "activate")]
    bench.reading(volts=None)
    assert bench.alarms() == [("low", "return")]
    bench.reading()
    assert bench.alarms() == []


def test_a_condition_over_the_state_moves_with_events(bench):
    bench.event(Broken)
    assert bench.alarms() == [("broken", "activate")]
    bench.event(Broken)
    assert bench.alarms() == []
    bench.event(Mended)
    assert bench.alarms() == [("broken", "return")]


@pytest.mark.parametrize(
    "condition",
    [Threshold("celsius"), Threshold("celsius", above=1, below=2), Threshold("nothing", above=1), Flag("no")],
)
def test_a_wrong_table_is_refused_at_the_start(condition):
    with pytest.raises(ValueError, match=r"field|above"):
        compile_conditions([condition], ProbeReading)


# --- delays -------------------------------------------------------------------------------------------------------


def test_an_on_delay_must_be_held_for_its_whole_time(bench):
    bench.reading(celsius=60.0)
    bench.wait(599)
    assert bench.alarms() == []
    bench.wait(1)
    assert bench.alarms() == [("warm_for_long", "activate")]


def test_a_condition_that_goes_before_its_delay_tells_nobody(bench):
    bench.reading(celsius=60.0)
    bench.wait(599)
    bench.reading(celsius=20.0)
    bench.wait(5)
    bench.reading(celsius=60.0)
    bench.wait(599)
    assert bench.alarms() == []
    bench.wait(1)
    assert bench.alarms() == [("warm_for_long", "activate")]


def test_the_delay_counts_from_the_readings_own_time(bench):
    bench.clock.advance(seconds=30)
    bench.reading(at=bench.now - 30_000, celsius=60.0)  # it was half a minute on its way
    bench.wait(569)
    assert bench.alarms() == []
    bench.wait(1)
    assert bench.alarms() == [("warm_for_long", "activate")]


def test_an_off_delay_holds_the_alarm(bench):
    bench.reading(open=True)
    assert bench.alarms() == [("open", "activate")]
    bench.reading(open=False)
    bench.wait(119)
    assert bench.alarms() == []
    bench.wait(1)
    assert bench.alarms() == [("open", "return")]


def test_a_pending_delay_survives_a_restart(bench):
    bench.reading(celsius=60.0)
    bench.wait(300)
    bench.restart(seconds=100)
    bench.wait(199)
    assert bench.alarms() == []
    bench.wait(1)
    assert bench.alarms() == [("warm_for_long", "activate")]


# --- data that waited ---------------------------------------------------------------------------------------------


def test_a_device_whose_clock_was_set_back_is_still_judged(bench):
    bench.reading()
    bench.reading(at=bench.now - 10 * 86_400_000, celsius=90.0)
    bench.wait(60)
    assert ("hot", "activate") in bench.alarms()
    assert bench.lane.state.reading.celsius == 90.0


@pytest.mark.parametrize("fields", [{"celsius": 90.0}, {"celsius": 60.0}, {"open": True}, {"volts": 1.0}])
def test_a_backlog_that_ends_well_raises_nothing_however_it_is_cut_into_batches(bench, fields):
    bench.reading()
    bench.clock.advance(seconds=7200)
    bench.take()
    for minute in range(60):  # an hour that is long over, arriving in ten seconds
        bench.reading(at=NOW_MS + minute * 60_000, **fields)
        bench.wait(1 / 6)
    bench.reading()
    bench.wait(3600)
    assert bench.alarms() == []


def test_what_still_holds_at_the_end_of_a_backlog_is_raised(bench):
    bench.reading()
    bench.clock.advance(seconds=7200)
    for minute in range(60):
        bench.reading(at=NOW_MS + minute * 60_000, celsius=90.0)
    bench.reading(celsius=90.0)
    bench.wait(60)
    assert ("hot", "activate") in bench.alarms()


# --- silence ------------------------------------------------------------------------------------------------------


def test_a_device_is_silent_after_its_limit_and_back_at_its_first_word(bench):
    bench.reading()
    bench.wait(SILENT_AFTER_S - 1, hearing=False)
    assert bench.alarms() == []
    bench.wait(1, hearing=False)
    assert bench.alarms() == [(SILENT, "activate")]
    bench.wait(1000, hearing=False)
    assert bench.alarms() == []
    bench.heard()
    assert bench.alarms() == [(SILENT, "return")]


@pytest.mark.parametrize("sign", ["reading", "event", "heard", "old reading"])
def test_any_sign_of_life_ends_the_silence(bench, sign):
    bench.reading()
    bench.wait(SILENT_AFTER_S, hearing=False)
    bench.take()
    if sign == "reading":
        bench.reading()
    elif sign == "event":
        bench.event(Mended)
    else:
        if sign == "old reading":
            bench.reading(at=NOW_MS - 5)
        bench.heard()
    assert (SILENT, "return") in bench.alarms()


def test_nobody_is_silent_while_we_do_not_listen(bench):
    bench.reading()
    bench.listening_since = None
    bench.wait(1000, hearing=False)
    assert bench.alarms() == []
    bench.listening_since = bench.now
    bench.wait(SILENT_AFTER_S - 1, hearing=False)
    assert bench.alarms() == [], "it had no time to be heard yet"
    bench.wait(1, hearing=False)
    assert bench.alarms() == [(SILENT, "activate")]


def test_after_our_own_outage_every_device_has_its_whole_time(bench):
    bench.reading()
    bench.restart(seconds=5000)
    bench.wait(SILENT_AFTER_S - 1, hearing=False)
    assert bench.alarms() == []
    bench.wait(1, hearing=False)
    assert bench.alarms() == [(SILENT, "activate")]


def test_a_device_that_was_enrolled_and_never_spoke_is_announced(bench):
    bench.wait(NEVER_HEARD_AFTER_S - 1, hearing=False)
    assert bench.alarms() == []
    bench.wait(1, hearing=False)
    assert bench.alarms() == [(SILENT, "activate")]


def test_the_last_reading_of_a_silent_device_decides_nothing(bench):
    bench.reading(celsius=60.0)
    bench.wait(1000, hearing=False)
    assert bench.alarms() == [(SILENT, "activate")]
    bench.heard()
    bench.reading(celsius=20.0)
    assert bench.alarms() == [(SILENT, "return")]


def test_a_retired_device_is_never_silent(bench):
    bench.reading()
    bench.intent("retire")
    bench.wait(1000, hearing=False)
    assert bench.alarms() == []


def test_retiring_a_device_ends_its_alarms_and_its_work(bench):
    bench.reading(celsius=120.0)
    bench.event(Broken)
    raised = bench.take()
    bench.intent("retire")
    ended = bench.take()
    assert {change.alarm_id for change in ended.alarms} == {change.alarm_id for change in raised.alarms}
    assert {change.event.value for change in ended.alarms} == {"return"}
    assert [(change.cause, change.wanted) for change in ended.needs] == [("cool", False), ("mend", False)]
    bench.intent("acknowledge_alarm", alarm_id=raised.alarms[0].alarm_id)
    assert [change.after.value for change in bench.take().alarms] == ["normal"]


# --- flapping, people ---------------------------------------------------------------------------------------------


def test_flapping_at_one_hertz_is_one_alarm_until_somebody_has_seen_it(bench):
    changes = []
    for second in range(60):
        bench.clock.advance(seconds=1)
        bench.reading(celsius=90.0 if second % 2 == 0 else 20.0)
        changes += bench.take().alarms
    assert len({change.alarm_id for change in changes}) == 1
    assert {change.before.value for change in changes} <= {"normal", "unacknowledged", "returned_unacknowledged"}
    assert sum(change.before.value == "normal" for change in changes) == 1


def test_an_acknowledged_alarm_returns_to_normal_and_the_next_is_another(bench):
    bench.reading(celsius=90.0)
    (first,) = bench.take().alarms
    assert bench.intent("acknowledge_alarm", alarm_id=first.alarm_id, note="seen") == {"state": "acknowledged"}
    (seen,) = bench.take().alarms
    assert (seen.actor, seen.note, seen.alarm_id) == ("p1", "seen", first.alarm_id)
    with pytest.raises(IntentRefusedError):
        bench.intent("acknowledge_alarm", alarm_id=first.alarm_id)
    bench.clock.advance(seconds=1)
    bench.reading()
    (gone,) = bench.take().alarms
    assert (gone.after.value, gone.alarm_id) == ("normal", first.alarm_id)
    with pytest.raises(IntentRefusedError):
        bench.intent("acknowledge_alarm", alarm_id=first.alarm_id)
    bench.clock.advance(seconds=1)
    bench.reading(celsius=90.0)
    (second,) = bench.take().alarms
    assert second.alarm_id != first.alarm_id


@pytest.mark.parametrize("alarm_id", ["", "unknown", None])
def test_an_alarm_that_does_not_exist_is_refused(bench, alarm_id):
    bench.reading(celsius=60.0)  # pending: it has no id yet
    with pytest.raises(IntentRefusedError):
        bench.intent("acknowledge_alarm", alarm_id=alarm_id)
    assert not bench.take()


def test_the_same_readings_again_give_the_same_alarms_with_the_same_ids():
    def played():
        bench = Bench()
        for second, celsius in enumerate([20.0, 90.0, 60.0, 95.0, -20.0, 20.0]):
            bench.clock.advance(seconds=1)
            bench.reading(at=NOW_MS + second * 1000, celsius=celsius)
        return bench.take().alarms

    assert played() == played()
    assert len(played()) == 6


# --- another release ----------------------------------------------------------------------------------------------


def test_a_desk_is_read_by_name_when_the_table_of_the_next_release_has_another_order():
    old = Bench()
    old.reading(celsius=90.0)
    assert [key for key, _ in old.alarms()] == ["hot"]
    new = Bench(alarms=(definition("first", Threshold("celsius", above=85.0)), *reversed(ALARMS)))
    new.lane.desk = new.rules.decode_desk("probe", old.rules.encode_desk(old.lane.desk))
    new.clock.advance(seconds=1)
    new.reading(celsius=90.0)
    assert new.alarms() == [("first", "activate")], "what was raised stays raised; what is new is seen"
    new.clock.advance(seconds=1)
    new.reading(celsius=20.0)
    assert sorted(new.alarms()) == [("first", "return"), ("hot", "return")]
