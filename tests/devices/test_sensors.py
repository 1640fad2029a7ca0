"""Every kind's sensors, and what faults of the simulated hardware make of them: readings, states, alarms."""

import pytest
from device_line import condition_holds
from meal_machine_bench import Bench
from test_bike import line_with

import devices
from devices.bike import rules as bike_rules
from devices.bike import state as bike_state
from devices.meal_machine import alarms, messages, state
from devices.nursing_room import alarms as room_alarms
from devices.nursing_room import state as room_state
from fleet.kind import Flag, Threshold, When
from fleet.sensors import ALARM_PREFIX
from tests.device_messages import MACHINE, ROOM

KIND_NAMES = sorted(devices.kinds())
SENSORS = [
    (name, sensor)
    for name in KIND_NAMES
    for sensor in sorted(getattr(devices.role(name, "rules"), "SENSORS", ()), key=lambda s: s.key)
]


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_a_kind_declares_each_sensor_once_and_only_their_alarms(kind_name):
    rules = devices.role(kind_name, "rules")
    keys = [sensor.key for sensor in getattr(rules, "SENSORS", ())]
    assert len(keys) == len(set(keys))
    named = {sensor.alarm_key for sensor in getattr(rules, "SENSORS", ())}
    assert {alarm.key for alarm in rules.ALARMS if alarm.key.startswith(ALARM_PREFIX)} <= named


@pytest.mark.parametrize(("kind_name", "sensor"), SENSORS, ids=lambda value: getattr(value, "key", value))
def test_a_sensor_has_an_alarm_that_names_it_and_a_limit_that_fits_its_kind(kind_name, sensor):
    kind = devices.kind_named(kind_name)
    (alarm,) = [alarm for alarm in devices.role(kind_name, "rules").ALARMS if alarm.key == sensor.alarm_key]
    assert alarm.condition == sensor.missing
    assert isinstance(sensor.missing, Flag | Threshold | When)
    if not sensor.alarm:
        assert sensor.title.zh in alarm.title.zh
        assert sensor.title.en in alarm.title.en
        if sensor.age_field:
            assert sensor.missing.above == sensor.stale_after_s, "shown as stale exactly when it becomes an alarm"
        else:
            assert alarm.on_delay_s == sensor.stale_after_s
    assert sensor.stale_after_s >= kind.silent_after_s
    for name in (*sensor.fields, *filter(None, [sensor.age_field])):
        assert name in kind.reading.model_fields
    if isinstance(sensor.missing, Flag) and sensor.missing.value is None:
        field = kind.reading.model_fields[sensor.missing.field]
        assert type(None) in field.annotation.__args__, f"{sensor.missing.field} can never be missing"


# --- meal machine ---------------------------------------------------------------------------------------------------


def folded(readings):
    now = state.initial("meal-001")
    for reading in readings:
        now = state.apply_reading(now, reading)
    return now


def holding(sensor, now):
    return condition_holds(sensor.missing, now)


def machine_sensor(key):
    return next(sensor for sensor in alarms.SENSORS if sensor.key == key)


@pytest.mark.parametrize("probe", ["chilled", "heater"])
def test_a_dead_probe_gives_no_value_on_the_wire_and_is_missed_at_once(probe):
    bench = Bench()
    bench.run(60)
    assert not holding(machine_sensor(probe), folded(bench.readings))
    bench.act("break_probe", probe=probe)
    bench.run(40)
    assert getattr(bench.readings[-1], f"{probe}_celsius") is None
    assert holding(machine_sensor(probe), folded(bench.readings))
    other = "heater" if probe == "chilled" else "chilled"
    assert not holding(machine_sensor(other), folded(bench.readings))
    bench.act("repair")
    bench.run(40)
    assert not holding(machine_sensor(probe), folded(bench.readings))


