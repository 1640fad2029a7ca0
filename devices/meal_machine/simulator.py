"""Seeded hardware of one machine for the simulation: a `Machine`, spoken to in bytes and by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from devices.meal_machine import frames
from devices.meal_machine.machine import VISIT_MS, Machine
from fleet.kind import Simulator, SimulatorOutput, Site
from fleet.randomness import Randomness

BUILDINGS: Final[tuple[tuple[str, float, float], ...]] = (
    ("软件园 1 号楼", 38.8632, 121.5271),
    ("软件园 5 号楼", 38.8611, 121.5304),
    ("软件园 11 号楼", 38.8587, 121.5332),
    ("腾飞软件园", 38.8701, 121.5189),
    ("七贤岭大厦", 38.8654, 121.5145),
    ("高新万达写字楼", 38.8597, 121.5098),
    ("海辉大厦", 38.8569, 121.5236),
    ("创业大厦", 38.8678, 121.5227),
    ("黄泥川科技园", 38.8442, 121.4893),
    ("河口国际软件园", 38.8489, 121.5012),
)
LOW_AT_START_SHARE: Final = 0.3
"""Machines that start nearly empty, so that a short run sees restock orders."""


class MealMachineSimulator:
    """See `fleet.kind.Simulator`; people's purchases come through the product, everything else from here."""

    ACTIONS: ClassVar[tuple[str, ...]] = (
        "open_door", "close_door", "restock", "power_off", "power_on", "brown_out", "jam", "break_heater", "repair",
        "leave_box", "warm_up", "break_probe", "stick_probe",
    )  # fmt: skip

    def __init__(self, device_id: str, randomness: Randomness, site: Site, started_ms: int) -> None:
        self.device_id = device_id
        self._randomness = randomness
        self._machine = Machine(device_id, randomness, site.facts, started_ms)
        self._actions: Mapping[str, Callable[..., None]] = {
            "open_door": self._machine.open_door,
            "close_door": self._machine.close_door,
            "restock": self._restock,
            "power_off": self._machine.lose_mains,
            "power_on": self._machine.restore_mains,
            "brown_out": self._machine.brown_out,
            "jam": self._jam,
            "break_heater": self._machine.break_heater,
            "repair": self._machine.repair,
            "leave_box": self._machine.leave_box,
            "warm_up": self._machine.warm_up,
            "break_probe": self._machine.break_probe,
            "stick_probe": self._machine.stick_probe,
        }

    @property
    def next_due_ms(self) -> int:
        return self._machine.next_due_ms

    def advance(self, now_ms: int) -> SimulatorOutput:
        self._machine.advance(now_ms)
        return self._output(now_ms)

    def on_bytes(self, data: bytes, now_ms: int) -> SimulatorOutput:
        self._machine.advance(now_ms)
        self._machine.controller.receive(data, now_ms)
        return self._output(now_ms)

    def act(self, action: str, now_ms: int, **arguments: Any) -> SimulatorOutput:
        """A person or a fault does something now.

        Arguments: `restock(items={sku: count}, visit_s=…)` (without items everything to capacity),
        `jam(slot=…)`, `warm_up(celsius=…)`, `break_probe(probe=…)`, `stick_probe(probe=…)`; the others take none.
        """
        if action not in self._actions:
            raise ValueError(f"unknown action {action!r}; known: {', '.join(self.ACTIONS)}")
        self._machine.advance(now_ms)
        self._actions[action](now_ms, **arguments)
        return self._output(now_ms)

    def snapshot(self) -> Mapping[str, Any]:
        """True state; `boxes` counts what is physically inside, `outcomes` what left per purchase."""
        machine = self._machine
        slots = machine.controller.slots.values()
        return {
            "chilled_celsius": machine.thermal.chilled_celsius,
            "heater_celsius": machine.thermal.heater_celsius,
            "door_open": machine.door_open,
            "mains_power": machine.mains,
            "locked_out": machine.controller.locked_out,
            "heater_fault": machine.controller.heater_fault,
            "output_occupied": machine.output_box,
            "heating_queue_count": len(machine.controller.sales),
            "stock_count": sum(lot.count for slot in slots for lot in slot.lots),
            "boxes": sum(slot.true_count for slot in slots),
            "outcomes": dict(machine.outcomes),
            "motor_runs": dict(machine.motor_runs),
            "unacknowledged_events": tuple(machine.controller.events),
        }

    def _output(self, now_ms: int) -> SimulatorOutput:
        controller = self._machine.controller
        if controller.changed and controller.up:
            controller.changed = False
            controller.write(frames.encode_reading(self._machine.take_reading(now_ms)))
        data, truths = bytes(controller.to_driver), tuple(controller.truths)
        controller.to_driver.clear()
        controller.truths.clear()
        return SimulatorOutput(data, truths)

    def _restock(self, now_ms: int, items: Mapping[str, int] | None = None, visit_s: float = VISIT_MS / 1000) -> None:
        self._machine.start_visit(now_ms, items, round(visit_s * 1000))

    def _jam(self, now_ms: int, slot: str | None = None) -> None:
        slots = self._machine.controller.slots
        name = slot or self._randomness.choice(sorted(slots))
        if name not in slots:
            raise ValueError(f"unknown slot {name!r}")
        slots[name].blocked = True
        self._machine.report_jam(slots[name], now_ms)


def create(device_id: str, randomness: Randomness, site: Site, started_ms: int) -> Simulator:
    """One machine at its site; facts: `stock_share`, `ambient_celsius`, `faults` (see `vending.Faults`).

    `reading_interval_s` (30) and `tick_s` (10) are the steps in which it reports and lives when nothing happens.
    """
    return MealMachineSimulator(device_id, randomness, site, started_ms)


def sites(count: int, randomness: Randomness) -> Sequence[Site]:
    """Office buildings of the zone; about a third of the machines start nearly empty, at least one."""
    low_count = max(1, round(count * LOW_AT_START_SHARE))
    low = [index < low_count for index in range(count)]
    randomness.shuffle(low)
    result = []
    for index in range(count):
        building, latitude, longitude = BUILDINGS[index % len(BUILDINGS)]
        floor = 1 + 3 * (index // len(BUILDINGS))
        share = randomness.uniform(0.05, 0.15) if low[index] else randomness.uniform(0.7, 1.0)
        facts = {
            "floor": floor,
            "stock_share": round(share, 3),
            "ambient_celsius": round(randomness.uniform(21, 27), 1),
        }
        result.append(
            Site(
                round(latitude + randomness.uniform(-0.0003, 0.0003), 6),
                round(longitude + randomness.uniform(-0.0003, 0.0003), 6),
                f"{building} {floor} 层",
                facts,
            )
        )
    return result
