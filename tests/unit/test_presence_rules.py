"""Alarms over time and link: connected but blind, links that come and go, a fair chance after our own absence."""

import random

import pytest
from rules_cases import SILENT_AFTER_S, Bench, Mended, definition

from cloud.presence import DROPS_UNSTABLE, STABLE_AFTER_MS, UNSTABLE_AFTER_MS
from cloud.rules.conditions import NO_READINGS, SILENT, UNSTABLE
from cloud.rules.links import FAIR_CHANCE_S
from cloud.rules.stage import Rules
from fleet.envelope import Status, boot_epoch
from fleet.incident import AlarmState
from fleet.kind import Flag, Text, Threshold
from fleet.sensors import ALARM_PREFIX, Sensor
from tests.device_messages import NOW_MS

READINGS_AFTER_S = SILENT_AFTER_S + 15


class LinkBench(Bench):
    """A probe whose broker says when its connections begin and end."""

    connection = 0

    def up(self) -> None:
        self.connection += 1
        self.status(self.connection, online=True)

    def down(self) -> None:
        self.status(self.connection, online=False)

    def status(self, connection: int, *, online: bool, boots: int = 1) -> None:
        """As the pipeline hears one."""
        before = self.lane.online
        status = Status(self.lane.device_id, boot_epoch(1, boots), connection, online)
        self.twin.on_status(self.lane, status, self.now)
        if before and not self.lane.online:
            self.rules.on_dropped(self.lane, self.now, self.decided)
        if online:
            self.rules.on_heard(self.lane, self.now, self.decided)

    def idle(self, seconds: float) -> None:
        self.wait(seconds, hearing=False)


@pytest.fixture
def bench():
    return LinkBench()


def acknowledge(bench, changes):
    """A person acknowledges what is new at once: the worst case for repeated notices."""
    for change in changes:
        if change.event.value == "activate" and bench.lane.desk.alarms[change.definition.key].state == "unacknowledged":
            bench.intent("acknowledge_alarm", alarm_id=change.alarm_id)


def is_news(change):
    return change.event.value == "activate" and change.before is AlarmState.NORMAL


# --- heard, but blind -------------------------------------------------------------------------------------------


def test_a_device_that_only_greets_is_no_device_that_measures(bench):
    bench.up()
    bench.reading()
    for _ in range(round(READINGS_AFTER_S) - 1):
        bench.clock.advance(seconds=1)
        bench.heard()
        bench.fire()
    assert bench.alarms() == []
    bench.clock.advance(seconds=1)
    bench.heard()
    bench.fire()
    assert bench.alarms() == [(NO_READINGS, "activate")]
    bench.event(Mended)
    assert bench.alarms() == [], "an event is no reading"
    bench.clock.advance(seconds=1)
    bench.reading()
    assert bench.alarms() == [(NO_READINGS, "return")]


def test_a_silent_device_is_not_also_without_readings_and_has_its_whole_time_afterwards(bench):
    bench.reading()
    bench.idle(3600)
    assert bench.alarms() == [(SILENT, "activate")]
    bench.heard()
    assert bench.alarms() == [(SILENT, "return")]
    for _ in range(round(READINGS_AFTER_S) - 1):
        bench.clock.advance(seconds=1)
        bench.heard()
        bench.fire()
    assert bench.alarms() == []
    bench.clock.advance(seconds=1)
    bench.heard()
    bench.fire()
    assert bench.alarms() == [(NO_READINGS, "activate")], "a child alarm appears once its parent has gone"


def test_an_old_reading_shows_that_it_measures_but_not_that_its_data_is_fresh(bench):
    bench.up()
    bench.reading()
    for minute in range(30):  # the backlog of a day, oldest first
        bench.clock.advance(seconds=20)
        bench.reading(at=NOW_MS - 86_400_000 + minute * 60_000)
        bench.fire()
    assert bench.alarms() == []
    assert bench.now - bench.lane.last_reading_at > 80_000_000


# --- links that come and go -------------------------------------------------------------------------------------


