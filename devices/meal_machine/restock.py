"""When a machine wants a restock, and what to bring.

A restock is wanted when the boxes on hand would not last through the lead time with probability
SERVICE_LEVEL (Poisson demand at PEAK_FACTOR times the mean rate, so a noon rush is covered), when a meal
on the menu is sold out, or when there is something to remove. The pick list fills each meal up to its
newsvendor level: the smallest stock S with P(demand until the next visit ≤ S) ≥ missed / (missed + wasted).
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from devices.meal_machine.state import PRIOR_SALES_PER_HOUR, State
from fleet.incident import Priority
from fleet.kind import Need, Text

LEAD_TIME_HOURS: Final = 2.0
"""From the order until the boxes are in the machine."""
PEAK_FACTOR: Final = 2.5
"""Noon-hour demand over the mean of a day."""
SERVICE_LEVEL: Final = 0.95
COVER_HOURS: Final = 24.0
"""How long a refill should last; a box keeps about two days."""
MISSED_SALE_FEN: Final = 900
"""Margin and goodwill lost when a wanted box is not there."""
WASTED_BOX_FEN: Final = 600
"""Purchase and disposal of a box nobody bought, weighted by the half of them that the next day still sells."""
RESTOCK_WITHIN_S: Final = LEAD_TIME_HOURS * 3600
URGENT_WITHIN_S: Final = 3600.0
QUANTILE_MAX: Final = 400


def poisson_quantile(mean: float, level: float) -> int:
    """Smallest k with P(Poisson(mean) ≤ k) ≥ level; at most QUANTILE_MAX."""
    probability = math.exp(-mean)
    cumulated = probability
    count = 0
    while cumulated < level and count < QUANTILE_MAX:
        count += 1
        probability *= mean / count
        cumulated += probability
    return count


def reorder_point(sales_per_hour: float) -> int:
    """Boxes at or below which a restock is ordered."""
    return poisson_quantile(sales_per_hour * PEAK_FACTOR * LEAD_TIME_HOURS, SERVICE_LEVEL)


def order_up_to(sales_per_hour: float, capacity: int) -> int:
    """Boxes of one meal after a restock."""
    ratio = MISSED_SALE_FEN / (MISSED_SALE_FEN + WASTED_BOX_FEN)
    return min(capacity, max(1, poisson_quantile(sales_per_hour * COVER_HOURS, ratio)))


def expired_count(reading: Any) -> int:
    """Boxes inside whose time is over at the moment of the reading."""
    return sum(lot.count for slot in reading.slots for lot in slot.lots if lot.expires_at <= reading.at)


def sellable_by_sku(reading: Any) -> dict[str, int]:
    stock: dict[str, int] = {}
    for slot in reading.slots:
        fresh = sum(lot.count for lot in slot.lots if lot.expires_at > reading.at)
        stock[slot.sku] = stock.get(slot.sku, 0) + (fresh if slot.status == "ready" and not reading.locked_out else 0)
    return stock


def _rates(state: State, now_ms: int) -> dict[str, float]:
    rates = {}
    for sku in {slot.sku for slot in state.reading.slots}:
        estimate = state.demand.get(sku)
        rates[sku] = estimate.rate_at(now_ms) if estimate else PRIOR_SALES_PER_HOUR
    return rates


def _pick_list(state: State, rates: Mapping[str, float], stock: Mapping[str, int]) -> dict[str, int]:
    capacity: dict[str, int] = {}
    for slot in state.reading.slots:
        capacity[slot.sku] = capacity.get(slot.sku, 0) + slot.capacity_count
    wanted = {sku: order_up_to(rate, capacity[sku]) - stock.get(sku, 0) for sku, rate in rates.items()}
    return {sku: count for sku, count in sorted(wanted.items()) if count > 0}


def is_low(state: State, now_ms: int) -> bool:
    """Whether the boxes that can be sold may not last until a restock ordered now arrives."""
    return bool(state.reading.stock_count <= reorder_point(sum(_rates(state, now_ms).values())))


def restock_need(state: State, now_ms: int) -> Need | None:
    """The restock this cycle asks for; the cycle ends with the counted visit."""
    reading = state.reading
    if reading is None or not reading.slots:
        return None
    stock = sellable_by_sku(reading)
    sold_out = sum(1 for count in stock.values() if count == 0)
    expired = expired_count(reading)
    if not (is_low(state, now_ms) or sold_out or expired or state.blocked_lots):
        return None
    empty = reading.stock_count == 0
    return Need(
        cause=f"restock:{state.device_id}:{state.cycle}",
        skill="restock",
        title=Text(
            f"补货:剩余 {reading.stock_count} 份,{sold_out} 种售罄,{expired} 份过期",
            f"Restock: {reading.stock_count} boxes left, {sold_out} meals sold out, {expired} boxes expired",
        ),
        priority=Priority.HIGH if empty else Priority.MEDIUM,
        due_within_s=URGENT_WITHIN_S if empty else RESTOCK_WITHIN_S,
        items=_pick_list(state, _rates(state, now_ms), stock),
    )
