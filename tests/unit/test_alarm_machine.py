"""The alarm machine against a plain model: readings, silence, people, restarts, clocks, in any order."""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rules_cases import Bench, Broken, Mended, definition

from cloud.dispatch.alarms import is_news, is_shown_again
from cloud.ports import IntentRefusedError
from cloud.rules.conditions import SILENT
from cloud.rules.hiding import shelve_ms_max
from cloud.rules.links import holds
from cloud.rules.stage import CATCH_UP_MS, LATE_MS
from fleet.incident import ALARM_TRUE, AlarmState, AlarmView, Priority
from fleet.kind import NOT_HEARD, Flag, Threshold, When

TABLE = (  # the child stands before its parent, so that the order of the table is proven not to matter
    definition("child", Flag("open"), suppressed_by=("hot", *NOT_HEARD)),
    definition("hot", Threshold("celsius", above=80.0), latching=True),
    definition("slow", Threshold("volts", below=3.0), on_delay_s=60.0, off_delay_s=30.0, realarm_s=600.0),
    definition("broken", When(lambda state: state.broken), suppressed_by=("child",)),
)
BY_KEY = {one.key: one for one in TABLE}
ORDER = ("hot", "slow", "child", "broken")
KEYS = st.sampled_from(ORDER)
SECONDS = st.sampled_from([1, 7, 29, 31, 45, 61, 120, 601, 1900])
LONGEST_MS = shelve_ms_max(Priority.HIGH)


@dataclass
class Plain:
    """One alarm as anybody would note it on paper."""

    key: str
    condition: bool = False
    since: int = 0
    true: bool = False
    unseen: bool = False
    latched: bool = False
    told_at: int = 0
    view: str = "shown"
    shelf: tuple[int, int, bool] | None = None
    out: bool = False

    @property
    def state(self) -> AlarmState:
        if self.true:
            return AlarmState.UNACKNOWLEDGED if self.unseen else AlarmState.ACKNOWLEDGED
        if self.latched:
            return AlarmState.LATCHED_UNACKNOWLEDGED if self.unseen else AlarmState.LATCHED_ACKNOWLEDGED
        return AlarmState.RETURNED_UNACKNOWLEDGED if self.unseen else AlarmState.NORMAL


@dataclass
class Paper:
    """What a careful person would say of these alarms at any time."""

    now: int = 0
    silent: bool = False
    device_out: bool = False
    told: list[str] = field(default_factory=list)
    alarms: dict[str, Plain] = field(default_factory=lambda: {key: Plain(key) for key in ORDER})

    def wanted(self, one: Plain) -> str:
        if self.device_out or one.out:
            return "out_of_service"
        for parent in BY_KEY[one.key].suppressed_by:
            if parent == SILENT:
                if self.silent and not self.device_out:
                    return "suppressed_by_design"
            elif parent in self.alarms:
                above = self.alarms[parent]
                if above.true and above.condition and not above.out:
                    return "suppressed_by_design"
        return "shelved" if one.shelf and self.now < one.shelf[1] else "shown"

    def look(self, conditions: dict[str, bool], at: int) -> None:
        changed = [key for key in ORDER if key in conditions and self.alarms[key].condition is not conditions[key]]
        for key in changed:
            one = self.alarms[key]
            one.condition, one.since = conditions[key], at if self.now - at <= LATE_MS else self.now + CATCH_UP_MS
            self.settle(one, at)
        if changed:
            self.review()

    def settle(self, one: Plain, at: int) -> None:
        rule_of = BY_KEY[one.key]
        delay = rule_of.on_delay_s if one.condition else rule_of.off_delay_s
        if one.condition is one.true or at - one.since < delay * 1000:
            return
        if one.condition:
            news = one.state in {AlarmState.NORMAL, AlarmState.LATCHED_ACKNOWLEDGED}
            if one.state is AlarmState.NORMAL:
                one.told_at = 0
            one.true = one.unseen = True
            one.latched = False
            one.view = self.wanted(one)
            if one.view == "shown":
                one.told_at = self.now
                self.told += [one.key] if news else []
            return
        one.true, one.latched = False, rule_of.latching
        if one.shelf and one.shelf[2]:
            one.shelf = None
        if not one.latched and one.unseen and not one.told_at:
            one.unseen = False

    def review(self) -> None:
        for key in self.alarms:
            one = self.alarms[key]
            view = self.wanted(one)
            if view == one.view:
                continue
            one.view = view
            if view == "shown" and one.state not in {AlarmState.NORMAL, AlarmState.ACKNOWLEDGED}:
                one.told_at = self.now
                if one.state in {AlarmState.UNACKNOWLEDGED, AlarmState.LATCHED_UNACKNOWLEDGED}:
                    self.told.append(key)

    def tick(self) -> None:
        if not self.silent:
            for key in ORDER:
                self.settle(self.alarms[key], self.now)
        for one in self.alarms.values():
            if one.shelf and self.now >= one.shelf[1]:
                one.shelf = None
        self.review()
        slow = self.alarms["slow"]
        if slow.true and slow.view == "shown" and slow.told_at and self.now - slow.told_at >= 600_000:
            slow.unseen, slow.told_at = True, self.now
            self.told.append("slow")


class AlarmMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.bench = Bench(TABLE)
        self.paper = Paper(now=self.bench.now)
        self.reading = {"celsius": 20.0, "volts": 5.0, "open": False}
        self.broken = False
        self.bench.reading(**self.reading)
        self.after()

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(celsius=st.sampled_from([20.0, 90.0]), volts=st.sampled_from([5.0, 2.0]), is_open=st.booleans())
    def measures(self, celsius, volts, is_open):
        self.bench.clock.advance(seconds=1)
        self.paper.now = self.bench.now
        self.reading = {"celsius": celsius, "volts": volts, "open": is_open}
        self.says(self.bench.now)

    @rule(seconds=st.sampled_from([1, 60, 119, 121, 3600]), celsius=st.sampled_from([20.0, 90.0]))
    def measured_a_while_ago(self, seconds, celsius):
        """A reading that waited on the device counts from its own time; a very late one only after a while."""
        self.reading = {**self.reading, "celsius": celsius}
        self.says(self.bench.now - seconds * 1000)

    @rule()
    def says_the_same_again(self):
        self.says(self.bench.lane.state.reading.at)

    @rule(broken=st.booleans())
    def breaks_or_is_mended(self, broken):
        self.bench.clock.advance(seconds=1)
        self.paper.now = self.bench.now
        self.bench.event(Broken if broken else Mended)
        self.broken = broken
        self.heard()
        self.paper.look(self.conditions(), self.bench.now)
        self.after()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds):
        self.pass_time(seconds, hearing=True)

    @rule(seconds=st.sampled_from([10, 39, 41, 300]))
    def nothing_is_heard(self, seconds):
        self.pass_time(seconds, hearing=False)

    @rule()
    def is_heard_without_a_reading(self):
        self.bench.heard()
        self.after()

    @rule()
    def the_process_starts_again(self):
        self.bench.restart()
        self.after()

    @rule(hours=st.sampled_from([1, 30, 87_600]))
    def the_clock_is_set_back(self, hours):
        self.bench.clock.advance(seconds=-3600 * hours)
        now = self.paper.now = self.bench.now
        self.bench.rules.clock_set(self.bench.lane, now)
        self.bench.listening_since = min(self.bench.listening_since, now)
        for one in self.paper.alarms.values():
            one.since, one.told_at = min(one.since, now + CATCH_UP_MS), min(one.told_at, now)
            if one.shelf:
                length = one.shelf[1] - one.shelf[0]
                one.shelf = (min(one.shelf[0], now), min(one.shelf[1], now + length), one.shelf[2])
        self.after()

    # --- what people do -------------------------------------------------------------------------------------------

    @rule(key=KEYS)
    def acknowledge(self, key):
        one = self.paper.alarms[key]
        may = one.unseen
        if self.act(may, "acknowledge_alarm", alarm_id=self.alarm_id(key)):
            one.unseen, one.told_at = False, self.bench.now
        self.after()

    @rule(key=KEYS)
    def reset(self, key):
        one = self.paper.alarms[key]
        if self.act(one.latched, "reset_latch", alarm_id=self.alarm_id(key), reason="inspected"):
            one.unseen = one.latched = False
            one.told_at = self.bench.now
        self.after()

    @rule(key=KEYS, seconds=st.sampled_from([60, 900, 4 * 3600, 4 * 3600 + 1]), one_shot=st.booleans())
    def shelve(self, key, seconds, one_shot):
        one = self.paper.alarms[key]
        may = seconds <= 4 * 3600 and (not one_shot or one.state is not AlarmState.NORMAL)
        if self.act(may, "shelve_alarm", key=key, for_s=seconds, one_shot=one_shot, reason="noisy"):
            one.shelf = (self.bench.now, self.bench.now + seconds * 1000, one_shot)
            self.paper.review()
        self.after()

    @rule(key=KEYS)
    def unshelve(self, key):
        one = self.paper.alarms[key]
        if self.act(one.shelf is not None, "unshelve_alarm", key=key):
            one.shelf = None
            self.paper.review()
        self.after()

    @rule(key=st.one_of(st.just(""), KEYS))
    def take_out_of_service(self, key):
        may = not (self.paper.alarms[key].out if key else self.paper.device_out)
        if self.act(may, "out_of_service", key=key, reason="replaced"):
            self.set_out(key, out=True)

    @precondition(lambda self: self.paper.device_out or any(one.out for one in self.paper.alarms.values()))
    @rule(key=st.one_of(st.just(""), KEYS))
    def put_back_into_service(self, key):
        may = self.paper.alarms[key].out if key else self.paper.device_out
        if self.act(may, "in_service", key=key):
            self.set_out(key, out=False)

    # --- how it is done -------------------------------------------------------------------------------------------

    def conditions(self):
        return {
            "hot": self.reading["celsius"] > 80.0, "slow": self.reading["volts"] < 3.0, "child": self.reading["open"],
            "broken": self.broken,
        }  # fmt: skip

    def says(self, at):
        self.bench.reading(at=at, **self.reading)
        self.bench.lane.last_heard_at = self.bench.now
        self.paper.look(self.conditions(), at)
        self.after()

    def heard(self):
        self.bench.lane.last_heard_at = self.bench.now

    def pass_time(self, seconds, *, hearing):
        while seconds > 0:
            step = min(seconds, 15)
            seconds -= step
            self.bench.clock.advance(seconds=step)
            if hearing:
                self.bench.lane.data_at = self.bench.now
                self.bench.heard()
            self.after(check=False)
        self.after()

    def set_out(self, key, *, out):
        if key:
            self.paper.alarms[key].out = out
        else:
            self.paper.device_out = out
        self.paper.review()
        self.after()

    def alarm_id(self, key):
        status = self.bench.lane.desk.alarms.get(key)
        return status.alarm_id if status else "none"

    def act(self, may, name, **arguments):
        self.bench.clock.advance(seconds=1)
        self.paper.now = self.bench.now
        try:
            self.bench.intent(name, **arguments)
            done = True
        except IntentRefusedError:
            done = False
        assert done is may, f"{name} {arguments}"
        return done

    def after(self, *, check=True):
        self.bench.fire()
        desk = self.bench.lane.desk
        silence = desk.alarms.get(SILENT)
        self.paper.now = self.bench.now
        self.paper.silent = holds(desk, SILENT) and silence.state in ALARM_TRUE
        self.paper.review()
        self.paper.tick()
        decided = self.bench.take()
        own = [change.definition.key for change in decided.alarms if is_news(change)]
        own += [change.definition.key for change in decided.views if is_shown_again(change)]
        told = sorted(key for key in own if key in ORDER)
        assert told == sorted(self.paper.told), "what people are told"
        self.paper.told.clear()
        if check:
            for key, one in self.paper.alarms.items():
                status = desk.alarms.get(key)
                if status is not None:
                    assert (key, status.state, status.view.value) == (key, one.state, one.view)
                else:
                    assert one.state is AlarmState.NORMAL

    @invariant()
    def nothing_is_hidden_without_a_reason_or_for_ever(self):
        desk = self.bench.lane.desk
        for key, status in desk.alarms.items():
            if status.shelf is not None:
                assert status.shelf.until - self.bench.now <= LONGEST_MS
            if key in BY_KEY and not BY_KEY[key].suppressed_by and not desk.out_of_service and not status.shelf:
                assert status.view is AlarmView.SHOWN


TestAlarmMachine = AlarmMachine.TestCase
TestAlarmMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
