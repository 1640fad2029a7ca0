"""What users of alert managers suffer from: each of these bugs has its test here."""

import pytest
from rules_cases import Bench, Broken, Mended, Pressed, definition

from cloud.dispatch.alarms import is_news, is_shown_again
from cloud.ports import IntentRefusedError
from cloud.rules.conditions import NO_READINGS, SILENT
from cloud.rules.hiding import WINDOW_S_MAX
from fleet.incident import AlarmState, AlarmView
from fleet.kind import NOT_HEARD, Flag, Threshold, When
from tests.device_messages import NOW_MS

TABLE = (
    definition("hot", Threshold("celsius", above=80.0), realarm_s=1800.0),
    definition("open", Flag("open"), suppressed_by=("hot", *NOT_HEARD)),
    definition("broken", When(lambda state: state.broken), latching=True),
    definition("low", Threshold("volts", below=3.0), on_delay_s=120.0),
)


@pytest.fixture
def bench():
    return Bench(TABLE)


def told(bench):
    """Keys of what people are told of, now."""
    decided = bench.take()
    found = [change.definition.key for change in decided.alarms if is_news(change)]
    return [*found, *(change.definition.key for change in decided.views if is_shown_again(change))]


def view(bench, key):
    return bench.lane.desk.alarms[key].view


def alarm_id(bench, key):
    return bench.lane.desk.alarms[key].alarm_id


# --- child and parent ---------------------------------------------------------------------------------------------


def test_a_child_alarm_re_appears_after_its_parent_cleared_although_nothing_new_was_reported(bench):
    """Report-on-change: the child's condition was said once, while its parent was true, and never again."""
    bench.reading(celsius=90.0)
    assert told(bench) == ["hot"]
    bench.clock.advance(seconds=1)
    bench.reading(celsius=90.0, open=True)
    assert told(bench) == []
    assert view(bench, "open") is AlarmView.SUPPRESSED_BY_DESIGN
    bench.clock.advance(seconds=1)
    bench.reading(celsius=20.0, open=True)
    assert told(bench) == ["open"]
    assert view(bench, "open") is AlarmView.SHOWN


def test_a_child_of_silence_re_appears_with_the_first_word_of_the_device_without_any_reading(bench):
    bench.reading(open=True)
    assert told(bench) == ["open"]
    bench.wait(100, hearing=False)
    assert told(bench) == [SILENT]
    assert view(bench, "open") is AlarmView.SUPPRESSED_BY_DESIGN
    bench.heard()
    assert told(bench) == ["open"]


def test_a_child_that_is_over_when_its_parent_clears_is_told_to_nobody_and_asks_nobody(bench):
    bench.reading(celsius=90.0, open=True)
    assert told(bench) == ["hot"]
    bench.clock.advance(seconds=1)
    bench.reading(celsius=90.0, open=False)
    assert bench.lane.desk.alarms["open"].state is AlarmState.NORMAL
    bench.clock.advance(seconds=1)
    bench.reading(celsius=20.0)
    assert told(bench) == []


def test_a_child_that_somebody_has_seen_is_shown_again_but_not_told_again(bench):
    bench.reading(open=True)
    bench.intent("acknowledge_alarm", alarm_id=alarm_id(bench, "open"))
    bench.clock.advance(seconds=1)
    bench.reading(celsius=90.0, open=True)
    bench.clock.advance(seconds=1)
    bench.take()
    bench.reading(open=True)
    assert told(bench) == []
    assert view(bench, "open") is AlarmView.SHOWN


def test_a_parent_out_of_service_hides_nothing(bench):
    bench.reading(celsius=90.0, open=True)
    assert told(bench) == ["hot"]
    bench.intent("out_of_service", key="hot", reason="sensor broken")
    assert told(bench) == ["open"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ((definition("a", Flag("open"), suppressed_by=("nobody",)),), "does not have"),
        ((definition("a", Flag("open"), suppressed_by=("a",)),), "hide itself"),
        (
            (
                definition("a", Flag("open"), suppressed_by=("b",)),
                definition("b", Threshold("celsius", above=1.0), suppressed_by=("a",)),
            ),
            "hide itself",
        ),
    ],
)
def test_a_table_whose_alarms_hide_each_other_is_refused_at_the_start(table, words):
    with pytest.raises(ValueError, match=words):
        Bench(table)


