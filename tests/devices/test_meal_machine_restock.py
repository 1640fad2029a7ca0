"""When a machine asks for boxes, and for how many."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meal_machine_bench import START_MS, Bench, hex_id

from devices.meal_machine import forecast, messages, restock, state

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


def sale(number, sku="eel-rice"):
    return messages.SaleReserved(
        event_id=hex_id(number), purchase_id=hex_id(1), command_id=hex_id(2), sku=sku, slot="A1", lot="L2027011500"
    )


def test_meals_share_the_sales_as_they_are_taken():
    randomness = random.Random(4)
    now, at = state.State(device_id="meal-001"), START_MS
    for number in range(2000):
        at += round(randomness.expovariate(2.0) * HOUR_MS)
        now = state.apply_event(now, sale(number, randomness.choice(("eel-rice", "eel-rice", "mapo-tofu"))), at)
    taken = {sku: estimate.rate_at(at) for sku, estimate in now.demand.items()}
    assert taken["eel-rice"] / sum(taken.values()) == pytest.approx(2 / 3, rel=0.1)


def test_the_hours_of_workdays_and_weekends_are_learnt_apart():
    """Four weeks of a curve that is not the prior's: 12 boxes at six in the evening of workdays, 3 at weekends."""
    monday = 1_799_596_800_000
    assert forecast.cell_of(forecast.local_hour_number(monday)) == 0
    assert forecast.cell_of(forecast.local_hour_number(monday - 1)) == 47
    habit = forecast.Habit()
    for day in range(28):
        for box in range(12 if day % 7 < 5 else 3):
            habit = habit.at(monday + day * 24 * HOUR_MS + 18 * HOUR_MS + box * 60_000, sold=1)
    evening, noon = monday + 28 * 24 * HOUR_MS + 18 * HOUR_MS, monday + 28 * 24 * HOUR_MS + 12 * HOUR_MS
    assert habit.expected(evening, 1) == pytest.approx(12, rel=0.05)
    assert habit.expected(evening + 30 * 60_000, 1) == pytest.approx(6, rel=0.1)
    assert habit.expected(evening + 5 * 24 * HOUR_MS, 1) == pytest.approx(3, rel=0.15)
    assert habit.expected(noon, 1) < 0.2
    assert habit.expected(noon, 24) == pytest.approx(12, rel=0.15)


def test_a_clock_that_was_set_back_does_not_stop_the_learning():
    noon, ahead = 1_799_640_000_000, 1_799_640_000_000 + 30 * 24 * HOUR_MS
    back = forecast.Habit().at(ahead, sold=1).at(noon, sold=1).at(noon + HOUR_MS, sold=1)
    later = back.at(noon + 2 * HOUR_MS, sold=1)
    assert later.hour == forecast.local_hour_number(noon + 2 * HOUR_MS)
    assert later.expected(noon + HOUR_MS, 1) < back.expected(noon + HOUR_MS, 1), "one box where four were expected"


def test_hours_in_which_it_could_not_sell_are_no_quiet_hours():
    noon = 1_799_640_000_000
    habit = forecast.Habit().at(noon - HOUR_MS, sold=1)
    empty = habit.at(noon, can_sell=False).at(noon + 2 * HOUR_MS, sold=1)
    quiet = habit.at(noon + 2 * HOUR_MS, sold=1)
    assert empty.expected(noon + 24 * HOUR_MS, 1) == habit.expected(noon + 24 * HOUR_MS, 1)
    assert quiet.expected(noon + 24 * HOUR_MS, 1) < habit.expected(noon + 24 * HOUR_MS, 1)


def test_faster_meals_are_filled_higher_and_never_above_the_slots():
    assert restock.order_up_to(1.0, 10) < restock.order_up_to(6.0, 10) <= restock.order_up_to(50.0, 10) == 10


def test_a_busier_machine_and_a_busier_hour_leave_less_time():
    morning, evening = 1_799_625_600_000, 1_799_661_600_000  # 8:00 and 18:00 of a Monday
    calm, busy = forecast.Habit(), forecast.Habit(tuple(2 * sales for sales in forecast.PRIOR_PER_HOUR))
    assert restock.hours_left(busy, 10, morning) < restock.hours_left(calm, 10, morning)
    assert restock.hours_left(calm, 20, evening) > restock.hours_left(calm, 20, morning)
    assert restock.hours_left(calm, 80, morning) is None
    assert restock.hours_left(calm, 0, morning) == 0.0


@given(stock=st.integers(0, 80), hour=st.integers(0, 24 * 7), factor=st.floats(0.0, 5.0))
def test_so_long_the_boxes_last_and_half_an_hour_longer_they_may_not(stock, hour, factor):
    habit = forecast.Habit(tuple(factor * sales for sales in forecast.PRIOR_PER_HOUR))
    now_ms = START_MS + hour * HOUR_MS
    left = restock.hours_left(habit, stock, now_ms)

    def enough(hours):
        return restock.poisson_quantile(habit.expected(now_ms, hours), restock.SERVICE_LEVEL) <= stock

    if left is None:
        assert enough(restock.HORIZON_HOURS)
    else:
        assert enough(left) or left == 0
        assert not enough(left + 0.5)


@pytest.mark.parametrize(
    "trouble", [{"stock_count": 0}, {"locked_out": True}, {"heater_fault": True}, {"mains_power": False}], ids=str
)
def test_a_machine_that_cannot_sell_learns_no_quiet_hours_from_that(trouble):
    bench = Bench()
    bench.run(5)
    well = bench.readings[-1]
    before = state.apply_event(state.initial("meal-001"), sale(1), well.at)
    for hours in range(1, 5):
        step = well.model_copy(update={"at": well.at + hours * HOUR_MS, **trouble})
        before = state.apply_reading(before, step)
    after = state.apply_event(before, sale(2), well.at + 5 * HOUR_MS)
    assert after.habit.per_hour == before.habit.per_hour


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
