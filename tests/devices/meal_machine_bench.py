"""A driver and a simulator joined in memory, on virtual time."""

import random
from dataclasses import dataclass, field

from devices.meal_machine import driver, messages, simulator
from fleet.kind import DriverOutput, Progress, Site, Truth
from fleet.messages import Command, Event

START_MS = 1_800_000_000_000
NO_FAULTS = {
    "jam_per_sale": 0.0, "missed_drop_per_sale": 0.0, "heater_fault_per_sale": 0.0, "box_forgotten_per_sale": 0.0,
    "door_left_open_per_visit": 0.0, "brown_outs_per_hour": 0.0, "crc_error_per_frame": 0.0,
    "dropped_byte_per_frame": 0.0,
}  # fmt: skip
PURCHASE = "ab" * 16


def hex_id(number: int) -> str:
    return f"{number:032x}"


@dataclass
class Bench:
    seed: int = 1
    faults: dict[str, float] = field(default_factory=dict)
    stock_share: float = 1.0
    commit: bool = True
    """Whether the edge's journal takes events (else no line acknowledgement is written)."""

    def __post_init__(self) -> None:
        self.now_ms = START_MS
        facts = {"stock_share": self.stock_share, "faults": {**NO_FAULTS, **self.faults}}
        self.simulator = simulator.create(
            "meal-001", random.Random(self.seed), Site(38.86, 121.52, "test", facts), START_MS
        )
        self.driver = driver.create("meal-001")
        self.readings: list[messages.MealMachineReading] = []
        self.events: list[tuple[int, Event]] = []
        self.progress: list[Progress] = []
        self.truths: list[Truth] = []
        self._to_hardware(self.driver.on_start(self.now_ms))

    def _to_hardware(self, output: DriverOutput) -> None:
        self.readings += output.readings
        self.events += output.events
        self.progress += output.progress
        data = output.to_hardware + (output.after_commit if self.commit else b"")
        if data:
            self._from_hardware(self.simulator.on_bytes(data, self.now_ms))

    def _from_hardware(self, output) -> None:
        self.truths += output.truths
        if output.to_driver:
            self._to_hardware(self.driver.on_bytes(output.to_driver, self.now_ms))

    def run(self, seconds: float) -> None:
        end = self.now_ms + round(seconds * 1000)
        while True:
            due = min(self.simulator.next_due_ms, self.driver.next_due_ms or end + 1)
            if due > end:
                break
            self.now_ms = max(self.now_ms, due)
            if self.driver.next_due_ms is not None and self.driver.next_due_ms <= self.now_ms:
                self._to_hardware(self.driver.on_timer(self.now_ms))
            self._from_hardware(self.simulator.advance(self.now_ms))
        self.now_ms = end
        self._from_hardware(self.simulator.advance(end))

    def command(self, command: Command, command_id: str = hex_id(1)) -> None:
        self._to_hardware(self.driver.on_command(command_id, command, self.now_ms))

    def buy(self, number: int = 1, sku: str = "mapo-tofu", slot: str | None = None) -> None:
        self.command(messages.Dispense(purchase_id=hex_id(1000 + number), sku=sku, slot=slot), hex_id(number))

    def act(self, action: str, **arguments) -> None:
        self._from_hardware(self.simulator.act(action, self.now_ms, **arguments))

    def types(self) -> list[str]:
        return [event.type for _, event in self.events]

    def of_type(self, model):
        return [event for _, event in self.events if isinstance(event, model)]

    def statuses(self, command_id: str = hex_id(1)) -> list[tuple[str, str]]:
        return [(item.status.value, item.reason) for item in self.progress if item.command_id == command_id]
