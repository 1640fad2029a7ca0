"""What a kind of device must offer. A kind is one folder under `devices/`; nothing else names it.

| file | exports | used by |
|---|---|---|
| `kind.py` | `KIND: Kind` | everybody |
| `messages.py` | pydantic models, listed in `KIND` | everybody |
| `frames.py` | bytes on the wire to the hardware | driver and simulator |
| `driver.py` | `create(device_id) -> Driver` | edge |
| `state.py` | `State`, `initial`, `apply_reading`, `apply_event` (see `StateRole`) | cloud |
| `rules.py` | `ALARMS`, `needs`, optional `call_step` (see `RulesRole`) and `SENSORS` (see `fleet.sensors`) | cloud |
| `simulator.py` | `create(device_id, randomness, site, started_ms)`, `sites(count, randomness)` | firmware_sim |
| `panels.py` | `PANELS`, optional `DEVICE_PANELS` (see `fleet.panel`) | dashboards |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, Protocol

import msgspec

from fleet.incident import Priority
from fleet.messages import Command, Event, Reading, Reason, ReplyStatus
from fleet.panel import Panel as Panel  # noqa: PLC0414  # what a kind offers is imported from here
from fleet.randomness import Randomness
from fleet.text import Text as Text  # noqa: PLC0414


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind's identity, its messages and its rhythm. Times in business seconds.

    `silent_after_s`: without any message for so long the device counts as silent.
    `reading_interval_s`: how often it reports when nothing happens.
    `id_prefix`: device ids are `<id_prefix>-001` … in the demo and the simulators.
    """

    name: str
    title: Text
    id_prefix: str
    reading: type[Reading]
    events: tuple[type[Event], ...]
    commands: tuple[type[Command], ...]
    reading_interval_s: float
    silent_after_s: float
    keep_alive_s: int = 60
    readings_per_message: int = 1
    emergency: bool = False
    """Whether it has a button by which people call for help."""
    demo_count: int = 3
    """How many of them the demo runs."""

    def event_type(self, name: str) -> type[Event]:
        """Event model by its `type`; raises KeyError."""
        return {literal_of(model, "type"): model for model in self.events}[name]

    def command_type(self, name: str) -> type[Command]:
        """Command model by its `action`; raises KeyError."""
        return {literal_of(model, "action"): model for model in self.commands}[name]


def literal_of(model: type[Event] | type[Command], tag: str) -> str:
    """The single value of a model's `type` or `action` field."""
    annotation = model.model_fields[tag].annotation
    (value,) = annotation.__args__  # type: ignore[union-attr]  # a Literal with one value; conformance test
    return str(value)


# --- state (cloud) ---------------------------------------------------------------------------------------------


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is now, as far as the cloud knows. Kinds subclass it in `state.py`; it is stored as JSON.

    `reading` is the latest reading: a pydantic model or the hot path's derived struct, so read it by attribute.
    """

    device_id: str
    reading: Any = None


class StateRole(Protocol):
    """Module `state.py`: pure functions, state in and state out."""

    State: type[DeviceState]

    def initial(self, device_id: str) -> DeviceState: ...
    def apply_reading(self, state: Any, reading: Any) -> DeviceState: ...
    def apply_event(self, state: Any, event: Any, occurred_at: int) -> DeviceState: ...


# --- rules (cloud) ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Threshold:
    """True beyond a limit of a measured field; once true, until the reading is back by `deadband`.

    Exactly one of `above` and `below` is set. Boards draw the same numbers.
    """

    field: str
    above: float | None = None
    below: float | None = None
    deadband: float = 0.0


@dataclass(frozen=True, slots=True)
class Flag:
    """True while a field of the latest reading equals `value`."""

    field: str
    value: Any = True


@dataclass(frozen=True, slots=True)
class When:
    """True while the predicate over the kind's state holds."""

    predicate: Callable[[Any], bool]


Condition = Threshold | Flag | When

Skill = Literal["repair", "restock", "battery", "rebalance", "inspection"]


NOT_HEARD: Final = ("silent", "no_readings")
"""Keys of the alarms that every kind has (`cloud.rules.conditions`) while which nothing new is known of a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmDefinition:
    """One alarm of a kind: an alarm without an action for a person is no alarm.

    `on_delay_s` / `off_delay_s`: the condition must hold (or be gone) for so long, in the readings' own time.
    `skill`: makes one work order for this skill per occurrence; None tells people only.
    `realarm_s`: people are told again while it is true, so long after they were told or somebody acknowledged it.
    `latching`: once true it stays until somebody says that the device was inspected on site.
    `suppressed_by`: keys of alarms of the same device; while one of them is true, this one is hidden (it follows
    from it, or cannot be trusted), and is announced again if it is still true afterwards.
    """

    key: str
    title: Text
    priority: Priority
    condition: Condition
    cause: Text
    consequence: Text
    action: Text
    respond_within_s: float
    on_delay_s: float = 0.0
    off_delay_s: float = 0.0
    skill: Skill | None = None
    realarm_s: float | None = None
    latching: bool = False
    suppressed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Work the state asks for (a restock, a battery swap). One order per `cause`, however often it is returned."""

    cause: str
    skill: Skill
    title: Text
    priority: Priority
    due_within_s: float
    items: Mapping[str, int] = field(default_factory=dict)
    """What to bring: article → count."""


