"""The machine with the people around it: restocks, service, food-safety lock, power cuts and other faults."""

import math
from collections.abc import Mapping
from typing import Any, Final

from devices.meal_machine import messages, stock
from devices.meal_machine.controller import BOOT_MS
from devices.meal_machine.thermal import Probe
from devices.meal_machine.vending import Vending
from fleet.messages import Command, Reason, ReplyStatus
from fleet.randomness import Randomness

TICK_MS: Final = 10_000
VISIT_MS: Final = 4 * 60_000
DOOR_FORGOTTEN_MS: Final = 40 * 60_000
SERVICE_LIMIT_CELSIUS: Final = 8.0
EXCURSIONS: Final = ((10.0, 10 * 60_000), (8.0, 30 * 60_000))
"""(°C, ms): chilled above the limit for so long locks the machine."""
MS_PER_HOUR: Final = 3_600_000


class Machine(Vending):
    """Physical truth of one machine."""

    def __init__(self, device_id: str, randomness: Randomness, facts: Mapping[str, Any], started_ms: int) -> None:
        super().__init__(device_id, randomness, facts, started_ms)
        self.controller.handle = self._command
        self._visits = 0
        self._visit_items: Mapping[str, int] | None = None
        self._excursion_since: dict[float, int] = {}
        self._tick_ms = round(float(facts.get("tick_s", TICK_MS / 1000)) * 1000)
        self._due["tick"] = started_ms + randomness.randint(1_000, TICK_MS)
        if self.faults.brown_outs_per_hour > 0:
            self._due["brown_out"] = self._next_brown_out(started_ms)
        self._handlers |= {
            "tick": self._tick, "brown_out": self._brown_out_due, "boot": self._booted, "visit_end": self._visit_ends,
            "door_closes": self.close_door,
        }  # fmt: skip
        self._fill(facts, started_ms)

    def _tick(self, now_ms: int) -> None:
        self._due["tick"] = now_ms + self._tick_ms
        probed = self.probes["chilled"].read(self.thermal.chilled_celsius)
        chilled = math.inf if probed is None else probed  # a machine that can't know that its food is cold locks
        for limit, allowed_ms in EXCURSIONS:
            if chilled <= limit:
                self._excursion_since.pop(limit, None)
                continue
            since = self._excursion_since.setdefault(limit, now_ms)
            if now_ms - since >= allowed_ms and self.controller.up and not self.controller.locked_out:
                self._lock_out(now_ms)
        self._start_next(now_ms)

    # --- commands ------------------------------------------------------------------------------------------------

    def _command(self, command_id: str, command: Command, now_ms: int) -> None:
        match command:
            case messages.Dispense():
                self._reserve(command_id, command, now_ms)
            case messages.Cancel():
                self._cancel(command_id, command, now_ms)
            case messages.Reboot():
                self._reboot(command_id, now_ms)
            case _:
                reason = self._configure(command, now_ms)
                status = ReplyStatus.REFUSED if reason else ReplyStatus.SUCCEEDED
                self.controller.answer(command_id, status, reason)
                self.controller.changed = True

    def _configure(self, command: Command, now_ms: int) -> Reason:
        match command:
            case messages.LockLane() if command.slot in self.controller.slots:
                self.controller.slots[command.slot].status = "locked"
            case messages.SetMenu() if command.slot in self.controller.slots:
                slot = self.controller.slots[command.slot]
                held = slot.believed_count or any(sale.slot == slot.name for sale in self.controller.sales)
                if held and slot.sku != command.sku:
                    return "not_possible"
                slot.sku, slot.price_fen = command.sku, command.price_fen
            case messages.UnlockAfterService():
                return self._serviced(now_ms)
            case _:
                return "invalid_arguments"
        return ""

    def _serviced(self, now_ms: int) -> Reason:
        probed = self.probes["chilled"].read(self.thermal.chilled_celsius)
        if probed is None or probed > SERVICE_LIMIT_CELSIUS:
            return "not_possible"
        for slot in self.controller.slots.values():
            slot.status = "ready"
        self.controller.needs_service = False
        if not self.broken_heater:
            self.controller.heater_fault = False
        self._unlock_if_ready(now_ms)
        return ""

    def _unlock_if_ready(self, now_ms: int) -> None:
        controller = self.controller
        if controller.locked_out and not controller.needs_service and not controller.needs_restock:
            controller.locked_out = False
            controller.raise_event(messages.LanesUnlocked, now_ms)

    def _lock_out(self, now_ms: int) -> None:
        controller = self.controller
        controller.locked_out = controller.needs_service = controller.needs_restock = True
        chilled = self.probes["chilled"].read(self.thermal.chilled_celsius)
        controller.raise_event(messages.LanesLocked, now_ms, chilled_celsius=chilled)
        for sale in [sale for sale in controller.sales if sale.stage != "dispensing"]:
            self._give_up(sale, "locked_out", now_ms)

    def _reboot(self, command_id: str, now_ms: int) -> None:
        if self.controller.sales:
            self.controller.answer(command_id, ReplyStatus.REFUSED, "busy")
            return
        self.controller.answer(command_id, ReplyStatus.SUCCEEDED)
        self._go_down(now_ms)

    # --- people and faults ---------------------------------------------------------------------------------------

    def open_door(self, now_ms: int) -> None:
        if not self.door_open:
            self.door_open = True
            self.controller.raise_event(messages.DoorOpened, now_ms)

    def close_door(self, now_ms: int) -> None:
        self._due.pop("door_closes", None)
        if self.door_open:
            self.door_open = False
            self.controller.raise_event(messages.DoorClosed, now_ms)

    def start_visit(self, now_ms: int, items: Mapping[str, int] | None, visit_ms: int) -> None:
        """A restocker opens the door; the count and the new boxes are booked when the visit ends."""
        self.open_door(now_ms)
        self._visit_items = items
        self._due["visit_end"] = now_ms + visit_ms

    def _visit_ends(self, now_ms: int) -> None:
        self._visits += 1
        left = None if self._visit_items is None else dict(self._visit_items)
        lines = self._restock(now_ms, left)
        self.controller.needs_restock = False
        self.controller.raise_event(messages.Restocked, now_ms, lines=lines)
        if self.randomness.random() < self.faults.door_left_open_per_visit:
            self._due["door_closes"] = now_ms + DOOR_FORGOTTEN_MS
        else:
            self.close_door(now_ms)
        self._unlock_if_ready(now_ms)

    def _restock(self, now_ms: int, left: dict[str, int] | None) -> tuple[messages.RestockLine, ...]:
        lot_id = stock.lot_id_of(now_ms, self._visits)
        lines = []
        for slot in self.controller.slots.values():
            wanted = stock.SLOT_CAPACITY if left is None else left.get(slot.sku, 0)
            line = stock.restock_slot(slot, now_ms, lot_id, wanted, excursion=self.controller.needs_restock)
            if left is not None:
                left[slot.sku] = wanted - line.added_count
            lines.append(line)
        return tuple(lines)

    def break_heater(self, now_ms: int) -> None:  # noqa: ARG002  # every action is given the time
        """The element fails; the controller finds out when it heats the next box."""
        self.broken_heater = True

    def repair(self, now_ms: int) -> None:
        """A technician puts right what is broken; `unlock_after_service` then tells the controller."""
        self.broken_heater = self.output_box = False
        self.probes = {name: Probe() for name in self.probes}
        for slot in self.controller.slots.values():
            slot.blocked = False
        self.controller.truth("repaired", now_ms)

    def leave_box(self, now_ms: int) -> None:
        """Something stays in the output until somebody takes it or repairs the machine."""
        self.output_box = True
        self._due.pop("box_taken", None)
        self.controller.changed = True
        self.controller.truth("output_blocked", now_ms)

    def break_probe(self, now_ms: int, probe: str = "chilled") -> None:
        """The thermometer `chilled` or `heater` gives no values any more."""
        self.probes[probe].dead = True
        self.controller.changed = True
        self.controller.truth("probe_broken", now_ms, probe=probe)

    def stick_probe(self, now_ms: int, probe: str = "chilled") -> None:
        """It goes on giving the value that it has now."""
        self.probes[probe].stuck = True
        self.controller.truth("probe_stuck", now_ms, probe=probe)

    def warm_up(self, now_ms: int, celsius: float = 12.0) -> None:
        """The chilled space is suddenly warm (for tests of the lock, without waiting for hours)."""
        self.thermal.chilled_celsius = celsius
        self.controller.changed = True
        self.controller.truth("warmed_up", now_ms, chilled_celsius=celsius)

    def lose_mains(self, now_ms: int) -> None:
        """Motors and heater stop; the controller goes on from its battery."""
        if not self.mains:
            return
        self.mains = False
        self.controller.raise_event(messages.PowerLost, now_ms)
        for sale in list(self.controller.sales):
            self._give_up(sale, "unknown" if sale.stage == "dispensing" else "power_lost", now_ms)

    def restore_mains(self, now_ms: int) -> None:
        if not self.mains:
            self.mains = True
            self.controller.raise_event(messages.PowerRestored, now_ms)

    def brown_out(self, now_ms: int) -> None:
        """The controller itself loses power in whatever it was doing."""
        if not self.controller.up:
            return
        self._due.pop("heated", None)
        self._due.pop("drop_window", None)
        if self._due.pop("drop", None) is not None:  # the motor stopped with the box still inside
            self.controller.slots[self.controller.sales[0].slot].hidden += 1
        for sale in self.controller.sales:
            self._keep(self.outcomes, sale.purchase_id, self.outcomes.get(sale.purchase_id, "none"))
        self._go_down(now_ms)
        self.controller.truth("brown_out", now_ms)

    def _go_down(self, now_ms: int) -> None:
        self.controller.up = False
        self._due["boot"] = now_ms + BOOT_MS

    def _booted(self, now_ms: int) -> None:
        self.controller.up = True
        self.controller.reader.feed(b"\x00")  # whatever was half received before is gone
        for stored in self.controller.events.values():
            stored.repeat_at_ms = now_ms
        self.controller.recover(now_ms)
        self.controller.changed = True

    def _next_brown_out(self, now_ms: int) -> int:
        return now_ms + round(self.randomness.expovariate(self.faults.brown_outs_per_hour) * MS_PER_HOUR)

    def _brown_out_due(self, now_ms: int) -> None:
        self._due["brown_out"] = self._next_brown_out(now_ms)
        self.brown_out(now_ms)

    def _fill(self, facts: Mapping[str, Any], now_ms: int) -> None:
        """Boxes at the start: `stock_share` of the capacity, of a lot delivered some hours ago."""
        share = float(facts.get("stock_share", 0.8))
        age_ms = round(self.randomness.uniform(1, 20) * MS_PER_HOUR)
        delivered_ms = (now_ms - age_ms) // 1000 * 1000
        lot_id = stock.lot_id_of(delivered_ms, 0)
        for slot in self.controller.slots.values():
            count = sum(self.randomness.random() < share for _ in range(stock.SLOT_CAPACITY))
            slot.add(lot_id, delivered_ms + stock.SHELF_LIFE_MS, count)
