"""Buying a meal through the API, against a simulated machine behind its driver and a real SQLite file."""

import asyncio

import pytest
import pytest_asyncio
from meals_bench import MACHINE, MealsBench
from sqlalchemy import select

from cloud import tables
from cloud.meals import repository, sales
from cloud.meals.lifecycle import SaleState
from cloud.wallet import idempotency, ledger
from devices.meal_machine.messages import UnlockAfterService

BODY = {"device_id": MACHINE, "sku": "mapo-tofu"}
PRICE = 1500


@pytest.fixture
def make(tmp_path):
    made = []

    async def build(**options):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        bench = MealsBench(folder, **options)
        made.append(bench)
        await bench.run(5)
        return bench

    yield build
    for bench in made:
        assert bench.ledger_problems() == []
        bench.close()


@pytest_asyncio.fixture
async def bench(make):
    return await make()


async def buy(bench, key="key-00000001", person="ann", body=None, **more):
    async with bench.client(person) as client:
        return await client.post("/api/v1/purchases", json=body or BODY, headers={"idempotency-key": key}, **more)


async def look(bench, purchase_id, person="ann", **query):
    async with bench.client(person) as client:
        return await client.get(f"/api/v1/purchases/{purchase_id}", params=query)


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


async def test_honest_stock_counts_what_is_sold_and_not_yet_set_aside(make):
    bench = await make(stock_share=0.0)
    bench.act("restock", items={"mapo-tofu": 1}, visit_s=1)
    await bench.run(5)

    async def offered():
        async with bench.client() as client:
            (machine,) = (await client.get("/api/v1/machines")).json()["machines"]
        return machine["obstacle"], {meal["sku"]: meal["stock_count"] for meal in machine["menu"]}

    obstacle, stock = await offered()
    assert obstacle == ""
    assert stock["mapo-tofu"] == 1
    assert stock["eel-rice"] == 0
    await buy(bench)
    assert (await offered())[1]["mapo-tofu"] == 0
    refused = await buy(bench, key="key-00000002", person="bo")
    assert (refused.status_code, refused.json()["code"]) == (409, "sold_out")
    assert bench.balance("bo") == 20_000


async def test_machines_show_price_expiry_and_allergens(bench):
    async with bench.client() as client:
        (machine,) = (await client.get("/api/v1/machines")).json()["machines"]
    meal = next(meal for meal in machine["menu"] if meal["sku"] == "mapo-tofu")
    assert meal["price_fen"] == PRICE
    assert meal["expires_at"] > bench.now_ms
    assert meal["stock_count"] == 10
    assert "soy" in meal["allergens_en"]
    assert meal["title_zh"].startswith("麻婆豆腐")


@pytest.mark.parametrize(("action", "obstacle"), [("open_door", "door_open"), ("power_off", "power_lost")])
async def test_a_machine_that_can_not_sell_takes_no_money(bench, action, obstacle):
    bench.act(action)
    await bench.run(2)
    answer = await buy(bench)
    assert (answer.status_code, answer.json()["code"]) == (409, obstacle)
    assert bench.balance() == 20_000


