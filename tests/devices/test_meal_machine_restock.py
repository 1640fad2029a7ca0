"""When a machine asks for boxes, and for how many."""

import math
import random

import pytest
from meal_machine_bench import START_MS, Bench, hex_id

from devices.meal_machine import messages, restock, state

HOUR_MS = 3_600_000


@pytest.mark.parametrize("mean", [0.0, 0.3, 2.0, 12.0, 80.0])
@pytest.mark.parametrize("level", [0.5, 0.6, 0.95])
def test_poisson_quantile_is_the_smallest_count_that_reaches_the_level(mean, level):
    def cumulated(count):
        return sum(
            math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) if mean else float(k == 0)
            for k in range(count + 1)
        )

    found = restock.poisson_quantile(mean, level)
    assert cumulated(found) >= level - 1e-12
    assert found == 0 or cumulated(found - 1) < level


def test_the_estimate_converges_to_the_true_rate():
    randomness = random.Random(4)
    now = state.State(device_id="meal-001", demand={"eel-rice": state.Demand(state.PRIOR_SALES_PER_HOUR, START_MS)})
    at, rates = START_MS, []
    for number in range(2000):
        at += round(randomness.expovariate(2.0) * HOUR_MS)
        sale = messages.SaleReserved(
            event_id=hex_id(number),
            purchase_id=hex_id(1),
            command_id=hex_id(2),
            sku="eel-rice",
            slot="A1",
            lot="L2027011500",
        )
        now = state.apply_event(now, sale, at)
        rates.append(now.demand["eel-rice"].per_hour)
    assert sum(rates[200:]) / len(rates[200:]) == pytest.approx(2.0, rel=0.1)


def test_faster_meals_are_filled_higher_and_never_above_the_slots():
    assert restock.order_up_to(0.05, 10) < restock.order_up_to(0.3, 10) <= restock.order_up_to(5.0, 10) == 10


def test_a_busier_machine_orders_earlier():
    assert restock.reorder_point(1.0) < restock.reorder_point(2.4) < restock.reorder_point(5.0)


def test_one_need_per_cycle_and_the_next_one_after_the_visit():
    bench = Bench(stock_share=0.1)
    bench.run(5)
    now = state.apply_reading(state.initial("meal-001"), bench.readings[-1])
    need = restock.restock_need(now, START_MS)
    assert need is not None
    assert need.cause == "restock:meal-001:0"
    assert need.items
    assert all(count > 0 for count in need.items.values())
    assert restock.restock_need(now, START_MS + 1).cause == need.cause

    bench.act("restock", items=dict(need.items))
    bench.run(600)
    for _, event in bench.events:
        now = state.apply_event(now, event, bench.now_ms)
    now = state.apply_reading(now, bench.readings[-1])
    assert restock.restock_need(now, bench.now_ms) is None, "bringing the pick list settles the need"
    assert now.cycle == 1