# --- link, data, sensor -------------------------------------------------------------------------------------------


def test_a_device_is_not_fine_while_only_its_keep_alive_lives(bench):
    bench.reading(open=True)
    bench.take()
    for _ in range(90):
        bench.clock.advance(seconds=1)
        bench.heard()
        bench.fire()
    assert told(bench) == [NO_READINGS]
    assert view(bench, "open") is AlarmView.SUPPRESSED_BY_DESIGN, "what it said last cannot be trusted any more"


# --- time ---------------------------------------------------------------------------------------------------------


def test_an_alarm_bears_the_readings_time_and_keeps_when_it_was_received(bench):
    measured = NOW_MS - 45_000
    bench.reading(at=measured, celsius=90.0)
    (change,) = bench.take().alarms
    assert (change.at, change.received_at) == (measured, NOW_MS)


def test_an_on_delay_counts_from_the_readings_time_not_from_the_servers(bench):
    bench.reading(at=NOW_MS - 100_000, volts=2.0)
    assert told(bench) == []
    bench.wait(21)
    assert told(bench) == ["low"]


def test_no_false_alarm_in_a_gap_of_buffered_data(bench):
    """An hour offline; then the buffer comes in order. What it shows was over before it arrived."""
    bench.reading(volts=5.0)
    bench.wait(3600, hearing=False)
    assert told(bench) == [SILENT]
    began = bench.now - 3600_000
    for minute in range(60):
        bench.reading(at=began + minute * 60_000, volts=2.0 if 10 < minute < 50 else 5.0)
        bench.clock.advance(seconds=0.1)
        bench.fire()
    bench.reading(volts=5.0)
    bench.wait(300)
    assert told(bench) == []


# --- restart ------------------------------------------------------------------------------------------------------


def test_a_restart_repeats_nothing_and_forgets_nothing(bench):
    bench.reading(celsius=90.0, open=True)
    bench.event(Broken)
    first = alarm_id(bench, "broken")
    bench.intent("shelve_alarm", alarm_id=first, for_s=600, reason="known")
    bench.intent("out_of_service", key="low", reason="no probe")
    assert told(bench) == ["hot", "broken"]
    for _ in range(3):
        bench.restart(seconds=5)
        bench.lane.last_heard_at = bench.now
        bench.fire()
        assert told(bench) == []
    assert [view(bench, key).value for key in ("hot", "open", "broken")] == [
        "shown", "suppressed_by_design", "shelved",
    ]  # fmt: skip
    bench.wait(600)
    assert told(bench) == ["broken"], "the shelf ends at its time, whatever process sees it"
    assert alarm_id(bench, "broken") == first
    with pytest.raises(IntentRefusedError):
        bench.intent("out_of_service", key="low", reason="again")


def test_a_re_alarm_is_due_at_the_same_time_after_a_restart(bench):
    bench.reading(celsius=90.0)
    bench.wait(1000)
    told(bench)
    bench.restart()
    bench.wait(799)
    assert told(bench) == []
    bench.wait(2)
    assert told(bench) == ["hot"]


def test_no_page_after_the_acknowledgement_until_the_re_alarm_time_has_passed(bench):
    bench.reading(celsius=90.0)
    bench.intent("acknowledge_alarm", alarm_id=alarm_id(bench, "hot"))
    told(bench)
    bench.wait(1799)
    assert told(bench) == []
    bench.wait(2)
    assert told(bench) == ["hot"]
    assert bench.lane.desk.alarms["hot"].state is AlarmState.UNACKNOWLEDGED


# --- latches ------------------------------------------------------------------------------------------------------


def test_a_latched_alarm_stays_until_somebody_inspected_it_and_tells_again_if_it_comes_back(bench):
    bench.event(Broken)
    assert told(bench) == ["broken"]
    bench.clock.advance(seconds=1)
    bench.event(Mended)
    status = bench.lane.desk.alarms["broken"]
    assert status.state is AlarmState.LATCHED_UNACKNOWLEDGED
    bench.intent("acknowledge_alarm", alarm_id=status.alarm_id)
    assert status.state is AlarmState.LATCHED_ACKNOWLEDGED
    bench.clock.advance(seconds=1)
    bench.event(Broken)
    assert told(bench) == ["broken"], "somebody had seen it, and it is back: that is news"
    with pytest.raises(IntentRefusedError, match="once its cause is gone"):
        bench.intent("reset_latch", alarm_id=status.alarm_id, reason="looked")
    bench.clock.advance(seconds=1)
    bench.event(Mended)
    with pytest.raises(IntentRefusedError, match="say why"):
        bench.intent("reset_latch", alarm_id=status.alarm_id, reason=" ")
    assert bench.intent("reset_latch", alarm_id=status.alarm_id, reason="looked") == {"state": "normal"}