async def test_a_silent_machine_is_offline(bench):
    bench.connected = False
    await bench.run(120, step_s=10)
    assert (await buy(bench)).json()["code"] == "offline"


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        ({**BODY, "device_id": "meal-999"}, "key-00000001", 404, "not_found"),
        ({**BODY, "device_id": "bike-001"}, "key-00000001", 404, "not_found"),
        ({**BODY, "sku": "caviar"}, "key-00000001", 404, "not_found"),
        ({**BODY, "price_fen": 1}, "key-00000001", 422, "invalid_input"),
        ({**BODY, "device_id": 7}, "key-00000001", 422, "invalid_input"),
        (BODY, "short", 422, "invalid_input"),
        (BODY, None, 422, "invalid_input"),
    ],
)
async def test_what_can_not_be_bought(bench, body, key, status, code):
    async with bench.client() as client:
        headers = {"idempotency-key": key} if key else {}
        answer = await client.post("/api/v1/purchases", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert bench.balance() == 20_000


async def test_purchases_are_their_owners_alone(bench):
    bought = (await buy(bench)).json()
    assert (await look(bench, bought["id"], person="bo")).status_code == 404
    assert (await look(bench, bought["id"], person="admin")).status_code == 200
    async with bench.client("bo") as client:
        assert (await client.get("/api/v1/purchases")).json()["purchases"] == []
        assert (await client.post(f"/api/v1/purchases/{bought['id']}/cancel")).status_code == 404
    assert (await buy(bench, person="crew")).status_code == 403
    assert (await buy(bench, person="nobody")).status_code == 401


async def test_pages_of_purchases_hold_everything_once(bench):
    for number in range(5):
        await buy(bench, key=f"key-0000000{number}")
        await bench.run(100, step_s=2)
    async with bench.client() as client:
        seen, before = [], None
        while True:
            page = (
                await client.get("/api/v1/purchases", params={"limit": 2, **({"before": before} if before else {})})
            ).json()
            seen += [one["id"] for one in page["purchases"]]
            before = page["next_before"]
            if before is None:
                break
    assert len(seen) == len(set(seen)) == 5


async def test_too_many_open_purchases_are_refused(bench):
    bench.connected = False
    for number in range(5):
        assert (await buy(bench, key=f"key-0000000{number}")).status_code == 201
    sixth = await buy(bench, key="key-0000000x")
    assert (sixth.status_code, sixth.json()["code"]) == (409, "too_many_open")


async def test_waiting_returns_as_soon_as_the_state_changes(bench):
    bought = (await buy(bench)).json()
    waiting = asyncio.ensure_future(look(bench, bought["id"], wait_s=30, state="paid"))
    while not bench.changes.subscribers:  # noqa: ASYNC110  # until the request waits; nothing tells that
        await asyncio.sleep(0)
    await bench.run(2)
    await bench.meals._tell_changed(bench.now_ms)
    found = (await asyncio.wait_for(waiting, 10)).json()
    assert found["state"] in {"reserved", "heating"}


async def test_sale_events_reach_the_owners_open_pages_once_per_state(bench):
    bought = (await buy(bench)).json()
    with bench.changes.subscribe() as subscription:
        cursor = bench.now_ms
        states = []
        for _ in range(50):
            await bench.run(2)
            cursor = await bench.meals._tell_changed(cursor)
            while subscription.pending:
                change = await subscription.next()
                assert change.facts["person_id"] == "ann"
                assert change.facts["id"] == bought["id"]
                states.append(change.facts["state"])
    assert states in (["heating", "dispensing", "delivered"], ["reserved", "heating", "dispensing", "delivered"])


async def test_another_machines_event_can_not_end_a_purchase(bench):
    from cloud.model import StoredEvent
    from devices.meal_machine.messages import SaleDelivered

    bought = (await buy(bench)).json()
    row = bench.database.read_here(lambda tx: repository.by_id(tx, bought["id"]))
    event = SaleDelivered(
        event_id="ab" * 16, purchase_id=row.id, command_id=row.command_id, sku="mapo-tofu", slot="A4", lot="L2027011500"
    )
    forged = StoredEvent("meal-002", "meal_machine", event.type, event.event_id, bench.now_ms, bench.now_ms, event)
    bench.database.write_here(lambda tx: sales.on_event(tx, forged))
    assert (await look(bench, row.id)).json()["state"] == "paid"


async def _serve(bench):
    """A technician repairs the machine and unlocks it."""
    bench.act("repair")
    bench.database.write_here(lambda tx: bench.commands.order(tx, MACHINE, UnlockAfterService(), actor="crew"))
    await bench.run(5)


async def test_every_purchase_ends_delivered_or_refunded_through_a_day_of_faults(make):
    """What was charged equals what left the machine, up to what nobody could prove."""
    faults = {
        "jam_per_sale": 0.15, "missed_drop_per_sale": 0.1, "heater_fault_per_sale": 0.05, "crc_error_per_frame": 0.1,
        "dropped_byte_per_frame": 0.1, "brown_outs_per_hour": 4.0,
    }  # fmt: skip
    bench = await make(faults=faults, seed=5, balance_fen=100_000)
    bought = []
    for number in range(24):
        sku = ("mapo-tofu", "eel-rice", "curry-chicken", "tomato-beef")[number % 4]
        answer = await buy(bench, key=f"key-{number:08}", body={"device_id": MACHINE, "sku": sku})
        if answer.status_code == 201:
            bought.append(answer.json())
        bench.connected = number % 5 != 3
        await bench.run(100, step_s=2)
        bench.connected = True
        if number % 6 == 5:
            await _serve(bench)
    await bench.run(400, step_s=2)
    outcomes, charged = bench.outcomes(), 0
    ends = set()
    for one in bought:
        found = (await look(bench, one["id"])).json()
        assert found["state"] in {"delivered", "refunded"}
        ends.add(found["reason"] or found["state"])
        if found["state"] == "delivered":
            assert outcomes[one["id"]] == "box"
            charged += one["price_fen"]
    assert len(bought) >= 12
    assert len(ends) >= 4, ends
    assert bench.balance() == 100_000 - charged
    assert bench.database.read_here(lambda tx: ledger.balance(tx, ledger.SALES)) == charged
    assert all(runs == 1 for runs in bench.simulator.snapshot()["motor_runs"].values())


def test_every_state_at_the_machine_can_be_resolved_by_a_deadline():
    from cloud.meals.lifecycle import AT_THE_MACHINE, SALE, SaleStep

    for state in (*AT_THE_MACHINE, SaleState.IN_DOUBT, SaleState.DISPENSE_FAILED, SaleState.REFUND_FAILED):
        assert SALE.allows(state, SaleStep.LOSE) or SALE.allows(state, SaleStep.ASK_REFUND)


async def test_the_supervised_loop_keeps_deadlines_and_tells_the_owner(bench, monkeypatch):
    from cloud.meals import service

    monkeypatch.setattr(service, "STARTUP_GRACE_S", 0.0)
    monkeypatch.setattr(service, "POLL_S", 0.02)
    bench.connected = False
    bought = (await buy(bench)).json()
    bench.clock.advance(seconds=181)
    with bench.changes.subscribe() as subscription:
        running = asyncio.ensure_future(bench.meals.run())
        async with asyncio.timeout(10):
            change = await subscription.next()
            while change.facts.get("state") != "refunded":
                change = await subscription.next()
        running.cancel()
    assert change.facts == {"id": bought["id"], "person_id": "ann", "state": "refunded"}
    assert bench.balance() == 20_000