@pytest.mark.parametrize("acknowledged", [False, True])
@pytest.mark.parametrize("reading_every_s", [1, 15, 1_000])
def test_flapping_at_one_hertz_for_ten_minutes_is_at_most_one_alarm_and_one_notice(
    bench, acknowledged, reading_every_s
):
    bench.reading()
    changes = []
    for second in range(600):
        bench.up()
        if second % reading_every_s == 0:
            bench.reading()
        bench.lane.data_at = bench.now
        bench.idle(0.5)
        bench.down()
        bench.idle(0.5)
        new = bench.take().alarms
        changes += new
        if acknowledged:
            acknowledge(bench, new)
            bench.take()
    assert [(change.definition.key, change.event.value) for change in changes] == [(UNSTABLE, "activate")]
    assert sum(map(is_news, changes)) == 1
    assert "losses in" in changes[0].note


def test_connections_from_which_nothing_is_heard_are_one_silence(bench):
    bench.reading()
    for _ in range(600):
        bench.connection += 1
        bench.down()  # only its wills come
        bench.idle(1)
    assert bench.alarms() == [(SILENT, "activate")]


@pytest.mark.parametrize("period_s", [30, 100, 200, 400])
def test_a_device_that_comes_and_goes_all_day_is_told_of_a_bounded_number_of_times(bench, period_s):
    """Up for half of the period, without power for the other half; somebody acknowledges every notice at once."""
    bench.reading()
    news = []
    for _ in range(86_400 // period_s):
        bench.up()
        for _ in range(period_s // 2 // 5):
            bench.reading()
            bench.idle(5)
        bench.down()
        bench.idle(period_s / 2)
        new = bench.take().alarms
        news += [change for change in new if is_news(change)]
        acknowledge(bench, new)
        bench.take()
    told = [change.definition.key for change in news]
    assert told.count(UNSTABLE) == 1
    assert told.count(SILENT) <= DROPS_UNSTABLE + 1, "silence is latched while the link is unstable"


def test_an_unstable_link_ends_with_the_run_and_takes_the_latched_silence_with_it(bench):
    bench.reading()
    for _ in range(12):
        bench.up()
        bench.reading()
        bench.idle(20)
        bench.down()
        bench.idle(50)
    raised = [key for key, event in bench.alarms() if event == "activate"]
    assert UNSTABLE in raised
    bench.up()
    bench.wait(STABLE_AFTER_MS / 1000 - 120)
    assert (UNSTABLE, "return") not in bench.alarms()
    bench.wait(120)
    assert sorted(bench.alarms()) == [(SILENT, "return"), (UNSTABLE, "return")]


def test_a_device_that_dies_while_its_link_is_unstable_is_announced(bench):
    bench.reading()
    for _ in range(90):
        bench.up()
        bench.reading()
        bench.idle(0.5)
        bench.down()
        bench.idle(0.5)
    assert bench.alarms() == [(UNSTABLE, "activate")]
    bench.idle(SILENT_AFTER_S)
    assert bench.alarms() == [(SILENT, "activate")]


def test_a_few_losses_and_a_burst_are_no_unstable_link(bench):
    bench.reading()
    for _ in range(50):
        bench.up()
        bench.reading()
        bench.idle(0.1)
        bench.down()  # a burst of five seconds
    assert UNSTABLE_AFTER_MS > 5_000
    bench.wait(STABLE_AFTER_MS / 1000 + 1)
    for _ in range(20):
        bench.up()
        bench.wait(STABLE_AFTER_MS / 1000 + 1)  # once in a while is normal
        bench.down()
    assert bench.alarms() == []


def test_a_run_of_losses_survives_a_restart(bench):
    bench.reading()
    for _ in range(90):
        bench.up()
        bench.reading()
        bench.idle(0.5)
        bench.down()
        bench.idle(0.5)
    assert bench.alarms() == [(UNSTABLE, "activate")]
    bench.restart(seconds=1)
    bench.up()
    bench.wait(STABLE_AFTER_MS / 1000)
    assert bench.alarms() == [(UNSTABLE, "return")]


# --- wills --------------------------------------------------------------------------------------------------------


def test_a_will_of_an_earlier_connection_or_boot_changes_nothing(bench):
    bench.status(3, online=True, boots=2)
    for connection, boots in [(2, 2), (9, 1), (1, 1)]:
        bench.status(connection, online=False, boots=boots)
        assert bench.lane.online
    assert bench.lane.presence.drops == 0
    bench.status(3, online=False, boots=2)
    bench.status(3, online=False, boots=2)  # twice, as QoS 1 may
    assert not bench.lane.online
    assert bench.lane.presence.drops == 1


def test_wills_and_greetings_in_any_order_end_with_the_latest(bench):
    randomness = random.Random(4)
    for _ in range(300):
        bench = LinkBench()
        bench.clock.advance(seconds=1)
        said = [(boots, connection, online) for boots in (1, 2) for connection in (1, 2, 3) for online in (True, False)]
        said = said[: randomness.randint(1, len(said))]
        latest = said[-1]
        randomness.shuffle(said)
        said.append(latest)
        for boots, connection, online in said:
            bench.status(connection, online=online, boots=boots)
        assert bench.lane.online == latest[2]


# --- a fair chance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("speed", "fair_s"), [(1.0, SILENT_AFTER_S), (10.0, 10 * FAIR_CHANCE_S)])
def test_after_we_were_away_nobody_is_silent_before_a_fair_chance_in_real_time(bench, speed, fair_s):
    bench.rules = rules_at(speed)
    bench.reading()
    bench.restart(seconds=8 * speed)  # eight real seconds
    bench.idle(fair_s - 1)
    assert bench.alarms() == []
    bench.idle(1)
    assert bench.alarms() == [(SILENT, "activate")]


def test_at_the_speed_of_a_demo_a_device_that_reconnects_within_its_jitter_is_never_silent(bench):
    bench.rules = rules_at(10.0)
    bench.reading()
    bench.restart(seconds=80)
    bench.idle(190)  # 15 s of jitter and 4 s until it is welcomed
    bench.heard()
    bench.reading()
    bench.idle(SILENT_AFTER_S - 1)
    assert bench.alarms() == []


def test_in_production_a_dead_room_is_announced_as_fast_after_our_restart(bench):
    assert FAIR_CHANCE_S < SILENT_AFTER_S
    bench.reading()
    bench.restart(seconds=3)
    bench.idle(SILENT_AFTER_S)
    assert bench.alarms() == [(SILENT, "activate")]


def rules_at(speed):
    probe = LinkBench()
    rules: Rules = probe.rules
    book = rules._books["probe"]
    book.limits = type(book.limits).of(book.kind, book.by_key, speed)
    return rules


# --- sensors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def sensing():
    alarms = (
        definition(f"{ALARM_PREFIX}voltmeter", Flag("volts", value=None), on_delay_s=120.0),
        definition("low", Threshold("volts", below=3.0)),
    )
    bench = LinkBench(alarms)
    book = bench.rules._books["probe"]
    book.sensors = {f"{ALARM_PREFIX}voltmeter": VOLTMETER}
    return bench


VOLTMETER = Sensor(
    key="voltmeter", title=Text("电压表", "Voltmeter"), fields=("volts",), missing=Flag("volts", value=None),
    stale_after_s=120.0,
)  # fmt: skip


def test_a_sensor_without_values_is_named_after_its_delay_and_remembered_from_its_last_good_value(sensing):
    sensing.reading(volts=5.0)
    good_at = sensing.now
    for _ in range(8):
        sensing.clock.advance(seconds=15)
        sensing.reading(volts=None)
    assert sensing.lane.presence.lost == {"voltmeter": good_at}
    assert sensing.alarms() == [], "its on-delay counts from the first reading without a value"
    sensing.clock.advance(seconds=15)
    sensing.reading(volts=None)
    sensing.fire()
    assert sensing.alarms() == [("sensor_voltmeter", "activate")]
    sensing.restart(seconds=1)
    assert sensing.lane.presence.lost == {"voltmeter": good_at}
    sensing.reading(volts=5.0)
    assert sensing.lane.presence.lost == {}


def test_a_sensor_that_never_gave_a_value_was_never_good(sensing):
    sensing.reading(volts=None)
    assert sensing.lane.presence.lost == {"voltmeter": 0}


def test_a_gap_of_one_reading_tells_nobody(sensing):
    for second in range(100):
        sensing.clock.advance(seconds=15)
        sensing.reading(volts=None if second % 3 == 0 else 5.0)
        sensing.fire()
    assert sensing.alarms() == []
