"""A kind made for the tests of the rules, and a bench that plays time."""

import sys
import types
from typing import Any, ClassVar, Literal

import devices
from cloud.model import Accepted, Decisions, Intent
from cloud.rules.stage import Rules
from cloud.twin.stage import Twin
from fleet.clock import ManualClock
from fleet.envelope import Lane
from fleet.incident import Priority
from fleet.kind import AlarmDefinition, CallStep, DeviceState, Flag, Kind, Need, Text, Threshold, When
from fleet.messages import Event, Reading
from fleet.units import labelled, measured
from tests.device_messages import NOW_MS, hex_id

WORDS = Text("词", "word")
SILENT_AFTER_S = 40.0


class ProbeReading(Reading):
    celsius: float = measured("celsius", -50, 150, zh="温度", en="Temperature")
    volts: float | None = labelled(zh="电压", en="Voltage", default=None)
    open: bool = labelled(zh="开", en="Open", default=False)


class Pressed(Event):
    lane: ClassVar[Lane] = Lane.EMERGENCY
    type: Literal["pressed"] = "pressed"


class Attended(Event):
    lane: ClassVar[Lane] = Lane.EMERGENCY
    type: Literal["attended"] = "attended"


class Cleared(Event):
    lane: ClassVar[Lane] = Lane.EMERGENCY
    type: Literal["cleared"] = "cleared"


class Broken(Event):
    type: Literal["broken"] = "broken"


class Mended(Event):
    type: Literal["mended"] = "mended"


class State(DeviceState, frozen=True, kw_only=True):
    broken: bool = False


def definition(key: str, condition: Any, **timing: Any) -> AlarmDefinition:
    return AlarmDefinition(
        key=key, title=WORDS, priority=Priority.HIGH, condition=condition, cause=WORDS, consequence=WORDS, action=WORDS,
        respond_within_s=60, **timing,
    )  # fmt: skip


ALARMS = (
    definition("hot", Threshold("celsius", above=80.0, deadband=10.0)),
    definition("cold", Threshold("celsius", below=-10.0, deadband=5.0)),
    definition("warm_for_long", Threshold("celsius", above=50.0), on_delay_s=600.0),
    definition("open", Flag("open"), off_delay_s=120.0),
    definition("broken", When(lambda state: state.broken)),
    definition("low", Threshold("volts", below=3.0)),
)
EVENTS = (Pressed, Attended, Cleared, Broken, Mended)
STEPS = {"pressed": CallStep.PRESS, "attended": CallStep.ATTEND, "cleared": CallStep.CLEAR_AT_ORIGIN}


def _apply_event(state: State, event: Any, _occurred_at: int) -> State:
    if event.type in {"broken", "mended"}:
        return State(device_id=state.device_id, reading=state.reading, broken=event.type == "broken")
    return state


def _needs(state: State, _now_ms: int) -> tuple[Need, ...]:
    reading = state.reading
    wanted = []
    if reading is not None and reading.celsius > 100:
        wanted.append(Need(cause="cool", skill="repair", title=WORDS, priority=Priority.LOW, due_within_s=60))
    if state.broken:
        wanted.append(Need(cause="mend", skill="repair", title=WORDS, priority=Priority.LOW, due_within_s=60))
    return tuple(wanted)


def _module(name: str, **content: Any) -> None:
    module = types.ModuleType(f"devices.probe.{name}")
    module.__dict__.update(content)
    sys.modules[module.__name__] = module


KIND = Kind(
    name="probe", title=WORDS, id_prefix="probe", reading=ProbeReading, events=EVENTS, commands=(),
    reading_interval_s=15, silent_after_s=SILENT_AFTER_S, emergency=True,
)  # fmt: skip


def make_stages(alarms: tuple[AlarmDefinition, ...] = ALARMS) -> tuple[Twin, Rules]:
    """Both stages for the probe, which is found the way every kind is found."""
    _module("__init__")
    package = types.ModuleType("devices.probe")
    package.__path__ = []
    sys.modules["devices.probe"] = package
    _module(
        "state",
        State=State,
        initial=lambda device_id: State(device_id=device_id),
        apply_reading=lambda state, reading: State(device_id=state.device_id, reading=reading, broken=state.broken),
        apply_event=_apply_event,
    )
    _module("rules", ALARMS=alarms, needs=_needs, call_steps=lambda: STEPS, call_feedback=lambda _state, **_: None)
    devices.kinds()
    devices.kinds_cache["probe"] = KIND
    try:
        kinds = {"probe": KIND}
        return Twin(kinds), Rules(kinds)
    finally:
        devices.kinds_cache.clear()


