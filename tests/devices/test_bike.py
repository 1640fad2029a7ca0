"""The bike's physics and people are causally honest, and its driver tells what the hardware did, no more."""

import itertools
import random
from collections import Counter

import pytest
from device_line import STARTED_MS, Damage, Line

from cloud.derived_models import struct_of
from devices.bike import city, frames, messages, physics, rules, simulator, state
from devices.bike.driver import COMMAND_TIMEOUT_MS, PENDING_COMMANDS_MAX, BikeDriver
from devices.bike.line import EVENTS_MAX, EventQueue
from fleet.kind import Site
from fleet.messages import ReplyStatus

COMMAND = "ab" * 16
QUIET = {"jam_probability": 0.0, "line_fault_probability": 0.0, "falls_per_day": 0.0, "thefts_per_day": 0.0,
         "forgets_to_lock_probability": 0.0, "battery_percent": 80.0}  # fmt: skip


def line_with(seed=3, **facts):
    """A line to a bike at a bus stop where nothing happens by chance."""
    line = Line("bike", seed=seed)
    site = Site(38.8622, 121.5263, "七贤岭地铁站", {**QUIET, **facts})
    line.simulator = simulator.create("bike-001", random.Random(seed), site, STARTED_MS)
    line.readings.clear()
    line.truths.clear()
    line._from_driver(line.driver.on_start(line.now_ms))
    line.run(1)
    return line


def types(line):
    return [event.type for _, event in line.events]


def final(line, command_id=COMMAND):
    steps = [step for step in line.progress if step.command_id == command_id]
    return steps[-1].status, steps[-1].reason


def test_a_command_opens_the_lock_and_the_evidence_names_it():
    line = line_with()
    line.command(COMMAND, messages.Unlock())
    assert line.simulator.snapshot()["lock_state"] == "locked", "a motor takes its time"
    line.run(1)
    assert line.simulator.snapshot()["lock_state"] == "unlocked"
    (occurred_at, opened), *_ = line.events
    assert (opened.type, opened.command_id) == ("lock_opened", COMMAND)
    assert STARTED_MS + 1_000 + 400 <= occurred_at <= STARTED_MS + 2_000
    assert [step.status for step in line.progress] == [ReplyStatus.EXECUTING, ReplyStatus.SUCCEEDED]


def test_a_rider_goes_somewhere_else_and_locks_up_there():
    line = line_with()
    line.command(COMMAND, messages.Unlock())
    line.run(3_600)
    assert types(line) == ["lock_opened", "lock_closed"]
    start, end = ((event.latitude, event.longitude) for _, event in line.events)
    straight = city.distance_metres(start, end)
    ridden = line.readings[-1].odometer_metres - line.readings[0].odometer_metres
    assert straight > 100
    assert straight * 0.9 <= ridden <= straight * 2
    seconds = (line.events[1][0] - line.events[0][0]) / 1_000
    assert 2 < ridden / seconds < 7, "a rider's mean speed"
    riding = [reading for reading in line.readings if reading.lock_state == "unlocked"]
    steps = [after.at - before.at for before, after in itertools.pairwise(riding)]
    assert max(steps) <= 30_000
    assert any(reading.speed_metres_per_second > 2 for reading in riding)
    assert line.readings[-1].speed_metres_per_second == 0


def test_rides_of_a_day_stay_in_the_zone():
    line = line_with()
    for number in range(40):
        line.command(f"{number:032x}", messages.Unlock())
        line.run(2_400)
        position = line.simulator.snapshot()
        assert city.ZONE_SOUTH_WEST[0] <= position["latitude"] <= city.ZONE_NORTH_EAST[0]
        assert city.ZONE_SOUTH_WEST[1] <= position["longitude"] <= city.ZONE_NORTH_EAST[1]
        assert not position["riding"]
    assert Counter(types(line))["lock_opened"] == Counter(types(line))["lock_closed"] > 30


def test_a_jam_is_a_failure_with_its_reason_and_its_event():
    line = line_with()
    line.act("jam")
    line.command(COMMAND, messages.Unlock())
    line.run(60)
    assert types(line) == ["lock_jammed"]
    assert line.events[0][1].command_id == COMMAND
    assert final(line) == (ReplyStatus.FAILED, "jam")
    assert line.simulator.snapshot()["lock_state"] == "jammed"
    assert not line.simulator.snapshot()["riding"], "nobody rides a bike that did not open"
    line.act("clear_jam")
    line.run(10)
    assert types(line)[-1] == "lock_closed"