def test_a_stuck_thermometer_is_missed_within_three_quarters_of_an_hour_and_a_healthy_one_never_in_a_day():
    bench = Bench()
    bench.run(86_400)
    now = state.initial("meal-001")
    for reading in bench.readings:
        now = state.apply_reading(now, reading)
        assert not holding(machine_sensor("chilled"), now), reading
    bench.act("stick_probe", probe="chilled")
    stuck_at = bench.now_ms
    bench.run(45 * 60)
    now = folded(bench.readings)
    assert holding(machine_sensor("chilled"), now)
    good_at = machine_sensor("chilled").good_at(now)
    assert stuck_at - 60_000 <= good_at <= stuck_at + 60_000


def test_a_machine_that_cannot_know_its_temperature_locks_and_is_not_unlocked_by_service():
    bench = Bench()
    bench.run(60)
    bench.act("break_probe", probe="chilled")
    bench.run(11 * 60)
    locked = [event for _, event in bench.events if isinstance(event, messages.LanesLocked)]
    assert [event.chilled_celsius for event in locked] == [None]
    bench.command(messages.UnlockAfterService())
    bench.run(5)
    assert bench.progress[-1].reason == "not_possible"
    assert bench.readings[-1].locked_out


def test_a_stuck_thermometer_hides_warm_food_from_the_machine_but_not_from_people():
    """What makes it dangerous: the controller believes the value. The alarm is what is left."""
    bench = Bench()
    bench.run(60)
    bench.act("stick_probe", probe="chilled")
    bench.act("warm_up", celsius=15.0)
    bench.run(45 * 60)
    assert bench.readings[-1].chilled_celsius < 8
    assert holding(machine_sensor("chilled"), folded(bench.readings))


def test_equal_values_far_apart_or_the_same_reading_again_are_no_stuck_thermometer():
    first = messages.MealMachineReading(**{**MACHINE, "slots": ()})
    now = folded([first, *([first] * 100), first.model_copy(update={"at": first.at + 86_400_000})])
    assert not holding(machine_sensor("chilled"), now)


# --- bike -----------------------------------------------------------------------------------------------------------


def bike_folded(line):
    now = bike_state.initial("bike-001")
    for reading in line.readings:
        now = bike_state.apply_reading(now, reading)
    return now


def bike_sensor(key):
    return next(sensor for sensor in bike_rules.SENSORS if sensor.key == key)


def test_a_bike_without_a_fix_says_how_old_its_position_is():
    line = line_with()
    line.run(1_000)
    assert line.readings[-1].fix_age_seconds == 0
    line.act("lose_fix")
    lost_at = line.now_ms
    line.run(3 * 3_600)
    last = line.readings[-1]
    assert abs(last.fix_age_seconds - (last.at - lost_at) / 1000) <= 1
    assert len({(one.latitude, one.longitude) for one in line.readings if one.at > lost_at}) == 1
    assert not holding(bike_sensor("gnss"), bike_folded(line)), "a bike in a lobby sees no sky for a while"
    line.run(2 * 3_600)
    assert holding(bike_sensor("gnss"), bike_folded(line))
    line.act("find_fix")
    line.run(1)
    assert line.readings[-1].fix_age_seconds == 0
    assert not holding(bike_sensor("gnss"), bike_folded(line))


def test_a_pack_without_its_thermometer_is_missed():
    line = line_with()
    line.act("break_thermometer")
    line.run(1)
    assert line.readings[-1].temperature_celsius is None
    assert holding(bike_sensor("battery_thermometer"), bike_folded(line))
    assert not holding(bike_sensor("gnss"), bike_folded(line))


# --- nursing room ---------------------------------------------------------------------------------------------------


def test_a_fridge_thermometer_that_gives_one_value_for_two_hours_is_missed():
    kind = devices.kind_named("nursing_room")
    first = kind.reading(**ROOM)
    now = room_state.initial("room-001")
    for number in range(481):  # every 15 s
        now = room_state.apply_reading(now, first.model_copy(update={"at": first.at + number * 15_000}))
    assert holding(room_alarms.FRIDGE, now)
    assert room_alarms.FRIDGE.good_at(now) == first.at
    moved = first.model_copy(update={"at": now.reading.at + 15_000, "fridge_celsius": first.fridge_celsius + 0.01})
    assert not holding(room_alarms.FRIDGE, room_state.apply_reading(now, moved))
