"""Buying a meal through the API, against a simulated machine behind its driver and a real SQLite file."""

import asyncio

import pytest
from meals_bench import MACHINE
from meals_cases import BODY, PRICE, buy, look
from pydantic import ValidationError
from sqlalchemy import select, update

from cloud import tables
from cloud.wallet import idempotency
from devices.meal_machine.messages import SetMenu
from fleet.messages import Reply, ReplyStatus

pytest_plugins = ("meals_cases",)


async def test_a_meal_is_sold(bench):
    answer = await buy(bench)
    assert answer.status_code == 201, answer.text
    bought = answer.json()
    assert answer.headers["location"] == f"/api/v1/purchases/{bought['id']}"
    assert (bought["state"], bought["price_fen"]) == ("paid", PRICE)
    assert bench.balance() == 20_000 - PRICE
    await bench.run(100)
    found = (await look(bench, bought["id"])).json()
    assert found["state"] == "delivered"
    assert found["final"] is True
    steps = [step["event"] for step in found["steps"]]
    assert steps == ["ask_payment", "pay", "reserve", "heat", "dispense", "deliver"]
    assert bench.outcomes() == {bought["id"]: "box"}
    assert bench.balance() == 20_000 - PRICE


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("jam_per_sale", "jam"), ("heater_fault_per_sale", "heater_fault"), ("missed_drop_per_sale", "unknown")],
)
async def test_what_was_not_delivered_is_refunded_once_with_its_reason(make, fault, reason):
    bench = await make(faults={fault: 1.0})
    bought = (await buy(bench)).json()
    await bench.run(300)
    found = (await look(bench, bought["id"])).json()
    assert (found["state"], found["reason"]) == ("refunded", reason)
    assert bench.balance() == 20_000
    assert found["refunded_at"] - found["paid_at"] <= 180_000
    rows = bench.database.read_here(lambda tx: list(tx.execute(select(tables.ledger_transaction.c.id))))
    assert [row.id for row in rows].count(f"refund:{bought['id']}") == 1


async def test_the_same_key_gets_the_first_answer_again_and_charges_once(bench):
    first = await buy(bench)
    await bench.run(100)
    again = await buy(bench)
    assert again.status_code == 201
    assert again.json() == first.json(), "the first answer, not the present state"
    assert again.headers["idempotency-replayed"] == "true"
    assert bench.balance() == 20_000 - PRICE
    reordered = await buy(bench, body={"sku": BODY["sku"], "device_id": MACHINE})
    assert reordered.json() == first.json()


async def test_the_same_key_for_something_else_is_refused(bench):
    await buy(bench)
    other = await buy(bench, body={**BODY, "sku": "eel-rice"})
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert bench.balance() == 20_000 - PRICE


async def test_keys_belong_to_people(bench):
    ann, bo = await buy(bench, person="ann"), await buy(bench, person="bo")
    assert ann.json()["id"] != bo.json()["id"]
    assert (bench.balance("ann"), bench.balance("bo")) == (20_000 - PRICE, 20_000 - PRICE)


async def test_many_requests_with_one_key_at_once_charge_once(bench):
    answers = await asyncio.gather(*(buy(bench) for _ in range(20)))
    created = [answer for answer in answers if answer.status_code == 201]
    waiting = [answer for answer in answers if answer.status_code == 409]
    assert created
    assert len(created) + len(waiting) == 20
    assert {answer.json()["code"] for answer in waiting} <= {"in_flight"}
    assert len({answer.json()["id"] for answer in created}) == 1
    assert bench.balance() == 20_000 - PRICE
    commands = bench.database.read_here(lambda tx: list(tx.execute(select(tables.command))))
    assert len(commands) == 1


async def test_a_request_in_flight_is_told_so_and_a_dead_one_is_taken_over(bench):
    def begin(tx):
        body_hash = idempotency.fingerprint("purchase", BODY)
        idempotency.claim(tx, "ann", "key-00000001", body_hash, now_ms=bench.now_ms, take_over_before_ms=0)

    bench.database.write_here(begin)
    answer = await buy(bench)
    assert (answer.status_code, answer.json()["code"]) == (409, "in_flight")
    assert answer.headers["retry-after"] == "1"
    await bench.run(11)
    assert (await buy(bench)).status_code == 201
    assert bench.balance() == 20_000 - PRICE