def test_unlocking_an_open_bike_is_refused_and_locking_a_locked_one_is_done():
    line = line_with()
    line.command("01" * 16, messages.Lock())
    line.run(5)
    assert final(line, "01" * 16) == (ReplyStatus.SUCCEEDED, "")
    assert types(line) == []
    line.command("02" * 16, messages.Unlock())
    line.run(1)
    line.command("03" * 16, messages.Unlock())
    line.run(0.5)
    assert final(line, "03" * 16) == (ReplyStatus.FAILED, "not_possible")


def test_the_motor_never_locks_a_moving_bike():
    line = line_with()
    line.command("01" * 16, messages.Unlock())
    line.run(60)
    assert line.simulator.snapshot()["riding"]
    line.command(COMMAND, messages.Lock())
    line.run(5)
    assert final(line) == (ReplyStatus.REFUSED, "not_possible")
    assert line.simulator.snapshot()["lock_state"] == "unlocked"


def test_locked_again_before_anybody_mounted():
    line = line_with()
    line.command("01" * 16, messages.Unlock())
    line.run(1)
    line.command(COMMAND, messages.Lock())
    line.run(60)
    assert types(line) == ["lock_opened", "lock_closed"]
    assert line.events[1][1].command_id == COMMAND
    assert line.simulator.snapshot()["odometer_metres"] == line.readings[0].odometer_metres


def test_power_lost_while_the_motor_turns():
    line = line_with()
    line.command(COMMAND, messages.Unlock())
    line.act("brown_out")
    line.run(8.5)
    assert final(line) == (ReplyStatus.FAILED, "power_lost")
    assert types(line) == []
    assert line.simulator.snapshot()["lock_state"] == "locked"


def test_a_lever_pushed_without_power_is_reported_at_the_next_boot():
    line = line_with()
    line.command(COMMAND, messages.Unlock())
    line.run(1)
    line.act("brown_out")
    line.act("close_lock")
    line.run(2)
    assert types(line) == ["lock_opened"]
    line.run(5)
    assert types(line) == ["lock_opened", "lock_closed"]


def test_an_empty_battery_is_silent_until_it_is_swapped():
    line = line_with(battery_percent=0.01)
    line.run(4 * 3_600)
    assert not line.simulator.snapshot()["powered"]
    heard = len(line.readings)
    line.command(COMMAND, messages.Unlock())
    line.run(3_600)
    assert final(line) == (ReplyStatus.FAILED, "hardware_silent")
    assert len(line.readings) == heard
    line.act("swap_battery")
    line.run(60)
    assert line.readings[-1].battery_percent > 99


def test_low_battery_is_told_once_per_discharge():
    line = line_with(battery_percent=20.01)
    line.run(6 * 3_600)
    assert types(line) == ["battery_low"]
    line.act("swap_battery", percent=20.05)
    line.run(6 * 3_600)
    assert types(line) == ["battery_low"], "never above the recovery limit"
    line.act("swap_battery", percent=90.0)
    line.run(60)
    line.act("swap_battery", percent=20.01)
    line.run(6 * 3_600)
    assert types(line) == ["battery_low", "battery_low"]


def test_a_thief_is_followed():
    line = line_with()
    before = line.simulator.snapshot()
    line.act("move", metres=200.0)
    line.run(600)
    assert types(line) == ["moved_while_locked"]
    after = line.simulator.snapshot()
    moved = city.distance_metres((before["latitude"], before["longitude"]), (after["latitude"], after["longitude"]))
    assert moved == pytest.approx(200, rel=0.02)
    assert after["odometer_metres"] == before["odometer_metres"], "its wheels are locked"
    assert after["lock_state"] == "locked"
    assert any(reading.speed_metres_per_second > 0.5 for reading in line.readings)
    assert line.readings[-1].speed_metres_per_second == 0


def test_carrying_it_across_the_path_is_no_theft():
    line = line_with()
    line.act("move", metres=8.0)
    line.run(600)
    assert types(line) == []


def test_a_ride_uses_more_charge_than_standing_and_cold_more_than_warmth():
    parked, ridden = line_with(), line_with()
    ridden.command(COMMAND, messages.Unlock())
    for line in (parked, ridden):
        line.run(3_600)
    assert ridden.simulator.snapshot()["battery_percent"] < parked.simulator.snapshot()["battery_percent"] < 80
    july, january = 1_783_900_000_000, 1_768_400_000_000
    assert physics.ambient_celsius(july) > 18
    assert physics.ambient_celsius(january) < 3


def test_positions_err_by_what_they_claim():
    randomness = random.Random(4)
    receiver = physics.Receiver(randomness)
    true = (38.86, 121.52)
    inside = 0
    for _ in range(2_000):
        place, accuracy = receiver.fix(true, 8.0)
        inside += city.distance_metres(true, place) <= accuracy
    assert 0.5 < inside / 2_000 < 0.95


