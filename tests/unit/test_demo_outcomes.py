"""Unlocks, sales, readings and single-ness: each fault that is planted is counted, and nothing else is."""

import asyncio
import copy
import dataclasses
import sqlite3
from contextlib import closing

import pytest

from cli.demo import holdings, outcomes, people
from cli.demo.holdings import Holdings, Purchase, Ride
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.wallet import ledger

ROOM = "room-001"


def line(what, *, kind="bike", device_id="bike-001", state="intact", **facts):
    return {"what": what, "kind": kind, "device_id": device_id, "line": state, "facts": facts, "event_id": None}


def purchase(name, state, *, charged=True, net_fen=0):
    return Purchase(id=name, state=state, charged=charged, net_fen=net_fen)


HELD = Holdings(
    rides=(Ride(id="r1", command_id="c1", begun=True), Ride(id="r2", command_id="c2", begun=False)),
    purchases=(purchase("s1", "delivered", net_fen=900), purchase("s2", "refunded")),
    press_event_ids=("p1", "p2"),
    open_order_needs=("need:meal-001:restock", "need:meal-002:restock"),
    order_causes=("need:meal-001:restock:1", "need:meal-002:restock:1"),
    ledger_problems=(),
)
TRUTH = [line("lock_opened", command_id="c1"), line("box_dropped", kind="meal_machine", purchase_id="s1")]


def held(**changes):
    return dataclasses.replace(HELD, **changes)


# --- unlocks and sales -----------------------------------------------------------------------------------------------


def test_a_ride_counts_as_opened_when_the_lock_opened_for_its_command():
    assert outcomes.compare_unlocks(["r1", "r2"], HELD, TRUTH) == outcomes.Unlocks(opened=1, unproven=0)


@pytest.mark.parametrize("truth", [[], [line("lock_opened")], [line("lock_opened", command_id="other")]])
def test_a_ride_whose_lock_never_opened_for_it_is_unproven(truth):
    assert outcomes.compare_unlocks(["r1", "r2"], HELD, truth) == outcomes.Unlocks(opened=0, unproven=1)


def test_sales_that_the_machine_and_the_ledger_confirm_have_no_fault():
    assert outcomes.compare_sales(["s1", "s2"], HELD, TRUTH) == outcomes.Sales(1, 1, 0, 0, 0)


def test_delivered_without_a_box_is_no_delivery():
    assert outcomes.compare_sales(["s1", "s2"], HELD, []) == outcomes.Sales(0, 1, 1, 0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        purchase("s3", "refunded", net_fen=900),
        purchase("s3", "refunded", charged=False),
        purchase("s3", "cancelled", net_fen=900),
        purchase("s3", "manual", net_fen=900),
    ],
)
def test_paid_and_neither_meal_nor_money_is_unsettled(bad):
    found = outcomes.compare_sales(["s1", "s2", "s3"], held(purchases=(*HELD.purchases, bad)), TRUTH)
    assert found == outcomes.Sales(1, 1, 0, 1, 0)


def test_a_sale_on_its_way_and_one_that_was_never_paid_are_no_faults():
    more = (purchase("s3", "heating", net_fen=900), purchase("s4", "payment_failed", charged=False))
    assert outcomes.compare_sales([], held(purchases=more), TRUTH) == outcomes.Sales(0, 0, 0, 0, 0)


def test_a_purchase_that_the_cloud_forgot_is_unknown():
    assert outcomes.compare_sales(["s1", "s9"], HELD, TRUTH).unknown == 1


# --- readings --------------------------------------------------------------------------------------------------------


def reading(at, state="intact", **facts):
    return line("reading", kind="nursing_room", device_id=ROOM, state=state, at=at, air=21.5, note=None, **facts)


READINGS = [reading(1), reading(2), reading(3)]
SERIES = {ROOM: {at: [{"air": 21.5, "message_seq": at}] for at in (1, 2, 3)}}


def compare(truth, stored, **options):
    return outcomes.compare_telemetry("nursing_room", truth, stored, until_ms=3, **options)


def test_a_complete_series_has_lost_and_doubled_nothing():
    assert compare(READINGS, SERIES) == outcomes.Telemetry(compared=3, lost=0, doubled=0)


def test_a_missing_and_an_altered_reading_are_lost():
    missing, altered = copy.deepcopy(SERIES), copy.deepcopy(SERIES)
    del missing[ROOM][2]
    altered[ROOM][2][0]["air"] = 21.6
    assert compare(READINGS, missing).lost == compare(READINGS, altered).lost == 1
    assert compare(READINGS, {}).lost == 3


