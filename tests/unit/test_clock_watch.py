"""A clock of ours that is set, or that stands before what is stored: devices get the right time, readings stay."""

import pytest
from ingest_cases import BIKE, DAY_MS, YEAR_MS, arrived, ingest, lanes  # noqa: F401  # fixtures

from cloud.ingest.clock_watch import BEHIND_MS, SPREAD_S, ClockWatch
from cloud.model import DeviceLane
from fleet.clock import ManualClock
from fleet.envelope import decode_downlink
from fleet.topics import DownChannel, down
from tests.device_messages import NOW_MS


def fleet(count, *, heard_at=NOW_MS, offline=()):
    made = {}
    for number in range(count):
        lane = DeviceLane(f"bike-{number:03d}", "bike", None, None, generation=2)
        lane.last_heard_at, lane.online = heard_at, number not in offline
        made[lane.device_id] = lane
    return made


def look(watch, clock, known, seconds=1.0):
    clock.advance(seconds=seconds)
    watch.look(clock.now_ms(), known)
    return watch.greetings(known)


@pytest.mark.parametrize("jump_s", [-10 * YEAR_MS / 1000, -3600.0, 3600.0, 10 * YEAR_MS / 1000])
def test_when_the_clock_is_set_every_connected_device_is_greeted_once_and_spread(jump_s):
    clock, connected = ManualClock(NOW_MS), fleet(100, offline={7, 9})
    watch = ClockWatch(clock)
    assert [look(watch, clock, connected) for _ in range(5)] == [[]] * 5
    clock.jump(seconds=jump_s)
    greeted = [look(watch, clock, connected) for _ in range(int(SPREAD_S) + 3)]
    messages = [message for batch in greeted for message in batch]
    assert max(len(batch) for batch in greeted) <= 5, "not all at once"
    assert {message.topic for message in messages} == {
        down(device_id, DownChannel.ACK) for device_id, lane in connected.items() if lane.online
    }
    assert len(messages) == 98
    assert all(decode_downlink(message.payload).greet for message in messages)
    assert watch.steps == 1
    clock.jump(seconds=-jump_s)  # and again when it is put right
    assert sum(len(look(watch, clock, connected)) for _ in range(int(SPREAD_S) + 3)) == 98


def test_slow_corrections_greet_nobody():
    clock, connected = ManualClock(NOW_MS), fleet(3)
    watch = ClockWatch(clock)
    for _ in range(50):
        clock.jump(seconds=0.1)
        assert look(watch, clock, connected) == []


def test_a_clock_before_most_of_what_is_stored_is_behind_and_one_odd_device_says_nothing():
    clock, known = ManualClock(NOW_MS), fleet(5)
    known["bike-000"].last_heard_at = NOW_MS + 10 * YEAR_MS
    watch = ClockWatch(clock)
    watch.known(known.values())
    look(watch, clock, known)
    assert not watch.behind
    low_ms, high_ms = watch.excused(clock.now_ms())
    assert low_ms == high_ms, "nothing"
    clock.jump(seconds=-(BEHIND_MS / 1000 + 60))
    look(watch, clock, known)
    assert watch.behind
    assert watch.excused(clock.now_ms()) == (clock.now_ms(), NOW_MS + 90 * DAY_MS)
    clock.jump(seconds=BEHIND_MS / 1000 + 60)
    look(watch, clock, known)
    assert not watch.behind


def test_readings_of_devices_that_know_the_time_are_taken_while_the_clock_is_behind(ingest):  # noqa: F811
    wrong_ms = NOW_MS - 3 * YEAR_MS
    message = BIKE.telemetry(2)
    ingest.excused_ms = wrong_ms, NOW_MS + 90 * DAY_MS
    taken = ingest.accept(arrived(message), wrong_ms)
    assert len(taken.telemetry) == 1
    assert not taken.quarantined
    ingest.excused_ms = 0, 0
    refused = ingest.accept(arrived(BIKE.telemetry(3)), wrong_ms)
    assert "in the future" in refused.quarantined[0].reason


@pytest.mark.parametrize(("off_days", "ahead"), [(1, False), (29, False), (31, True), (3650, True)])
def test_a_start_long_after_anything_that_was_heard_is_told_of_until_the_clock_is_set_back(off_days, ahead):
    clock, known = ManualClock(NOW_MS + off_days * DAY_MS), fleet(5)
    watch = ClockWatch(clock)
    watch.known(known.values())
    look(watch, clock, known)
    assert watch.ahead is ahead
    for lane in known.values():
        lane.last_heard_at = clock.now_ms()  # the wrong time is stored now
    watch.known(known.values())
    look(watch, clock, known)
    assert watch.ahead is ahead
    low_ms, high_ms = watch.excused(clock.now_ms())
    assert (low_ms < NOW_MS < high_ms) is ahead
    clock.jump(seconds=-off_days * DAY_MS / 1000)
    look(watch, clock, known)
    assert not watch.ahead
    assert watch.behind, "what was stored meanwhile says so"


def test_a_clock_that_is_set_in_a_long_life_is_not_taken_for_one_that_is_ahead():
    clock, known = ManualClock(NOW_MS), fleet(5)
    watch = ClockWatch(clock)
    watch.known(known.values())
    look(watch, clock, known)
    look(watch, clock, known, seconds=100 * 86_400.0)
    clock.jump(seconds=60.0)
    look(watch, clock, known)
    assert not watch.ahead


def test_readings_are_not_too_old_while_the_clock_may_be_ahead(ingest):  # noqa: F811
    wrong_ms = NOW_MS + 10 * YEAR_MS
    ingest.excused_ms = NOW_MS - 90 * DAY_MS, wrong_ms
    taken = ingest.accept(arrived(BIKE.telemetry(2)), wrong_ms)
    assert len(taken.telemetry) == 1
    ingest.excused_ms = 0, 0
    assert "days old" in ingest.accept(arrived(BIKE.telemetry(3)), wrong_ms).quarantined[0].reason