def test_people_leave_home_and_stops_in_the_morning_and_offices_in_the_evening():
    for kind in ("bus_stop", "apartment"):
        demand = city.demand_per_hour(kind)
        assert demand[8] > 2 * demand[14]
    office = city.demand_per_hour("office")
    assert office[18] > 3 * office[8]
    randomness = random.Random(1)
    morning = STARTED_MS - STARTED_MS % 86_400_000  # midnight UTC is 8 h in the zone
    goals = Counter(city.destination((38.8622, 121.5263), morning, randomness).kind for _ in range(300))
    assert goals["office"] > 200


def test_values_survive_the_wire_within_its_steps():
    place = frames.Place(38.8612345, 121.5298765, 7.34)
    sent = frames.ReadingFrame(STARTED_MS, 71.234, place, 4.318, frames.LockCode.UNLOCKED, 7.16, -84, 1_204_331, -12.34)
    received = frames.parse_reading(frames.reading_body(sent))
    assert received.place.latitude == pytest.approx(place.latitude, abs=1e-7)
    assert received.battery_percent == pytest.approx(71.23)
    assert received.temperature_celsius == pytest.approx(-12.3)
    assert frames.reading_body(received) == frames.reading_body(sent)


def test_hardware_that_lost_its_time_gets_the_edges():
    driver = BikeDriver()
    place = frames.Place(38.86, 121.52, 5)
    for at_ms in (0, STARTED_MS + 3_600_000, STARTED_MS - 60 * 86_400_000):
        reading = frames.ReadingFrame(at_ms, 50, place, 0, frames.LockCode.LOCKED, 7, -80, 5, 10)
        wire = frames.encode_frame(frames.FrameType.READING, frames.reading_body(reading))
        assert driver.on_bytes(wire, STARTED_MS).readings[0].at == STARTED_MS


def test_a_body_with_an_unknown_code_is_counted():
    driver = BikeDriver()
    driver.on_bytes(frames.encode_frame(frames.FrameType.EVENT, bytes(47)), STARTED_MS)
    driver.on_bytes(frames.encode_frame(0x77, b""), STARTED_MS)
    assert driver.frame_errors == 2


def test_a_driver_carries_a_bounded_number_of_commands_and_times_them_out():
    driver = BikeDriver()
    for number in range(PENDING_COMMANDS_MAX):
        assert driver.on_command(f"{number:032x}", messages.Locate(), STARTED_MS).to_hardware
        assert not driver.on_command(f"{number:032x}", messages.Locate(), STARTED_MS).to_hardware, "once is enough"
    (step,) = driver.on_command("ff" * 16, messages.Locate(), STARTED_MS).progress
    assert (step.status, step.reason) == (ReplyStatus.FAILED, "busy")
    ended = driver.on_timer(STARTED_MS + COMMAND_TIMEOUT_MS).progress
    assert {step.reason for step in ended} == {"hardware_silent"}
    assert len(ended) == PENDING_COMMANDS_MAX


def test_a_repeated_command_frame_moves_the_lock_once():
    line = line_with()
    line.damage = Damage(random.Random(0), drop_probability=0.45)
    line.command(COMMAND, messages.Unlock())
    line.run(8)
    line.damage = Damage(random.Random(0))
    line.run(60)
    assert sum(truth.what == "lock_opened" for truth in line.truths) <= 1


def test_a_full_flash_evicts_the_oldest_event_and_says_so():
    queue = EventQueue()
    place = frames.Place(0, 0, 0)
    for number in range(EVENTS_MAX + 1):
        event = frames.EventFrame(bytes([number]) * 16, 1, frames.EventCode.TAMPER, frames.NO_COMMAND, place, 0)
        evicted = queue.add(event, 1)
        assert (evicted is not None) == (number == EVENTS_MAX)
    assert len(queue) == EVENTS_MAX


def test_the_hot_path_folds_the_derived_struct_like_the_model():
    line = line_with()
    model = line.readings[-1]
    fast = struct_of(messages.Reading)(**model.model_dump())
    slow_state = state.apply_reading(state.initial("bike-001"), model)
    fast_state = state.apply_reading(state.initial("bike-001"), fast)
    assert fast_state.lock_state == slow_state.lock_state == "locked"
    assert rules.rentable(fast_state)
    assert state.apply_reading(fast_state, fast) == fast_state


def test_a_bike_without_a_word_is_rented_to_nobody():
    assert not rules.rentable(state.initial("bike-001"))
