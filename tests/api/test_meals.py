"""What buyers see and may not do, waiting for news, and days full of faults; see test_meals_sale."""

import asyncio

import pytest
from meals_bench import MACHINE
from meals_cases import BODY, PRICE, buy, look

from cloud.meals import repository, sales
from cloud.meals.lifecycle import SaleState
from cloud.wallet import ledger
from devices.meal_machine.messages import UnlockAfterService

pytest_plugins = ("meals_cases",)


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