class Bench:
    """One probe, its rules and a clock; timers fire when they are due, as the pipeline lets them."""

    def __init__(self, alarms: tuple[AlarmDefinition, ...] = ALARMS) -> None:
        self.clock = ManualClock(NOW_MS)
        self.twin, self.rules = make_stages(alarms)
        self.lane = self.twin.new_lane("probe-001", "probe")
        self.lane.desk = self.rules.new_desk()
        self.listening_since: int | None = NOW_MS
        self.decided = Decisions()
        self._numbers = 0
        self._places: dict[str, int] = {}

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    def reading(self, at: int | None = None, **fields: Any) -> None:
        at = self.now if at is None else at
        reading = ProbeReading(at=at, **{"celsius": 20.0, **fields})
        self.twin.on_reading(self.lane, reading, self.now)
        self.rules.on_reading(self.lane, at, self.now, self.decided)

    def event(self, of: type[Event], at: int | None = None, event_id: str | None = None, *, early: bool = False) -> str:
        self._numbers += 1
        identity = event_id or hex_id(self._numbers)
        place = self._numbers + (1_000 if early else 0)
        envelope = types.SimpleNamespace(occurred_at=self.now if at is None else at, boot_epoch=1, seq=place)
        self._places[identity] = place
        accepted = Accepted(self.lane, envelope, b"", event=of(event_id=identity), early=early)  # type: ignore[call-arg]
        self.twin.on_event(accepted, self.now)
        self.rules.on_event(accepted, self.now, self.decided)
        return identity

    def repeat(self, of: type[Event], event_id: str) -> None:
        """An event that is stored already comes in its turn."""
        self._numbers = max(self._numbers, self._places[event_id])
        envelope = types.SimpleNamespace(occurred_at=self.now, boot_epoch=1, seq=self._places[event_id])
        accepted = Accepted(self.lane, envelope, b"", event=of(event_id=event_id))  # type: ignore[call-arg]
        self.rules.on_repeat(accepted, self.now, self.decided)

    def heard(self) -> None:
        self.lane.last_heard_at = self.now
        self.rules.on_heard(self.lane, self.now, self.decided)

    def intent(self, name: str, actor: str = "p1", **arguments: Any) -> dict[str, Any]:
        item = Intent(hex_id(name), self.lane.device_id, name, actor, arguments, self.now)
        return self.rules.on_intent(self.lane, item, self.now, self.decided)

    def wait(self, seconds: float, *, hearing: bool = True) -> None:
        """Let time pass in small steps; `hearing` keeps the device alive: heard, with unchanged readings."""
        end = self.now + round(seconds * 1000)
        while self.now < end:
            self.clock.advance(seconds=min(1.0, (end - self.now) / 1000))
            if hearing:
                self.lane.data_at = self.now
                self.heard()
            self.fire()

    def fire(self) -> None:
        due = self.rules.next_due(self.lane, self.listening_since)
        rounds = 0
        while due is not None and due <= self.now:
            rounds += 1
            assert rounds < 20, "a timer that is due for ever would keep the ingester busy"
            self.rules.on_timer(self.lane, self.now, self.listening_since, self.decided)
            due = self.rules.next_due(self.lane, self.listening_since)

    def restart(self, *, seconds: float = 0.0) -> None:
        """A new process loads what the old one stored; nothing else survives."""
        row = self.rules.encode_desk(self.lane.desk)
        state = self.twin.encode_state(self.lane.state)
        self.clock.advance(seconds=seconds)
        self.listening_since = self.now
        self.lane.desk = self.rules.decode_desk("probe", row)
        self.lane.state = self.twin.decode_state("probe", state)

    def take(self) -> Decisions:
        """What was decided since the last time."""
        decided, self.decided = self.decided, Decisions()
        return decided

    def alarms(self) -> list[tuple[str, str]]:
        return [(change.definition.key, change.event.value) for change in self.take().alarms]

    def calls(self) -> list[tuple[str, int | None]]:
        return [(change.after.value, change.escalation) for change in self.take().calls]
