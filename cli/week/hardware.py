"""The devices of the week: simulated hardware, the real drivers, and links that come and go.

Wire, journal and broker are left out (`fleet simulate` and `fleet chaos` prove those): what the driver made of the
bytes reaches the cloud at once while the link is up, and together when it is back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import devices
from cli.week.agenda import Agenda
from cli.week.plan import FACTS, MONDAY_MS, WeekPlan
from firmware_sim.scenario import QUIET, Scenario
from firmware_sim.truth import TruthUnwritten
from firmware_sim.world import World
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.envelope import Lane, Status
from fleet.kind import Driver, DriverOutput
from fleet.messages import Command

HELD_MAX: Final = 5_000
"""Outputs that wait for a link; beyond, the oldest readings go, as in the journal."""
KEEP_ALIVE_FACTOR: Final = 1.5
"""A broker misses a client after so many keep-alives (MQTT 5, 3.1.2.10)."""
RECONNECT_S_MAX: Final = 15.0
"""Full jitter of `edge.reconnect`."""
SLACK_MS: Final = 5_000

Heard = Callable[[str, DriverOutput], None]


@dataclass(slots=True)
class Unit:
    """One device on its line."""

    device_id: str
    kind: str
    driver: Driver
    interval_ms: int
    """The step of its world; where that is longer than its kind's own interval, it is heard in between as well."""
    is_thinned: bool
    link_up: bool = True
    outages: int = 0
    connection: int = 1
    last_output_ms: int = 0
    held: list[DriverOutput] = field(default_factory=list)
    driver_due_ms: int | None = None


class Hardware:
    """All of them. `on_output(device id, output)`, `on_status(status)` and `on_beat(device id, ms)` tell the cloud."""

    def __init__(self, plan: WeekPlan, agenda: Agenda, now_ms: Callable[[], int], randomness: Any) -> None:
        scenario = Scenario(name="week", description="docs/week.md", facts={**QUIET.facts, **FACTS})
        kinds = tuple(sorted(plan.counts))
        self.world = World(kinds, plan.counts, plan.seed, MONDAY_MS, scenario, truth=TruthUnwritten())
        self.on_output: Heard = lambda _device_id, _output: None
        self.on_status: Callable[[Status], None] = lambda _status: None
        self.on_beat: Callable[[str, int], None] = lambda _device_id, _at_ms: None
        self._agenda = agenda
        self._now_ms = now_ms
        self._randomness = randomness
        self._commands = 0
        self.units: dict[str, Unit] = {}
        for device_id in self.world.device_ids:
            kind = devices.kind_named(self.world.kind_of(device_id))
            own_ms = round(kind.reading_interval_s * MILLISECONDS_PER_SECOND)
            step_ms = round(float(FACTS["reading_interval_s"]) * MILLISECONDS_PER_SECOND)
            thinned = own_ms < step_ms
            driver: Driver = devices.role(kind.name, "driver").create(device_id)
            unit = Unit(device_id, kind.name, driver, step_ms if thinned else own_ms, thinned)
            self.units[device_id] = unit
            self.world.line(device_id).attach(partial(self._on_bytes, unit))

    def start(self) -> None:
        """Every driver opens its line."""
        for unit in self.units.values():
            self._take(unit, unit.driver.on_start(self._now_ms()))
            self.on_status(Status(unit.device_id, 1, unit.connection, online=True))

    def heard_until(self, device_id: str) -> int:
        """Up to when heartbeats that the week does not play are certain (business ms); 0 where they are not."""
        unit = self.units[device_id]
        next_ms = unit.last_output_ms + unit.interval_ms
        fresh = self._now_ms() <= next_ms + SLACK_MS
        return max(self._now_ms(), next_ms) if unit.is_thinned and unit.link_up and fresh else 0

    # --- the line ----------------------------------------------------------------------------------------------

    def _on_bytes(self, unit: Unit, data: bytes) -> None:
        unit.last_output_ms = now_ms = self._now_ms()
        self._take(unit, unit.driver.on_bytes(data, now_ms))

    def _take(self, unit: Unit, output: DriverOutput) -> None:
        line = self.world.line(unit.device_id)
        line.from_driver(output.to_hardware)
        line.from_driver(output.after_commit)
        if output.readings or output.events:
            if unit.link_up:
                self._deliver(unit, output)
            else:
                self._hold(unit, output)
        due_ms = unit.driver.next_due_ms
        if due_ms is not None and due_ms != unit.driver_due_ms:
            unit.driver_due_ms = due_ms
            self._agenda.at(due_ms, partial(self._on_driver_due, unit, due_ms))

    def _on_driver_due(self, unit: Unit, due_ms: int) -> None:
        if unit.driver_due_ms == due_ms:
            unit.driver_due_ms = None
            self._take(unit, unit.driver.on_timer(due_ms))

    def _deliver(self, unit: Unit, output: DriverOutput) -> None:
        self.on_output(unit.device_id, output)
        for _, event in output.events:
            if event.lane is Lane.EMERGENCY:
                self._agenda.at(self._now_ms(), partial(self._acknowledged, unit, event))

    def _acknowledged(self, unit: Unit, event: Any) -> None:
        if unit.link_up:
            self._take(unit, unit.driver.on_acknowledged(event, self._now_ms()))

    @staticmethod
    def _hold(unit: Unit, output: DriverOutput) -> None:
        if len(unit.held) >= HELD_MAX:
            oldest = next((index for index, held in enumerate(unit.held) if not held.events), 0)
            del unit.held[oldest]
        unit.held.append(output)

    # --- people and faults -------------------------------------------------------------------------------------

    def act(self, device_id: str, action: str, **arguments: Any) -> None:
        """Somebody, or a fault, does something to a device."""
        self.world.act(device_id, action, **arguments)

    def snapshot(self, device_id: str) -> Mapping[str, Any]:
        """Its true state."""
        return self.world.snapshot(device_id)

    def command(self, device_id: str, command: Command) -> str:
        """A verified command arrives at the device; its id. Lost while the link is down, as it would expire."""
        unit = self.units[device_id]
        self._commands += 1
        command_id = f"{self._commands:032x}"
        if unit.link_up:
            self._take(unit, unit.driver.on_command(command_id, command, self._now_ms()))
        return command_id

    def lose_link(self, device_id: str, for_s: float) -> None:
        """The link is gone for so long; then the box connects again at its turn. The broker misses it after a while."""
        unit = self.units[device_id]
        now_ms = self._now_ms()
        if self.heard_until(device_id):
            self.on_beat(device_id, now_ms)
        unit.link_up = False
        unit.outages += 1
        outage = unit.outages
        keep_alive_s = devices.kind_named(unit.kind).keep_alive_s
        missed_ms = now_ms + round(min(for_s, KEEP_ALIVE_FACTOR * keep_alive_s) * MILLISECONDS_PER_SECOND)
        back_s = for_s + self._randomness.uniform(0.0, RECONNECT_S_MAX)
        self._agenda.at(missed_ms, partial(self._missed, unit, unit.connection))
        self._agenda.at(now_ms + round(back_s * MILLISECONDS_PER_SECOND), partial(self._link_back, unit, outage))

    def _missed(self, unit: Unit, connection: int) -> None:
        self.on_status(Status(unit.device_id, 1, connection, online=False))

    def _link_back(self, unit: Unit, outage: int) -> None:
        if unit.outages != outage:  # a later loss began before this one was over
            return
        unit.link_up = True
        unit.connection += 1
        self.on_status(Status(unit.device_id, 1, unit.connection, online=True))
        held, unit.held = unit.held, []
        for output in held:
            self._deliver(unit, output)