class CallStep(StrEnum):
    """What an event means for the emergency call at its origin."""

    PRESS = "press"
    ATTEND = "attend"
    CLEAR_AT_ORIGIN = "clear_at_origin"


class RulesRole(Protocol):
    """Module `rules.py`."""

    ALARMS: tuple[AlarmDefinition, ...]

    def needs(self, state: Any, now_ms: int) -> Sequence[Need]:
        """Work wanted in this state; called after every message and timer of the device."""
        ...

    def call_steps(self) -> Mapping[str, CallStep]:
        """Event type → step of the emergency call; empty for kinds without a button."""
        ...

    def call_feedback(self, state: Any, *, acknowledged: bool) -> Command | None:
        """Command that shows the caller how far help is (received / coming); None without such lights.

        It names the press it is for, as `state` knows it: one that comes late must not answer a newer press.
        """
        ...


# --- driver (edge) ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the hardware came with a command."""

    command_id: str
    status: ReplyStatus
    reason: Reason = ""


@dataclass(frozen=True, slots=True)
class DriverOutput:
    """What the driver made of its input.

    `to_hardware` is written at once. `after_commit` is written only after every event in `events` is in
    the journal: it holds the line acknowledgements, so the hardware repeats what a crash lost.
    """

    readings: tuple[Reading, ...] = ()
    events: tuple[tuple[int, Event], ...] = ()
    """(occurred_at in ms, event)."""
    progress: tuple[Progress, ...] = ()
    to_hardware: bytes = b""
    after_commit: bytes = b""


class Driver(Protocol):
    """Bytes ↔ messages for one device; pure. One instance per hardware line."""

    frame_errors: int
    """Frames discarded for a wrong checksum or length since the start."""

    def on_start(self, now_ms: int) -> DriverOutput:
        """The line was opened: ask the hardware for its state."""
        ...

    def on_bytes(self, data: bytes, now_ms: int) -> DriverOutput:
        """Any part of a byte stream, including half frames and noise."""
        ...

    def on_command(self, command_id: str, command: Command, now_ms: int) -> DriverOutput:
        """Carry out a verified command; progress may come at once or with later bytes."""
        ...

    def on_acknowledged(self, event: Event, now_ms: int) -> DriverOutput:
        """The cloud committed this emergency event (a room then shows "received")."""
        ...

    def on_timer(self, now_ms: int) -> DriverOutput:
        """Called when `next_due_ms` is reached: time-outs, polling."""
        ...

    @property
    def next_due_ms(self) -> int | None:
        """When `on_timer` wants to be called, business ms."""
        ...


# --- simulator (firmware_sim) ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Site:
    """Where a device stands (or starts): WGS-84, name and any facts a kind wants."""

    latitude: float
    longitude: float
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Truth:
    """One line of the simulator's own log, written before the edge can see it.

    `event_id` is set when the hardware will report it as an event; `facts` are the values it will report.
    """

    at_ms: int
    device_id: str
    what: str
    event_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimulatorOutput:
    """Bytes towards the driver, and what truly happened."""

    to_driver: bytes = b""
    truths: tuple[Truth, ...] = ()


class Simulator(Protocol):
    """The hardware of one device and the people around it; pure and seeded.

    Same seed, same calls at the same times → same bytes. Hardware keeps an unacknowledged event and
    repeats it until the driver acknowledges it on the line.
    """

    ACTIONS: ClassVar[tuple[str, ...]]
    """What a person can do to it (`press`, `close_lock`, `open_door` …)."""

    def advance(self, now_ms: int) -> SimulatorOutput:
        """Let physics and people go on until `now_ms`."""
        ...

    def on_bytes(self, data: bytes, now_ms: int) -> SimulatorOutput:
        """Bytes the driver wrote."""
        ...

    def act(self, action: str, now_ms: int, **arguments: Any) -> SimulatorOutput:
        """A person or a fault does something now; raises ValueError for an unknown action."""
        ...

    @property
    def next_due_ms(self) -> int:
        """When `advance` has something to do, business ms."""
        ...

    def snapshot(self) -> Mapping[str, Any]:
        """The true physical state, for comparing with what the cloud believes."""
        ...


class SimulatorRole(Protocol):
    """Module `simulator.py`."""

    def sites(self, count: int, randomness: Randomness) -> Sequence[Site]: ...
    def create(self, device_id: str, randomness: Randomness, site: Site, started_ms: int) -> Simulator: ...
