"""The sale's table: every illegal step is refused, and money can't get stuck."""

import itertools

import pytest

from cloud.meals.lifecycle import FINAL, SALE, SaleState, SaleStep
from fleet.lifecycle import IllegalTransitionError

LEGAL = set(SALE.table)
ILLEGAL = [pair for pair in itertools.product(SaleState, SaleStep) if pair not in LEGAL]


@pytest.mark.parametrize(("state", "step"), ILLEGAL, ids=lambda value: value.value)
def test_illegal_steps_are_refused(state, step):
    with pytest.raises(IllegalTransitionError):
        SALE.next(state, step)


def test_every_state_is_reachable_and_final_ones_have_no_way_out():
    assert SALE.reachable() == frozenset(SaleState)
    assert {state for state, _ in SALE.table}.isdisjoint(FINAL)
    assert {state for state, _ in SALE.table} | FINAL == set(SaleState)


def test_delivered_and_refunded_exclude_each_other():
    after_delivery = {to for (origin, _), to in SALE.table.items() if origin is SaleState.DELIVERED}
    assert after_delivery == set()
    into_refunded = {origin for (origin, _), to in SALE.table.items() if to is SaleState.REFUNDED}
    assert into_refunded == {SaleState.REFUND_PENDING}


def test_nothing_is_refunded_that_was_not_paid():
    """Without the step `pay` no refund can be reached."""
    seen, frontier = set(), {SALE.initial}
    while frontier:
        seen |= frontier
        reached = {to for (origin, step), to in SALE.table.items() if origin in frontier and step is not SaleStep.PAY}
        frontier = reached - seen
    assert seen.isdisjoint({SaleState.REFUND_PENDING, SaleState.REFUNDED, SaleState.DELIVERED})
