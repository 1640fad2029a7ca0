"""Fixtures and helpers of the meals tests: a machine behind its driver, people, and requests."""

import pytest
import pytest_asyncio
from meals_bench import MACHINE, MealsBench

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
