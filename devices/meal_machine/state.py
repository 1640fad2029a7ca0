"""What the cloud knows about one machine: the latest reading, restock cycles, and how fast each meal sells.

What the machine sells by hour is in `forecast.Habit`. How the meals share it is estimated per meal as an
exponentially weighted rate: every reservation adds 1/τ per hour and the rate decays with e^(-t/τ),
τ = DEMAND_MEMORY_HOURS; a meal starts with PRIOR_SALES_PER_HOUR, as all do.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from devices.meal_machine import messages
from devices.meal_machine.forecast import MS_PER_HOUR, Habit
from fleet.kind import DeviceState

PRIOR_SALES_PER_HOUR: Final = 0.3  # 80 boxes of 8 meals in 33 hours, about what a machine is stocked for
DEMAND_MEMORY_HOURS: Final = 72.0
MENU_MAX: Final = 64
MACHINE_FAILURES: Final = frozenset({"jam", "heater_fault", "timeout", "power_lost", "unknown"})
"""Reasons that speak against the machine; the others are about the customer or the stock."""


class Demand(msgspec.Struct, frozen=True):
    """Sales per hour of one meal, as of `at` (ms)."""

    per_hour: float
    at: int

    def rate_at(self, now_ms: int) -> float:
        """The estimate, decayed to `now_ms`; never decays backwards."""
        hours = max(0, now_ms - self.at) / MS_PER_HOUR
        return self.per_hour * math.exp(-hours / DEMAND_MEMORY_HOURS)


class State(DeviceState, frozen=True, kw_only=True):
    """`cycle` counts restock visits; `doubtful_sales` and `blocked_lots` wait for the next counted visit."""

    cycle: int = 0
    restocked_at: int | None = None
    demand: dict[str, Demand] = msgspec.field(default_factory=dict)
    habit: Habit = Habit()
    sold_count: int = 0
    failures_in_a_row: int = 0
    doubtful_sales: int = 0
    missing_boxes: int = 0
    """Expected minus found at the last counted visit; negative when there were more."""
    chilled_changed_at: int | None = None
    """When the chilled thermometer last gave another value than before."""
    chilled_same_count: int = 0
    """Readings since then with exactly that value; no healthy probe does that for long."""
    blocked_lots: tuple[str, ...] = ()
    """Lots that were inside during a food-safety lock."""


def initial(device_id: str) -> State:
    return State(device_id=device_id)


def apply_reading(state: State, reading: Any) -> State:
    """The last one in its lane is the latest, even if the device's clock was set back in between."""
    if state.reading is not None and state.reading.chilled_celsius == reading.chilled_celsius:
        same_count = state.chilled_same_count + (reading.at > state.reading.at)
        state = msgspec.structs.replace(state, reading=reading, chilled_same_count=same_count)
    else:
        state = msgspec.structs.replace(state, reading=reading, chilled_changed_at=reading.at, chilled_same_count=0)
    if reading.stock_count == 0 or reading.locked_out or reading.heater_fault or not reading.mains_power:
        state = msgspec.structs.replace(state, habit=state.habit.at(reading.at, can_sell=False))
    new = {slot.sku for slot in reading.slots} - state.demand.keys()
    if not new:
        return state
    demand = {**state.demand, **{sku: Demand(PRIOR_SALES_PER_HOUR, reading.at) for sku in sorted(new)}}
    if len(demand) > MENU_MAX:  # forget meals that left the menu, so that the state stays small
        on_menu = {slot.sku for slot in reading.slots}
        demand = {sku: estimate for sku, estimate in demand.items() if sku in on_menu}
    return msgspec.structs.replace(state, demand=demand)


def apply_event(state: State, event: Any, occurred_at: int) -> State:
    """Facts that readings don't carry. Each event reaches this once."""
    match event:
        case messages.SaleReserved():
            return msgspec.structs.replace(
                state,
                demand=_with_sale(state.demand, event.sku, occurred_at),
                habit=state.habit.at(occurred_at, sold=1),
            )
        case messages.SaleDelivered():
            return msgspec.structs.replace(state, sold_count=state.sold_count + 1, failures_in_a_row=0)
        case messages.SaleFailed() if event.reason in MACHINE_FAILURES:
            doubtful = state.doubtful_sales + (event.reason == "unknown")
            return msgspec.structs.replace(
                state, failures_in_a_row=state.failures_in_a_row + 1, doubtful_sales=doubtful
            )
        case messages.LanesLocked():
            return msgspec.structs.replace(state, blocked_lots=_lots_inside(state))
        case messages.Restocked():
            return _after_visit(state, event, occurred_at)
        case _:
            return state


def _lots_inside(state: State) -> tuple[str, ...]:
    slots = state.reading.slots if state.reading is not None else ()
    return tuple(sorted({lot.lot for slot in slots for lot in slot.lots if lot.count}))


def _after_visit(state: State, visit: messages.Restocked, at_ms: int) -> State:
    return msgspec.structs.replace(
        state,
        cycle=state.cycle + 1,
        restocked_at=at_ms,
        failures_in_a_row=0,
        doubtful_sales=0,
        missing_boxes=sum(line.expected_count - line.found_count for line in visit.lines),
        blocked_lots=(),
    )


def _with_sale(demand: Mapping[str, Demand], sku: str, at_ms: int) -> dict[str, Demand]:
    before = demand.get(sku, Demand(PRIOR_SALES_PER_HOUR, at_ms))
    now_ms = max(at_ms, before.at)
    return {**demand, sku: Demand(before.rate_at(now_ms) + 1 / DEMAND_MEMORY_HOURS, now_ms)}