def test_a_damaged_or_a_late_reading_need_not_be_there_but_may():
    extra = [*READINGS, reading(0, "damaged"), reading(9)]
    there = {ROOM: {**SERIES[ROOM], 0: [{"air": 21.5}], 9: [{"air": 21.5}]}}
    assert compare(extra, SERIES) == compare(extra, there) == outcomes.Telemetry(compared=3, lost=0, doubled=0)


def test_a_second_point_of_one_reading_and_one_of_none_are_doubled():
    twice = {ROOM: {**SERIES[ROOM], 2: SERIES[ROOM][2] * 2}}
    invented = {ROOM: {**SERIES[ROOM], 8: [{"air": 1.0}]}}
    assert compare(READINGS, twice).doubled == compare(READINGS, invented).doubled == 1


def test_of_too_many_the_newest_are_compared():
    assert compare(READINGS, {}, compared_max=2) == outcomes.Telemetry(compared=2, lost=2, doubled=0)


# --- only once -------------------------------------------------------------------------------------------------------


def told(delivery_id, event_id="p1", title="call", step="press"):
    notification = {
        "kind_of": "call",
        "reference": "c",
        "title_en": title,
        "facts": {"event_id": event_id, "step": step},
    }
    return {"delivery_id": delivery_id, "notification": notification}


def test_what_is_single_is_not_doubled():
    assert outcomes.doubled_calls(HELD) == outcomes.doubled_orders(HELD) == 0
    repeated = [told("d1"), told("d1"), told("d2", "p2"), told("d3", step="escalate"), told("d4", step="escalate")]
    assert outcomes.doubled_notices(repeated) == 0


def test_a_press_taken_twice_and_an_order_made_twice_are_counted():
    assert outcomes.doubled_calls(held(press_event_ids=("p1", "p2", "p1"))) == 1
    assert outcomes.doubled_orders(held(order_causes=("a", "a", "a"))) == 2
    assert outcomes.doubled_orders(held(open_order_needs=("need:meal-001:restock",) * 2)) == 1


def test_another_content_under_one_delivery_and_a_second_page_for_one_press_are_counted():
    assert outcomes.doubled_notices([told("d1"), told("d1", title="other")]) == 1
    assert outcomes.doubled_notices([told("d1"), told("d2")]) == 1


# --- what the cloud holds --------------------------------------------------------------------------------------------


@pytest.fixture
def state_file(tmp_path):
    upgrade(f"sqlite:///{tmp_path / 'state.db'}")
    return tmp_path / "state.db"


def test_the_ledger_says_what_was_charged_and_given_back(state_file):
    def book(tx):
        ledger.post(tx, "top_up:1", "top_up:1", {"wallet:a": 5_000, ledger.FUNDING: -5_000}, 1)
        for name in ("s1", "s2"):
            ledger.post(tx, f"purchase:{name}", name, {"wallet:a": -900, ledger.SALES: 900}, 1)
        ledger.post(tx, "refund:s2", "s2", {"wallet:a": 900, ledger.SALES: -900}, 2)
        for name, state in (("s1", "delivered"), ("s2", "refunded"), ("s3", "payment_failed")):
            tx.exec_driver_sql(
                "INSERT INTO purchase"
                " (id, person_id, device_id, sku, price_fen, state, asked_at, deadline_at, changed_at)"
                " VALUES (?, 'a', 'meal-001', 'eel-rice', 900, ?, 1, 1, 1)", (name, state),
            )  # fmt: skip

    database = SqlDatabase(f"sqlite:///{state_file}")
    database.write_here(book)
    database.close()
    found = holdings.read_holdings(state_file)
    assert set(found.purchases) == {
        purchase("s1", "delivered", net_fen=900),
        purchase("s2", "refunded"),
        purchase("s3", "payment_failed", charged=False),
    }
    assert found.ledger_problems == ()


def test_the_series_is_behind_until_its_mark_reaches_that_of_the_twins(state_file):
    assert holdings.series_caught_up(state_file)
    with closing(sqlite3.connect(state_file)) as state:
        state.execute("INSERT INTO spool_mark VALUES ('s', 'twin', 7)")
        state.commit()
        assert not holdings.series_caught_up(state_file)
        state.execute("INSERT INTO spool_mark VALUES ('s', 'series', 7)")
        state.commit()
    assert holdings.series_caught_up(state_file)


def test_a_series_without_a_point_has_none(tmp_path):
    assert not holdings.has_points(tmp_path / "missing.db")


def test_orders_are_counted_over_all_pages():
    class Orders:
        async def call(self, _method, path):
            offset = int(path.rpartition("=")[2])
            everything = [
                {"id": str(number), "skill": "restock" if number % 2 else "repair"} for number in range(1_201)
            ]
            return {"orders": everything[offset : offset + people.ORDERS_PER_PAGE]}

    assert asyncio.run(people.count_orders(Orders(), "restock")) == 600
