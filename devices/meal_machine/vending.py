"""The physical side of a sale: heater, motor, drop sensor, output, on a schedule that replays exactly.

Everything that will happen stands in `_due` (name → business ms); `advance` carries it out in order of
time, so the same calls at the same times give the same day.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from devices.meal_machine import messages, stock
from devices.meal_machine.controller import SALE_LIMIT_MS, SALES_AT_ONCE_MAX, Controller, Line, Sale
from devices.meal_machine.thermal import Probe, Thermal
from fleet.messages import Reason, ReplyStatus
from fleet.randomness import Randomness

READING_MS: Final = 30_000
HEATING_S: Final = (60, 75)
MOTOR_TO_DROP_MS: Final = (1_500, 6_000)
DROP_WINDOW_MS: Final = 11_000
BOX_TAKEN_MS: Final = (4_000, 20_000)
BOX_FORGOTTEN_MS: Final = 15 * 60_000
OUTPUT_POLL_MS: Final = 2_000
STEPS_PER_ADVANCE_MAX: Final = 1_000_000
OUTCOMES_KEPT_MAX: Final = 10_000


@dataclass(frozen=True)
class Faults:
    """Probabilities; each can be set by the site fact `faults`."""

    jam_per_sale: float = 0.004
    missed_drop_per_sale: float = 0.004
    heater_fault_per_sale: float = 0.002
    box_forgotten_per_sale: float = 0.01
    door_left_open_per_visit: float = 0.05
    brown_outs_per_hour: float = 0.001
    crc_error_per_frame: float = 0.001
    dropped_byte_per_frame: float = 0.001

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Faults":
        unknown = set(facts) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown faults {sorted(unknown)}; known: {[item.name for item in fields(cls)]}")
        return cls(**facts)


class Vending:
    """Physical truth of one machine, as far as a sale needs it; `Machine` adds people, faults and service."""

    def __init__(self, device_id: str, randomness: Randomness, facts: Mapping[str, Any], started_ms: int) -> None:
        self.faults = Faults.from_facts(facts.get("faults", {}))
        self.randomness = randomness
        line = Line(randomness, self.faults.crc_error_per_frame, self.faults.dropped_byte_per_frame)
        self.controller = Controller(device_id, randomness, line, stock.standard_slots())
        self.thermal = Thermal(ambient_celsius=float(facts.get("ambient_celsius", 24.0)))
        self.probes = {"chilled": Probe(), "heater": Probe()}
        self.mains, self.door_open, self.output_box, self.broken_heater = True, False, False, False
        self.outcomes: dict[str, str] = {}
        """Purchase → what truly left the machine (`box`, `none`)."""
        self.motor_runs: dict[str, int] = {}
        self._now_ms = started_ms
        self._reading_ms = round(float(facts.get("reading_interval_s", READING_MS / 1000)) * 1000)
        self._due: dict[str, int] = {"reading": started_ms + randomness.randint(0, 3_000)}
        self._handlers: dict[str, Callable[[int], None]] = {
            "reading": self._reading_due, "heated": self._heated, "drop": self._drop,
            "drop_window": self._drop_window_over, "box_taken": self._box_taken,
            "repeat": self.controller.repeat_events,
        }  # fmt: skip

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def next_due_ms(self) -> int:
        repeat = self.controller.next_repeat_ms
        return min(*self._due.values(), *((repeat,) if repeat is not None else ()))

    def advance(self, now_ms: int) -> None:
        for _ in range(STEPS_PER_ADVANCE_MAX):
            self._schedule_repeat()
            at_ms, name = min((at_ms, name) for name, at_ms in self._due.items())
            if at_ms > now_ms:
                break
            del self._due[name]
            at_ms = max(at_ms, self._now_ms)
            self._heat_until(at_ms)
            self._handlers[name](at_ms)
        self._heat_until(now_ms)

    def _schedule_repeat(self) -> None:
        repeat = self.controller.next_repeat_ms
        if repeat is None:
            self._due.pop("repeat", None)
        else:
            self._due["repeat"] = repeat

    def _heat_until(self, at_ms: int) -> None:
        if at_ms > self._now_ms:
            heating = not self.broken_heater and any(sale.stage == "heating" for sale in self.controller.sales)
            seconds = (at_ms - self._now_ms) / 1000
            self.thermal.advance(seconds, mains=self.mains, door_open=self.door_open, heating=heating)
            self._now_ms = at_ms

    def _reading_due(self, now_ms: int) -> None:
        self._due["reading"] = now_ms + self._reading_ms
        self.controller.changed = True

    def take_reading(self, now_ms: int) -> messages.MealMachineReading:
        """What the sensors say (thermometer noise included) and what the controller believes."""
        controller = self.controller
        sellable = sum(lot.count for slot in controller.slots.values() for lot in slot.sellable(now_ms))
        return messages.MealMachineReading(
            at=now_ms,
            chilled_celsius=self.probes["chilled"].read(
                self.thermal.chilled_celsius + self.randomness.gauss(0.0, 0.05)
            ),
            heater_celsius=self.probes["heater"].read(self.thermal.heater_celsius + self.randomness.gauss(0.0, 0.2)),
            door_open=self.door_open,
            mains_power=self.mains,
            locked_out=controller.locked_out,
            heater_fault=controller.heater_fault,
            output_occupied=self.output_box,
            heating_queue_count=len(controller.sales),
            stock_count=0 if controller.locked_out else sellable,
            slots=tuple(slot.as_message() for slot in controller.slots.values()),
        )

    # --- the sale ------------------------------------------------------------------------------------------------

    def _reserve(self, command_id: str, command: messages.Dispense, now_ms: int) -> None:
        controller = self.controller
        reason = self._obstacle()
        chosen = reason or stock.choose(controller.slots, command.sku, command.slot, now_ms)
        if isinstance(chosen, str):
            controller.refuse(command_id, command, chosen, now_ms)
            return
        slot, lot = chosen
        lot.count -= 1
        sale = Sale(command.purchase_id, command_id, slot.name, slot.sku, lot.lot, lot.expires_at, now_ms)
        controller.sales.append(sale)
        controller.answer(command_id, ReplyStatus.ACCEPTED)
        controller.raise_event(
            messages.SaleReserved, now_ms, purchase_id=sale.purchase_id, command_id=command_id, sku=sale.sku,
            slot=sale.slot, lot=sale.lot,
        )  # fmt: skip
        self._start_next(now_ms)

    def _obstacle(self) -> Reason:
        controller = self.controller
        if controller.locked_out:
            return "locked_out"
        if controller.heater_fault:
            return "heater_fault"
        if self.door_open or not self.mains:
            return "power_lost" if not self.mains else "not_possible"
        return "busy" if len(controller.sales) >= SALES_AT_ONCE_MAX else ""

    def _start_next(self, now_ms: int) -> None:
        controller = self.controller
        if not controller.up or not self.mains or not controller.sales or controller.sales[0].stage != "reserved":
            return
        sale = controller.sales[0]
        if sale.expires_at <= now_ms:
            self._give_up(sale, "lot_expired", now_ms)
            return
        sale.stage = "heating"
        seconds = self.randomness.randint(*HEATING_S)
        if self.randomness.random() < self.faults.heater_fault_per_sale:
            self.broken_heater = True
        self._due["heated"] = now_ms + seconds * 1000
        controller.answer(sale.command_id, ReplyStatus.EXECUTING)
        controller.raise_event(
            messages.SaleHeating, now_ms, purchase_id=sale.purchase_id, command_id=sale.command_id,
            heating_seconds=seconds,
        )  # fmt: skip

    def _heated(self, now_ms: int) -> None:
        sale = self.controller.sales[0]
        if self.broken_heater:
            self.report_heater_fault(now_ms)
            self._give_up(sale, "heater_fault", now_ms)
        elif now_ms - sale.accepted_at > SALE_LIMIT_MS:
            self._give_up(sale, "output_not_empty" if self.output_box else "timeout", now_ms)
        elif self.output_box or self.door_open:
            self._due["heated"] = now_ms + OUTPUT_POLL_MS
        else:
            self._dispense(sale, now_ms)

    def _dispense(self, sale: Sale, now_ms: int) -> None:
        sale.stage = "dispensing"  # durable before the motor moves
        self.controller.raise_event(
            messages.SaleDispensing, now_ms, purchase_id=sale.purchase_id, command_id=sale.command_id, slot=sale.slot
        )
        self._keep(self.motor_runs, sale.command_id, self.motor_runs.get(sale.command_id, 0) + 1)
        slot = self.controller.slots[sale.slot]
        if self.randomness.random() < self.faults.jam_per_sale:
            slot.blocked = True
        self._due["drop_window"] = now_ms + DROP_WINDOW_MS
        if not slot.blocked:
            self._due["drop"] = now_ms + self.randomness.randint(*MOTOR_TO_DROP_MS)

    def _drop(self, now_ms: int) -> None:
        """The box falls; a light one may pass the sensor unseen."""
        sale = self.controller.sales[0]
        self._keep(self.outcomes, sale.purchase_id, "box")
        self.controller.truth("box_dropped", now_ms, purchase_id=sale.purchase_id, slot=sale.slot)
        if self.randomness.random() < self.faults.missed_drop_per_sale:
            return
        self._due.pop("drop_window", None)
        self.controller.sales.remove(sale)
        self._box_waits(now_ms)
        self.controller.raise_event(
            messages.SaleDelivered, now_ms, purchase_id=sale.purchase_id, command_id=sale.command_id, sku=sale.sku,
            slot=sale.slot, lot=sale.lot,
        )  # fmt: skip
        self.controller.answer(sale.command_id, ReplyStatus.SUCCEEDED)
        self._start_next(now_ms)

    def _drop_window_over(self, now_ms: int) -> None:
        sale = self.controller.sales[0]
        slot = self.controller.slots[sale.slot]
        if slot.blocked:  # the motor's current tells a jam from a box that nobody saw
            self._give_up(sale, "jam", now_ms)
            self.report_jam(slot, now_ms)
        else:
            self._give_up(sale, "unknown", now_ms)
        self._start_next(now_ms)

    def _give_up(self, sale: Sale, reason: messages.SaleFailureReason, now_ms: int) -> None:
        """End a sale without proof of a delivery, whatever it was waiting for."""
        if sale.stage == "heating":
            self._due.pop("heated", None)
        if sale.stage == "dispensing":
            self._due.pop("drop_window", None)
            still_inside = self._due.pop("drop", None) is not None
            if still_inside and reason == "unknown":
                self.controller.slots[sale.slot].hidden += 1
        self._keep(self.outcomes, sale.purchase_id, self.outcomes.get(sale.purchase_id, "none"))
        self.controller.fail(sale, reason, now_ms)

    def _cancel(self, command_id: str, command: messages.Cancel, now_ms: int) -> None:
        sale = next((sale for sale in self.controller.sales if sale.purchase_id == command.purchase_id), None)
        if sale is None or sale.stage == "dispensing":
            self.controller.answer(command_id, ReplyStatus.REFUSED, "not_possible")
            return
        self._give_up(sale, "cancelled", now_ms)
        self.controller.answer(command_id, ReplyStatus.SUCCEEDED)
        self._start_next(now_ms)

    def _box_waits(self, now_ms: int) -> None:
        self.output_box = True
        forgotten = self.randomness.random() < self.faults.box_forgotten_per_sale
        self._due["box_taken"] = now_ms + (BOX_FORGOTTEN_MS if forgotten else self.randomness.randint(*BOX_TAKEN_MS))

    def _box_taken(self, now_ms: int) -> None:  # noqa: ARG002  # every handler is given the time
        self.output_box = False
        self.controller.changed = True

    @staticmethod
    def _keep(log: dict[str, Any], key: str, value: Any) -> None:
        log[key] = value
        if len(log) > OUTCOMES_KEPT_MAX:
            del log[next(iter(log))]

    def report_jam(self, slot: stock.Slot, now_ms: int) -> None:
        if slot.status != "jammed":
            slot.status = "jammed"
            self.controller.raise_event(messages.LaneJammed, now_ms, slot=slot.name)

    def report_heater_fault(self, now_ms: int) -> None:
        if not self.controller.heater_fault:
            self.controller.heater_fault = True
            celsius = round(self.thermal.heater_celsius, 2)
            self.controller.raise_event(messages.HeaterFault, now_ms, heater_celsius=celsius)
