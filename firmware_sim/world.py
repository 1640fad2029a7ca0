"""Many simulated devices on one clock.

A world is single-threaded and synchronous. Per device, things happen in this order: the simulator says what
happened and which bytes it wrote; the bytes pass the line's faults; the truth is written to the sink; the
bytes are delivered. A driver that answers at once is served after that, never in the middle of it. Devices
do not influence each other, so the same seed and the same inputs at the same times give the same bytes.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import devices
from firmware_sim.line import LineFault, MemoryLine
from firmware_sim.scenario import Scenario, scenario_named
from firmware_sim.script import Script
from firmware_sim.truth import LineState, TruthLine, TruthListener, TruthMemory, TruthSink, TruthUnwritten, encode_line
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.kind import Simulator, SimulatorOutput, SimulatorRole, Site, Truth

STALLED_STEPS_MAX: Final = 1_000
INBOX_CHUNKS_MAX: Final = 100_000


class WorldError(RuntimeError):
    """A simulator or a driver does not keep its contract, or a device is not known."""


@dataclass(slots=True)
class _Unit:
    """One device: its simulator, its line and what the line does to the bytes."""

    device_id: str
    kind: str
    site: Site
    simulator: Simulator
    line: MemoryLine
    to_driver_fault: LineFault
    from_driver_fault: LineFault
    now_ms: int
    scheduled_ms: int = -1
    stalled_steps: int = 0


class World:
    """`counts` devices of each of `kinds` (without counts: as many as the demo runs), alive since `started_ms`.

    Args:
        kinds: names of kinds.
        counts: kind → number of devices.
        seed: the same seed gives the same world.
        started_ms: business ms at which it begins.
        scenario: a `Scenario` or the name of one.
        truth: takes the truth log; in memory by default.
        listener: hears the truth as it is; then no log is written.
        clock: real time for `from_driver`, `act` and the log's `real_s`; without one the world runs on virtual time.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        counts: Mapping[str, int],
        seed: int,
        started_ms: int,
        scenario: Scenario | str = "quiet",
        *,
        truth: TruthSink | None = None,
        listener: TruthListener | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.seed = seed
        self.started_ms = self._now_ms = started_ms
        self.scenario = scenario_named(scenario) if isinstance(scenario, str) else scenario
        self.truth: TruthSink = TruthMemory() if truth is None else truth
        self._listener = listener
        self.steps = 0
        self._is_logged = not isinstance(self.truth, TruthUnwritten)
        self._clock = clock
        self._units: dict[str, _Unit] = {}
        self._due: list[tuple[int, str]] = []
        self._inbox: deque[tuple[_Unit, bytes]] = deque()
        self._busy = False
        for kind in kinds:
            self._add_kind(kind, counts.get(kind, devices.kind_named(kind).demo_count))
        self._script = Script(self.scenario, seed, started_ms, self)

    def _add_kind(self, kind: str, count: int) -> None:
        role: SimulatorRole = devices.role(kind, "simulator")
        prefix = devices.kind_named(kind).id_prefix
        places = role.sites(count, random.Random(f"{self.seed}:{kind}:sites"))
        for number, place in enumerate(places, start=1):
            device_id = f"{prefix}-{number:03d}"
            site = Site(place.latitude, place.longitude, place.name, {**place.facts, **self.scenario.facts})
            randomness = random.Random(f"{self.seed}:{device_id}")
            unit = _Unit(
                device_id=device_id,
                kind=kind,
                site=site,
                simulator=role.create(device_id, randomness, site, self.started_ms),
                line=MemoryLine(device_id, partial(self._from_driver, device_id)),
                to_driver_fault=self._fault(device_id, "to_driver"),
                from_driver_fault=self._fault(device_id, "from_driver"),
                now_ms=self.started_ms,
            )
            self._units[device_id] = unit
            self._schedule(unit)

    def _fault(self, device_id: str, direction: str) -> LineFault:
        return LineFault(self.scenario.line_faults, random.Random(f"{self.seed}:{device_id}:{direction}"))

    # --- what there is ---

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Every device, kind by kind."""
        return tuple(self._units)

    @property
    def now_ms(self) -> int:
        """Business time up to which the world has been advanced."""
        return self._now_ms

    def kind_of(self, device_id: str) -> str:
        """The device's kind."""
        return self._unit(device_id).kind

    def site(self, device_id: str) -> Site:
        """Where it stands, with the scenario's facts laid over its own."""
        return self._unit(device_id).site

    def line(self, device_id: str) -> MemoryLine:
        """Its line, to attach a driver to."""
        return self._unit(device_id).line

    def snapshot(self, device_id: str) -> Mapping[str, Any]:
        """Its true physical state."""
        return self._unit(device_id).simulator.snapshot()

    def actions(self, device_id: str) -> tuple[str, ...]:
        """What a person can do to it."""
        return self._unit(device_id).simulator.ACTIONS

    @property
    def damaged_bytes(self) -> int:
        """Bytes dropped or altered on all lines so far."""
        return sum(
            fault.damaged_bytes
            for unit in self._units.values()
            for fault in (unit.to_driver_fault, unit.from_driver_fault)
        )

    @property
    def unacknowledged_events(self) -> int:
        """Events that the hardware still keeps, because no driver has taken them over."""
        held = (unit.simulator.snapshot().get("unacknowledged_events", 0) for unit in self._units.values())
        return sum(events if isinstance(events, int) else len(events) for events in held)

    def _unit(self, device_id: str) -> _Unit:
        try:
            return self._units[device_id]
        except KeyError:
            raise WorldError(f"there is no device {device_id!r} in this world") from None

    # --- time ---

    @property
    def next_due_ms(self) -> int | None:
        """When something happens next; None in a world without devices."""
        while self._due and self._units[self._due[0][1]].scheduled_ms != self._due[0][0]:
            heapq.heappop(self._due)  # overtaken by a later schedule of the same device
        due = [self._due[0][0]] if self._due else []
        if self._script.next_due_ms is not None:
            due.append(self._script.next_due_ms)
        return min(due, default=None)

    def advance(self, now_ms: int, *, steps_max: int | None = None) -> bool:
        """Let everything due by `now_ms` happen, in the order of its time; False if `steps_max` cut it short."""
        steps = 0
        while (due_ms := self.next_due_ms) is not None and due_ms <= now_ms:
            if steps_max is not None and steps >= steps_max:
                return False
            self._now_ms = max(self._now_ms, due_ms)
            if self._script.next_due_ms is not None and self._script.next_due_ms <= due_ms:
                self._script.advance(due_ms)
            else:
                self._advance_unit(self._units[heapq.heappop(self._due)[1]], due_ms)
            steps += 1
        self._now_ms = max(self._now_ms, now_ms)
        return True

    def end_script(self) -> None:
        """No more happenings and errands; people and hardware go on by themselves."""
        self._script.end()

    def run_virtual(self, until_ms: int) -> None:
        """Pure simulation up to `until_ms`: the log and the bytes depend on the seed alone.

        Raises:
            WorldError: the world was given a real clock.
        """
        if self._clock is not None:
            raise WorldError("a world with a clock of its own does not run on virtual time")
        self.advance(until_ms)

    def _advance_unit(self, unit: _Unit, due_ms: int) -> None:
        unit.scheduled_ms = -1
        before = unit.simulator.next_due_ms
        self._step(unit, max(due_ms, unit.now_ms), unit.simulator.advance)
        unit.stalled_steps = unit.stalled_steps + 1 if unit.simulator.next_due_ms <= before else 0
        if unit.stalled_steps > STALLED_STEPS_MAX:
            raise WorldError(f"{unit.device_id} is due again and again at {before} without getting on")

    def _schedule(self, unit: _Unit) -> None:
        due_ms = unit.simulator.next_due_ms
        if due_ms != unit.scheduled_ms:
            unit.scheduled_ms = due_ms
            heapq.heappush(self._due, (due_ms, unit.device_id))

    def _present_ms(self) -> int:
        return self._now_ms if self._clock is None else max(self._now_ms, self._clock.now_ms())

    # --- people and drivers ---

    def act(self, device_id: str, action: str, **arguments: Any) -> tuple[Truth, ...]:
        """A person or a fault does something now; what came of it. Raises ValueError for an unknown action."""
        unit = self._unit(device_id)
        now_ms = max(self._present_ms(), unit.now_ms)
        return self._step(unit, now_ms, lambda at_ms: unit.simulator.act(action, at_ms, **arguments))

    def _from_driver(self, device_id: str, data: bytes) -> None:
        if len(self._inbox) >= INBOX_CHUNKS_MAX:
            raise WorldError(f"{device_id}: more than {INBOX_CHUNKS_MAX} writes wait for the hardware")
        self._inbox.append((self._units[device_id], data))
        if not self._busy:
            self._serve_inbox()

    def _serve_inbox(self) -> None:
        served = 0
        while self._inbox:
            unit, data = self._inbox.popleft()
            served += 1
            if served > INBOX_CHUNKS_MAX:
                raise WorldError(f"{unit.device_id}: driver and hardware answer each other without end")
            arriving, _ = unit.from_driver_fault.apply(data)
            if arriving:
                now_ms = max(self._present_ms(), unit.now_ms)
                self._step_alone(unit, now_ms, partial(unit.simulator.on_bytes, arriving))

    def _step(self, unit: _Unit, now_ms: int, do: Callable[[int], SimulatorOutput]) -> tuple[Truth, ...]:
        truths = self._step_alone(unit, now_ms, do)
        if not self._busy:
            self._serve_inbox()
        return truths

    def _step_alone(self, unit: _Unit, now_ms: int, do: Callable[[int], SimulatorOutput]) -> tuple[Truth, ...]:
        if unit.simulator.next_due_ms < now_ms:  # what was due before comes before
            self._emit(unit, unit.simulator.advance(now_ms))
        unit.now_ms = now_ms
        output = do(now_ms)
        self._schedule(unit)
        self._emit(unit, output)
        self.steps += 1
        return output.truths

    def _emit(self, unit: _Unit, output: SimulatorOutput) -> None:
        arriving, line_state = self._through_line(unit, output.to_driver)
        if output.truths and self._is_logged:
            real_s = self._real_s()
            lines = [TruthLine.of(truth, real_s, unit.kind, line_state) for truth in output.truths]
            if self._listener is not None:
                self._listener.hear(lines)
            else:
                self.truth.write(b"".join(map(encode_line, lines)))
        if not arriving:
            return
        outermost, self._busy = not self._busy, True
        try:
            unit.line.deliver(arriving)
        finally:
            if outermost:
                self._busy = False

    @staticmethod
    def _through_line(unit: _Unit, data: bytes) -> tuple[bytes, LineState]:
        if not data:
            return b"", "silent"
        arriving, damaged = unit.to_driver_fault.apply(data)
        if not unit.line.attached:
            return arriving, "unattached"
        return arriving, "damaged" if damaged else "intact"

    def _real_s(self) -> float:
        if self._clock is None:
            return (self._now_ms - self.started_ms) / MILLISECONDS_PER_SECOND
        return round(self._clock.monotonic_s(), 6)
