"""Wallets over HTTP on a real SQLite file: who may do what, and money moves once."""

import asyncio

import pytest
import pytest_asyncio
from meals_bench import MealsBench
from sqlalchemy import select

from cloud import tables


@pytest_asyncio.fixture
async def bench(tmp_path):
    made = MealsBench(tmp_path, balance_fen=0)
    yield made
    assert made.ledger_problems() == []
    made.close()


async def top_up(bench, person="ann", amount_fen=500, key="top-up-0001", by="admin"):
    async with bench.client(by) as client:
        body, headers = {"amount_fen": amount_fen}, {"idempotency-key": key}
        return await client.post(f"/api/v1/wallets/{person}/top-ups", json=body, headers=headers)


async def test_a_top_up_is_booked_once_per_key_and_audited(bench):
    first, again = await top_up(bench), await top_up(bench)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert (await top_up(bench, key="top-up-0002")).json()["balance_fen"] == 1000
    assert bench.balance() == 1000
    lines = bench.database.read_here(lambda tx: list(tx.execute(select(tables.audit))))
    assert [(line.actor, line.action, line.object) for line in lines] == [("admin", "wallet.top_up", "ann")] * 2


async def test_many_at_once_with_one_key_book_once(bench):
    answers = await asyncio.gather(*(top_up(bench) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert bench.balance() == 500


async def test_another_amount_or_person_under_the_same_key_is_refused(bench):
    await top_up(bench)
    assert (await top_up(bench, amount_fen=501)).status_code == 422
    assert (await top_up(bench, person="bo")).status_code == 422
    assert (bench.balance("ann"), bench.balance("bo")) == (500, 0)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"by": "ann"}, 403),
        ({"by": "crew"}, 403),
        ({"by": "nobody"}, 401),
        ({"person": "stranger"}, 404),
        ({"amount_fen": 0}, 422),
        ({"amount_fen": -5}, 422),
        ({"amount_fen": 100_001}, 422),
        ({"amount_fen": 1.5}, 422),
        ({"amount_fen": "500"}, 422),
        ({"key": "short"}, 422),
    ],
)
async def test_what_is_refused_moves_nothing(bench, options, status):
    assert (await top_up(bench, **options)).status_code == status
    assert bench.balance() == 0


async def test_a_wallet_shows_its_owners_movements_page_by_page(bench):
    for number in range(5):
        await top_up(bench, key=f"top-up-000{number}", amount_fen=100 + number)
    async with bench.client("ann") as client:
        first = (await client.get("/api/v1/wallet", params={"limit": 3})).json()
        rest = (await client.get("/api/v1/wallet", params={"limit": 3, "before": first["next_before"]})).json()
    assert first["balance_fen"] == 510
    assert [entry["amount_fen"] for entry in first["entries"] + rest["entries"]] == [104, 103, 102, 101, 100]
    assert rest["next_before"] is None
    async with bench.client("bo") as client:
        assert (await client.get("/api/v1/wallet")).json()["entries"] == []
