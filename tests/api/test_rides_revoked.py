"""A bike that is revoked under its rider: the ride ends, at a price that anybody can check, and the rider is told."""

import pytest
from rides_world import BIKE, make_world
from sqlalchemy import update

from cloud import tables
from cloud.api.problem import ProblemError
from cloud.rides import fees
from cloud.wallet import ledger


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    yield made
    assert made.ledger_problems() == []
    made.database.close()


def revoke(world, *, retired=False):
    values = {"retired_at": 1} if retired else {"revoked_at": 1, "revoked_reason": "stolen"}
    change = update(tables.device).where(tables.device.c.device_id == BIKE).values(values)
    world.database.write_here(lambda tx: tx.execute(change))


@pytest.mark.parametrize("retired", [False, True])
async def test_a_ride_on_a_bike_that_is_revoked_or_retired_ends_at_that_moment_and_costs_so_much(world, retired):
    wang = world.people["wang"]
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_opened", command_id=ride.command_id)
    world.clock.advance(seconds=40 * 60)
    revoke(world, retired=retired)
    with world.changes.subscribe() as told:
        await world.rides._expire_due(world.clock.now_ms())
        assert (await told.next()).facts["id"] == ride.id
    async with world.client("wang") as wangs:
        seen = (await wangs.get(f"/api/v1/rides/{ride.id}")).json()
    assert (seen["state"], seen["reason"], seen["fee_fen"]) == ("ended", "bike_revoked", 2 * fees.PERIOD_FEE_FEN)
    assert world.ride_row(ride.id).ended_at == world.clock.now_ms()
    assert world.balance(ledger.wallet_of(wang.id)) == 1_000 - 2 * fees.PERIOD_FEE_FEN
    world.clock.advance(seconds=3_600)
    await world.rides._expire_due(world.clock.now_ms())
    await world.evidence("lock_closed")  # what it still says changes nothing
    assert world.balance(ledger.wallet_of(wang.id)) == 1_000 - 2 * fees.PERIOD_FEE_FEN
    other = await world.rides.ask("bike-002", wang)
    assert other.state == "unlocking", "the rider is free to take another one"


async def test_a_ride_that_had_not_begun_costs_nothing_and_the_bike_is_for_nobody(world):
    wang = world.people["wang"]
    ride = await world.rides.ask(BIKE, wang)
    revoke(world)
    await world.rides._expire_due(world.clock.now_ms())
    row = world.ride_row(ride.id)
    assert (row.state, row.reason, row.fee_fen) == ("never_began", "bike_revoked", None)
    assert world.entries() == 0
    with pytest.raises(ProblemError):
        await world.rides.ask(BIKE, wang)