def test_a_retired_device_leaves_no_latched_or_hidden_alarm(bench):
    bench.event(Broken)
    bench.intent("shelve_alarm", key="broken", for_s=600, reason="x")
    bench.intent("out_of_service", reason="x")
    bench.take()
    bench.intent("retire")
    assert bench.lane.desk.alarms["broken"].state is AlarmState.NORMAL
    assert bench.lane.desk.out_of_service == []
    assert len([change for change in bench.take().hidings if change.ended_at]) == 2


# --- hiding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"for_s": 4 * 3600 + 1, "reason": "x"}, {"for_s": 59, "reason": "x"}, {"reason": "x"}, {"for_s": 600},
        {"for_s": True, "reason": "x"}, {"for_s": float("nan"), "reason": "x"}, {"for_s": "600", "reason": "x"},
        {"for_s": 600, "reason": "x", "alarm_id": "unknown"},
    ],
)  # fmt: skip
def test_a_shelf_above_its_maximum_or_without_a_reason_is_refused_and_changes_nothing(bench, arguments):
    bench.reading(celsius=90.0)
    bench.take()
    with pytest.raises(IntentRefusedError):
        bench.intent("shelve_alarm", **{"alarm_id": alarm_id(bench, "hot"), **arguments})
    assert not bench.take()
    assert bench.lane.desk.alarms["hot"].shelf is None


def test_a_one_shot_shelf_ends_when_the_alarm_returns(bench):
    bench.reading(celsius=90.0)
    bench.intent("shelve_alarm", key="hot", one_shot=True, reason="being repaired")
    assert view(bench, "hot") is AlarmView.SHELVED
    bench.clock.advance(seconds=1)
    bench.reading(celsius=20.0)
    assert bench.lane.desk.alarms["hot"].shelf is None
    told(bench)
    bench.clock.advance(seconds=1)
    bench.intent("acknowledge_alarm", alarm_id=alarm_id(bench, "hot"))
    bench.clock.advance(seconds=1)
    bench.reading(celsius=90.0)
    assert told(bench) == ["hot"], "the next occurrence is shown"


def test_a_window_begins_and_ends_by_itself_and_is_over_for_good(bench):
    bench.reading(celsius=90.0)
    told(bench)
    begins, ends = bench.now + 600_000, bench.now + 1_200_000
    bench.intent("out_of_service", window_id="w1", from_at=begins, until_at=ends, reason="service")
    assert view(bench, "hot") is AlarmView.SHOWN
    bench.wait(601)
    assert view(bench, "hot") is AlarmView.OUT_OF_SERVICE
    bench.wait(600)
    assert view(bench, "hot") is AlarmView.SHOWN
    assert told(bench) == ["hot"]
    assert bench.lane.desk.out_of_service == []


@pytest.mark.parametrize(
    ("from_s", "until_s"),
    [(0, 0), (100, 50), (-100, -50), (0, WINDOW_S_MAX + 1), (91 * 86_400, 91 * 86_400 + 60), (0, 1e12)],
)
def test_a_window_that_makes_no_sense_is_refused(bench, from_s, until_s):
    times = {"from_at": bench.now + round(from_s * 1000), "until_at": bench.now + round(until_s * 1000)}
    with pytest.raises(IntentRefusedError):
        bench.intent("out_of_service", window_id="w", reason="x", **times)


def test_no_window_and_no_shelf_ever_holds_back_an_emergency_call(bench):
    bench.intent("out_of_service", reason="the whole room is being painted")
    window = {"from_at": bench.now, "until_at": bench.now + 3_600_000}
    bench.intent("out_of_service", window_id="w", reason="x", **window)
    bench.take()
    bench.event(Pressed)
    assert bench.calls() == [("calling", 0)]
    bench.wait(61)
    assert bench.calls() == [("calling", 1)], "its escalation goes on as ever"
