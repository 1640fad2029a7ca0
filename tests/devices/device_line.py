"""A driver and a simulator joined by an in-memory line on virtual time, which may damage what it carries."""

import random
from dataclasses import dataclass, field
from typing import Any

import devices
from fleet.kind import DriverOutput, Progress, SimulatorOutput, Truth
from fleet.messages import Command, Event, Reading

STARTED_MS = 1_800_000_000_000
STEPS_MAX = 50_000


@dataclass
class Damage:
    """Seeded damage per written chunk."""

    randomness: random.Random
    drop_probability: float = 0.0
    corrupt_probability: float = 0.0

    def apply(self, data: bytes) -> bytes:
        chance = self.randomness.random()
        position = self.randomness.randrange(len(data))
        if chance < self.drop_probability:
            return data[:position] + data[position + self.randomness.randint(1, 6) :]
        if chance < self.drop_probability + self.corrupt_probability:
            return (
                data[:position] + bytes((data[position] ^ (1 << self.randomness.randrange(8)),)) + data[position + 1 :]
            )
        return data


@dataclass
class Line:
    """One device: run it with `run`, and read what came out of either end."""

    kind_name: str
    seed: int = 1
    damage: Damage = field(default_factory=lambda: Damage(random.Random(0)))
    now_ms: int = STARTED_MS
    readings: list[Reading] = field(default_factory=list)
    events: list[tuple[int, Event]] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    truths: list[Truth] = field(default_factory=list)
    wire: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        role = devices.role(self.kind_name, "simulator")
        randomness = random.Random(self.seed)
        device_id = f"{devices.kind_named(self.kind_name).id_prefix}-001"
        site = role.sites(3, randomness)[0]
        self.simulator: Any = role.create(device_id, randomness, site, STARTED_MS)
        self.driver: Any = devices.role(self.kind_name, "driver").create(device_id)
        self._from_driver(self.driver.on_start(self.now_ms))

    def command(self, command_id: str, command: Command) -> None:
        self._from_driver(self.driver.on_command(command_id, command, self.now_ms))

    def act(self, action: str, **arguments: Any) -> None:
        self._from_simulator(self.simulator.act(action, self.now_ms, **arguments))

    def run(self, seconds: float) -> None:
        """Let both ends work for so long."""
        end_ms = self.now_ms + round(seconds * 1_000)
        for _ in range(STEPS_MAX):
            driver_due_ms = self.driver.next_due_ms
            due_ms = min(self.simulator.next_due_ms, end_ms + 1 if driver_due_ms is None else driver_due_ms)
            if due_ms > end_ms:
                break
            self.now_ms = max(self.now_ms, due_ms)
            self._from_simulator(self.simulator.advance(self.now_ms))
            driver_due_ms = self.driver.next_due_ms
            if driver_due_ms is not None and driver_due_ms <= self.now_ms:
                self._from_driver(self.driver.on_timer(self.now_ms))
        else:
            raise AssertionError(f"{self.kind_name}: more than {STEPS_MAX} steps; something is due again and again")
        self.now_ms = end_ms
        self._from_simulator(self.simulator.advance(end_ms))

    def _from_driver(self, output: DriverOutput) -> None:
        self.readings += output.readings
        self.events += output.events  # this is the commit
        self.progress += output.progress
        for data in (output.to_hardware, output.after_commit):
            if data:
                self.wire.append(b">" + data)
                arriving = self.damage.apply(data)
                if arriving:
                    self._from_simulator(self.simulator.on_bytes(arriving, self.now_ms))

    def _from_simulator(self, output: SimulatorOutput) -> None:
        self.truths += output.truths
        if output.to_driver:
            self.wire.append(b"<" + output.to_driver)
            arriving = self.damage.apply(output.to_driver)
            if arriving:
                self._from_driver(self.driver.on_bytes(arriving, self.now_ms))


def condition_holds(condition: Any, state: Any) -> bool:
    """Whether an alarm's condition is true of a state now, without delays and deadband."""
    from fleet.kind import Flag, Threshold

    if isinstance(condition, Threshold):
        if state.reading is None:
            return False
        value = getattr(state.reading, condition.field)
        if value is None:
            return False
        return value > condition.above if condition.above is not None else value < condition.below
    if isinstance(condition, Flag):
        return state.reading is not None and bool(getattr(state.reading, condition.field) == condition.value)
    return bool(condition.predicate(state))
