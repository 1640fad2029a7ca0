"""When a machine wants a restock, and what to bring.

A restock is wanted as soon as the boxes on hand would not last through the next HORIZON_HOURS with probability
SERVICE_LEVEL (Poisson demand, by the machine's own hours), so long before they run out that it fits into a round;
by when somebody should be there follows from when they will. It is wanted as well when a part of the menu is sold
out, or when there is something to remove. The pick list fills each meal up to its newsvendor level: the smallest
stock S with P(demand until the next visit ≤ S) ≥ missed / (missed + wasted).
"""

import bisect
import math
from collections.abc import Mapping
from typing import Any, Final

from devices.meal_machine.forecast import MS_PER_HOUR, Habit
from devices.meal_machine.state import PRIOR_SALES_PER_HOUR, State
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import Priority
from fleet.kind import Need, Text

LEAD_TIME_HOURS: Final = 2.0
"""From the order until the boxes are in the machine, at the soonest."""
HORIZON_HOURS: Final = 18.0
"""So long ahead a restock is ordered: from the last round of a day to the first of the next are 16 hours."""
SERVICE_LEVEL: Final = 0.95
COVER_HOURS: Final = 36.0
"""How long a refill should last; a box keeps two days, and the next visit may come half a day late."""
SOLD_OUT_SHARE: Final = 0.5
"""So much of the menu may be sold out before somebody comes for that alone."""
SOLD_OUT_WITHIN_S: Final = 12 * 3600.0
EXPIRED_HOURS: Final = 24.0
"""What nobody can buy any more waits so long for the next restock; after that somebody comes for it alone."""
EXPIRED_WITHIN_S: Final = 12 * 3600.0
MISSED_SALE_FEN: Final = 900
"""Margin and goodwill lost when a wanted box is not there."""
WASTED_BOX_FEN: Final = 600
"""Purchase and disposal of a box nobody bought, weighted by the half of them that the next day still sells."""
BLOCKED_WITHIN_S: Final = LEAD_TIME_HOURS * 3600
URGENT_WITHIN_S: Final = 3600.0
SECONDS_PER_HOUR: Final = 3600
_STEP_HOURS: Final = 0.5
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


def hours_left(habit: Habit, stock_count: int, now_ms: int, horizon_hours: float = HORIZON_HOURS) -> float | None:
    """For how long the boxes last with SERVICE_LEVEL, in half hours; None: longer than the horizon."""

    def runs_out(step: int) -> bool:
        return poisson_quantile(habit.expected(now_ms, step * _STEP_HOURS), SERVICE_LEVEL) > stock_count

    steps = round(horizon_hours / _STEP_HOURS)
    if not runs_out(steps):
        return None
    first = bisect.bisect_left(range(1, steps + 1), x=True, key=runs_out) + 1  # the later, the more is wanted
    return (first - 1) * _STEP_HOURS


def order_up_to(wanted_count: float, capacity: int) -> int:
    """Boxes of one meal after a restock, of which `wanted_count` are expected to be wanted until the next."""
    ratio = MISSED_SALE_FEN / (MISSED_SALE_FEN + WASTED_BOX_FEN)
    return min(capacity, max(1, poisson_quantile(wanted_count, ratio)))


def expired_count(reading: Any) -> int:
    """Boxes inside whose time is over at the moment of the reading."""
    return sum(lot.count for slot in reading.slots for lot in slot.lots if lot.expires_at <= reading.at)


def sellable_by_sku(reading: Any) -> dict[str, int]:
    stock: dict[str, int] = {}
    for slot in reading.slots:
        fresh = sum(lot.count for lot in slot.lots if lot.expires_at > reading.at)
        stock[slot.sku] = stock.get(slot.sku, 0) + (fresh if slot.status == "ready" and not reading.locked_out else 0)
    return stock


def shares(state: State, now_ms: int) -> dict[str, float]:
    """What part of the machine's sales each meal of the menu has."""
    rates = {}
    for sku in {slot.sku for slot in state.reading.slots}:
        estimate = state.demand.get(sku)
        rates[sku] = estimate.rate_at(now_ms) if estimate else PRIOR_SALES_PER_HOUR
    total = sum(rates.values())
    return {sku: rate / total if total > 0 else 1 / len(rates) for sku, rate in rates.items()}


def _pick_list(state: State, stock: Mapping[str, int], visit_ms: int) -> dict[str, int]:
    """What to bring for a visit about `visit_ms`: until then some of the stock is sold."""
    capacity: dict[str, int] = {}
    for slot in state.reading.slots:
        capacity[slot.sku] = capacity.get(slot.sku, 0) + slot.capacity_count
    sold = state.habit.expected(state.reading.at, max(0, visit_ms - state.reading.at) / MS_PER_HOUR)
    wanted = state.habit.expected(visit_ms, COVER_HOURS)
    picked = {}
    for sku, share in shares(state, visit_ms).items():
        left = max(0, stock.get(sku, 0) - round(sold * share))
        picked[sku] = order_up_to(wanted * share, capacity[sku]) - left
    return {sku: count for sku, count in sorted(picked.items()) if count > 0}


def is_low(state: State, now_ms: int) -> bool:
    """Whether the boxes that can be sold may not last until a restock ordered now arrives."""
    return hours_left(state.habit, sum(sellable_by_sku(state.reading).values()), now_ms, LEAD_TIME_HOURS) is not None


def restock_need(state: State, now_ms: int) -> Need | None:
    """The restock this cycle asks for; the cycle ends with the counted visit."""
    reading = state.reading
    if reading is None or not reading.slots:
        return None
    stock = sellable_by_sku(reading)
    on_hand = sum(stock.values())
    sold_out = sum(1 for count in stock.values() if count == 0)
    due_within_s = [
        *([URGENT_WITHIN_S] if reading.stock_count == 0 else ()),
        *([BLOCKED_WITHIN_S] if state.blocked_lots else ()),
        *([SOLD_OUT_WITHIN_S] if sold_out >= SOLD_OUT_SHARE * len(stock) else ()),
        *([EXPIRED_WITHIN_S] if _expired_since_hours(reading) >= EXPIRED_HOURS else ()),
    ]
    left_hours = hours_left(state.habit, on_hand, now_ms)
    if left_hours is not None:
        due_within_s.append(max(URGENT_WITHIN_S, left_hours * SECONDS_PER_HOUR))
    if not due_within_s:
        return None
    within_s = min(due_within_s)
    visit_ms = now_ms + round(within_s / 2 * MILLISECONDS_PER_SECOND)
    expired = expired_count(reading)
    return Need(
        cause=f"restock:{state.device_id}:{state.cycle}",
        skill="restock",
        title=Text(
            f"补货:剩余 {on_hand} 份,{sold_out} 种售罄,{expired} 份过期",
            f"Restock: {on_hand} boxes left, {sold_out} meals sold out, {expired} boxes expired",
        ),
        priority=Priority.HIGH if reading.stock_count == 0 else Priority.MEDIUM,
        due_within_s=within_s,
        items=_pick_list(state, stock, visit_ms),
    )


def _expired_since_hours(reading: Any) -> float:
    """For how long the oldest box inside can't be sold any more."""
    ends = [lot.expires_at for slot in reading.slots for lot in slot.lots if lot.count and lot.expires_at <= reading.at]
    return (reading.at - min(ends)) / MS_PER_HOUR if ends else 0.0