async def test_a_crash_between_intent_and_payment_is_taken_up_by_the_repeat(bench, monkeypatch):
    monkeypatch.setattr(bench.meals, "_pay_and_order", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        await buy(bench)
    assert bench.balance() == 20_000
    monkeypatch.undo()
    await bench.run(11)
    bought = (await buy(bench)).json()
    await bench.run(100)
    assert (await look(bench, bought["id"])).json()["state"] == "delivered"
    assert bench.balance() == 20_000 - PRICE


async def test_a_crash_before_payment_that_nobody_repeats_ends_cancelled(bench, monkeypatch):
    monkeypatch.setattr(bench.meals, "_pay_and_order", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        await buy(bench)
    await bench.run(200, step_s=10)
    async with bench.client() as client:
        (listed,) = (await client.get("/api/v1/purchases")).json()["purchases"]
    assert listed["state"] == "cancelled"
    assert bench.balance() == 20_000


async def test_without_money_nothing_is_asked_of_the_machine(make):
    bench = await make(balance_fen=PRICE - 1)
    answer = await buy(bench)
    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_funds")
    await bench.run(120)
    assert bench.outcomes() == {}
    assert (await buy(bench)).status_code == 402, "the first answer again"
    assert (await look(bench, answer.json()["purchase_id"])).json()["state"] == "payment_failed"


async def test_an_unreachable_machine_leads_to_a_refund_by_the_deadline(bench):
    bench.connected = False
    bought = (await buy(bench)).json()
    await bench.run(20)
    assert (await look(bench, bought["id"])).json()["state"] == "in_doubt"
    await bench.run(165)
    found = (await look(bench, bought["id"])).json()
    assert (found["state"], found["reason"]) == ("refunded", "link_lost")
    bench.connected = True
    await bench.run(200)
    assert bench.outcomes() == {}, "the command expired: the machine must not vend later"
    assert bench.balance() == 20_000


@pytest.mark.parametrize("status", [ReplyStatus.EXPIRED, ReplyStatus.REFUSED])
async def test_a_machine_that_says_it_did_not_act_leads_to_a_refund_at_once(bench, status):
    bench.connected = False
    bought = (await buy(bench)).json()
    await bench.run(2)
    command_id = bench.database.read_here(lambda tx: tx.execute(select(tables.purchase.c.command_id)).scalar_one())
    said = Reply(command_id=command_id, device_id=MACHINE, status=status, reason="expired", at=bench.now_ms)
    (outcome,) = bench.database.write_here(lambda tx: bench.commands.record_replies(tx, [said], bench.now_ms))
    assert outcome.by_device
    found = (await look(bench, bought["id"])).json()
    assert (found["state"], found["reason"]) == ("refunded", "expired")
    assert bench.balance() == 20_000


async def test_a_machine_that_comes_back_and_read_the_order_too_late_leads_to_a_refund_at_once(bench):
    bench.connected = False
    bought = (await buy(bench)).json()
    await bench.run(20)  # the cloud has given up waiting for an answer
    assert (await look(bench, bought["id"])).json()["state"] == "in_doubt"
    command_id = bench.database.read_here(lambda tx: tx.execute(select(tables.purchase.c.command_id)).scalar_one())
    for device_id, state in (("bike-001", "in_doubt"), (MACHINE, "refunded"), (MACHINE, "refunded")):
        said = Reply(
            command_id=command_id, device_id=device_id, status=ReplyStatus.EXPIRED, reason="expired", at=bench.now_ms
        )
        bench.database.write_here(lambda tx, said=said: bench.commands.record_replies(tx, [said], bench.now_ms))
        assert (await look(bench, bought["id"])).json()["state"] == state
    assert bench.balance() == 20_000


async def test_an_edge_that_lost_its_storage_proves_nothing(bench):
    bench.connected = False
    bought = (await buy(bench)).json()
    await bench.run(2)
    command_id = bench.database.read_here(lambda tx: tx.execute(select(tables.purchase.c.command_id)).scalar_one())
    said = Reply(
        command_id=command_id, device_id=MACHINE, status=ReplyStatus.REFUSED, reason="wrong_generation", at=bench.now_ms
    )
    bench.database.write_here(lambda tx: bench.commands.record_replies(tx, [said], bench.now_ms))
    found = (await look(bench, bought["id"])).json()
    assert (found["state"], found["reason"]) == ("in_doubt", "wrong_generation")


async def test_a_meal_without_a_price_is_not_sold_and_no_menu_may_give_it_none(bench):
    twin = tables.twin
    state = bench.database.read_here(lambda tx: tx.execute(select(twin.c.state)).scalar_one())
    assert f'"price_fen":{PRICE}' in state
    free = state.replace(f'"price_fen":{PRICE}', '"price_fen":0')
    bench.database.write_here(lambda tx: tx.execute(update(twin).values(state=free)))
    answer = await buy(bench)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_priced")
    async with bench.client() as client:
        assert (await client.get("/api/v1/purchases")).json()["purchases"] == []
    with pytest.raises(ValidationError):
        SetMenu(slot="A1", sku="mapo-tofu", price_fen=0)


async def test_a_link_lost_in_mid_sale_still_ends_delivered_when_the_proof_arrives_in_time(bench):
    bought = (await buy(bench)).json()
    await bench.run(3)
    bench.connected = False
    await bench.run(120)
    assert (await look(bench, bought["id"])).json()["state"] in {"paid", "reserved", "heating"}
    bench.connected = True
    await bench.run(2)
    assert (await look(bench, bought["id"])).json()["state"] == "delivered"
    assert bench.balance() == 20_000 - PRICE


async def test_proof_after_the_refund_is_recorded_and_charges_nothing(bench):
    bought = (await buy(bench)).json()
    await bench.run(3)
    bench.connected = False
    await bench.run(200)
    assert (await look(bench, bought["id"])).json()["state"] == "refunded"
    bench.connected = True
    await bench.run(2)
    found = (await look(bench, bought["id"])).json()
    assert (found["state"], found["reason"]) == ("refunded", "delivered_late")
    assert bench.balance() == 20_000


async def test_a_brown_out_in_mid_sale_is_refunded_and_vends_nothing_later(bench):
    bought = (await buy(bench)).json()
    await bench.run(30)
    bench.act("brown_out")
    await bench.run(200)
    found = (await look(bench, bought["id"])).json()
    assert (found["state"], found["reason"]) == ("refunded", "power_lost")
    assert bench.outcomes() == {bought["id"]: "none"}


async def test_cancelling_refunds_and_keeps_the_motor_still(bench):
    bought = (await buy(bench)).json()
    await bench.run(10)
    async with bench.client() as client:
        answer = await client.post(f"/api/v1/purchases/{bought['id']}/cancel")
        assert answer.status_code == 202
        await bench.run(5)
        found = (await client.get(f"/api/v1/purchases/{bought['id']}")).json()
        assert (found["state"], found["reason"]) == ("refunded", "cancelled")
        again = await client.post(f"/api/v1/purchases/{bought['id']}/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "too_late")
    assert bench.simulator.snapshot()["motor_runs"] == {}
