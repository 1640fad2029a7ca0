"""A ride begins and ends with the lock's own evidence; money follows the ride, never the asking."""

import asyncio

import pytest
from rides_world import BIKE, OTHER_BIKE, make_world

from cloud.api.problem import ProblemError
from cloud.rides import fees
from cloud.rides.lifecycle import RIDE, RideEvent, RideState
from cloud.rides.service import EVIDENCE_WITHIN_S
from cloud.wallet import ledger
from fleet.lifecycle import IllegalTransitionError
from fleet.messages import ReplyStatus


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    yield made
    assert made.ledger_problems() == []
    made.database.close()


@pytest.fixture
def wang(world):
    return world.people["wang"]


@pytest.fixture
def li(world):
    return world.people["li"]


def wallet(world, person):
    return world.balance(ledger.wallet_of(person.id))


async def refused(coroutine):
    with pytest.raises(ProblemError) as caught:
        await coroutine
    return caught.value.status, caught.value.code


# --- asking ----------------------------------------------------------------------------------------------------------


async def test_asking_sends_one_signed_command_that_expires_within_ten_seconds(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    assert ride.state == "unlocking"
    (order,) = await world.send_commands()
    assert (order.id, order.device_id) == (ride.command_id, BIKE)
    assert bytes(order.command) == b'{"action":"unlock"}'
    assert order.not_after - world.clock.now_ms() <= 10_000
    assert world.sent[0].topic.endswith(f"/{BIKE}/down/command")


async def test_a_bike_goes_to_one_rider_and_a_rider_gets_one_bike(world, wang, li):
    first = await world.rides.ask(BIKE, wang)
    assert await refused(world.rides.ask(BIKE, li)) == (409, "bike_taken")
    assert await refused(world.rides.ask(OTHER_BIKE, wang)) == (409, "ride_open")
    assert (await world.rides.ask(BIKE, wang)).id == first.id, "asking again is the same asking"
    assert len(world.commands_of()) == 1
    assert world.commands_of(OTHER_BIKE) == []


async def test_ten_riders_at_once_get_one_bike_once(world):
    riders = [world.add_person(f"rider-{number}") for number in range(10)]
    answers = await asyncio.gather(*(world.rides.ask(BIKE, rider) for rider in riders), return_exceptions=True)
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1
    assert {answer.code for answer in answers if isinstance(answer, ProblemError)} == {"bike_taken"}
    assert len(world.commands_of()) == 1


async def test_the_database_itself_refuses_a_second_open_ride(world, wang, li):
    from sqlalchemy import insert
    from sqlalchemy.exc import IntegrityError

    from cloud import tables

    await world.rides.ask(BIKE, wang)
    row = {"id": "x", "command_id": "y", "state": "riding", "asked_at": 1, "deadline_at": 1, "changed_at": 1}
    for doubled in ({"person_id": li.id, "device_id": BIKE}, {"person_id": wang.id, "device_id": OTHER_BIKE}):
        with pytest.raises(IntegrityError):
            world.database.write_here(lambda tx, one=doubled: tx.execute(insert(tables.ride).values(**row, **one)))


@pytest.mark.parametrize(
    ("device_id", "state", "expected"),
    [
        ("bike-009", None, (404, "not_found")),
        ("bike-010", {"lock_state": "unlocked"}, (409, "bike_not_rentable")),
        ("bike-010", {"lock_state": "jammed"}, (409, "bike_not_rentable")),
        ("bike-010", {"lock_state": "unknown"}, (409, "bike_not_rentable")),
        ("bike-010", {"fallen_at": 1}, (409, "bike_not_rentable")),
        ("bike-010", {"tampered_at": 1}, (409, "bike_not_rentable")),
        ("bike-010", {"reading": None}, (409, "bike_not_rentable")),
        ("bike-010", {"online": False}, (409, "bike_offline")),
        ("bike-010", {"kind": "meal_machine"}, (404, "not_found")),
    ],
)
async def test_bikes_that_nobody_gets(world, wang, device_id, state, expected):
    if state is not None:
        world.add_bike(device_id, **state)
    assert await refused(world.rides.ask(device_id, wang)) == expected
    assert world.commands_of(device_id) == []


async def test_a_retired_bike_does_not_exist(world, wang):
    world.retire(BIKE)
    assert await refused(world.rides.ask(BIKE, wang)) == (404, "not_found")


async def test_a_rider_without_money_is_asked_to_top_up(world):
    poor = world.add_person("poor", fees.PERIOD_FEE_FEN - 1)
    assert await refused(world.rides.ask(BIKE, poor)) == (402, "top_up_first")
    assert world.commands_of() == []


# --- evidence --------------------------------------------------------------------------------------------------------


async def test_a_ride_from_open_to_close_is_charged_once(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    world.clock.advance(seconds=2)
    opened_at = world.clock.now_ms()
    await world.evidence("lock_opened", command_id=ride.command_id)
    assert (world.ride_row(ride.id).state, world.ride_row(ride.id).started_at) == ("riding", opened_at)
    assert wallet(world, wang) == 1_000, "nothing is charged before the end"
    world.clock.advance(seconds=31 * 60)
    await world.evidence("lock_closed")
    ended = world.ride_row(ride.id)
    assert (ended.state, ended.ended_at - ended.started_at) == ("ended", 31 * 60_000)
    assert ended.fee_fen == 2 * fees.PERIOD_FEE_FEN
    assert wallet(world, wang) == 1_000 - ended.fee_fen
    assert world.balance(ledger.RIDES) == ended.fee_fen
    world.clock.advance(seconds=600)
    await world.evidence("lock_closed")
    assert wallet(world, wang) == 1_000 - ended.fee_fen, "a second closing ends nothing"


async def test_succeeded_without_the_event_starts_nothing(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.reply(ride.command_id, ReplyStatus.SUCCEEDED)
    assert world.ride_row(ride.id).state == "unlocking"


async def test_opened_by_another_command_or_by_hand_starts_nothing(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_opened", command_id=None)
    await world.evidence("lock_opened", command_id="ff" * 16)
    await world.evidence("lock_opened", OTHER_BIKE, command_id=ride.command_id)
    assert world.ride_row(ride.id).state == "unlocking"


async def test_closing_before_opening_ends_nothing(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_closed")
    assert world.ride_row(ride.id).state == "unlocking"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(ReplyStatus.FAILED, "jam"), (ReplyStatus.REFUSED, "not_possible"), (ReplyStatus.EXPIRED, "expired")],
)
async def test_a_bike_that_says_no_ends_it_at_once_and_is_free_again(world, wang, li, status, reason):
    ride = await world.rides.ask(BIKE, wang)
    await world.reply(ride.command_id, status, reason)
    found = world.ride_row(ride.id)
    assert (found.state, found.reason, found.fee_fen) == ("never_began", reason, None)
    assert world.entries() == 0
    assert (await world.rides.ask(BIKE, li)).state == "unlocking"


async def test_silence_leaves_room_for_evidence_until_the_deadline(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.reply(ride.command_id, ReplyStatus.FAILED, "hardware_silent")
    assert world.ride_row(ride.id).state == "unlocking"
    await world.evidence("lock_opened", command_id=ride.command_id)
    assert world.ride_row(ride.id).state == "riding"


async def test_a_jam_in_opening_is_no_ride(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_jammed", command_id=ride.command_id)
    assert (world.ride_row(ride.id).state, world.ride_row(ride.id).reason) == ("never_began", "jam")
    assert world.entries() == 0


async def test_a_jam_in_closing_stops_the_clock(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_opened", command_id=ride.command_id)
    world.clock.advance(seconds=600)
    await world.evidence("lock_jammed")
    found = world.ride_row(ride.id)
    assert (found.state, found.reason, found.flagged) == ("ended", "jam", "jammed")
    assert found.fee_fen == fees.PERIOD_FEE_FEN


async def test_no_evidence_no_ride_nothing_charged(world, wang):
    async with world.running():
        ride = await world.rides.ask(BIKE, wang)
        world.clock.advance(seconds=EVIDENCE_WITHIN_S + 1)
        found = await world.rides.ride(ride.id, wang, wait_s=10)
    assert (found.state, found.reason, found.fee_fen) == ("never_began", "expired", None)
    assert wallet(world, wang) == 1_000
    assert world.entries() == 0


async def test_the_deadline_is_kept_across_a_restart(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    world.clock.advance(seconds=EVIDENCE_WITHIN_S + 1)
    world.rides.__init__(world.database, world.clock, world.commands, world.changes, world.new_id)
    async with world.running():
        assert (await world.rides.ride(ride.id, wang, wait_s=10)).state == "never_began"


async def test_opened_after_expiry_is_flagged_and_locked_again(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    world.clock.advance(seconds=EVIDENCE_WITHIN_S + 1)
    await world.evidence("lock_opened", command_id=ride.command_id)  # before any timer noticed the deadline
    found = world.ride_row(ride.id)
    assert (found.state, found.reason, found.flagged) == ("never_began", "expired", "opened_late")
    assert [(row.action, row.actor) for row in world.commands_of()] == [("unlock", wang.id), ("lock", "system")]
    await world.evidence("lock_closed")
    assert world.entries() == 0


async def test_opened_after_the_bike_said_no_is_flagged_and_locked_again(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.reply(ride.command_id, ReplyStatus.EXPIRED, "expired")
    await world.evidence("lock_opened", command_id=ride.command_id)
    assert (world.ride_row(ride.id).state, world.ride_row(ride.id).flagged) == ("never_began", "opened_late")
    assert [row.action for row in world.commands_of()] == ["unlock", "lock"]


@pytest.mark.parametrize("has_opened", [False, True])
async def test_a_late_opening_never_locks_the_bike_under_the_next_rider(world, wang, has_opened):
    late = await world.rides.ask(BIKE, wang)
    await world.reply(late.command_id, ReplyStatus.EXPIRED, "expired")
    following = await world.rides.ask(BIKE, world.people["li"])
    if has_opened:
        await world.evidence("lock_opened", command_id=following.command_id)
    await world.evidence("lock_opened", command_id=late.command_id)
    assert [row.action for row in world.commands_of()] == ["unlock", "unlock"]
    assert world.ride_row(late.id).flagged == "opened_late"
    assert world.ride_row(following.id).state == ("riding" if has_opened else "unlocking")


async def test_a_late_opening_of_a_bike_that_has_been_retired_is_still_flagged(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    world.clock.advance(seconds=EVIDENCE_WITHIN_S + 1)
    world.retire(BIKE)
    await world.evidence("lock_opened", command_id=ride.command_id)
    assert world.ride_row(ride.id).flagged == "opened_late"


# --- time and money --------------------------------------------------------------------------------------------------


async def test_a_dead_spot_costs_the_rider_nothing(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_opened", command_id=ride.command_id)
    world.clock.advance(seconds=3 * 3_600)
    await world.evidence("lock_closed", occurred_s_ago=3 * 3_600 - 600)
    assert world.ride_row(ride.id).fee_fen == fees.PERIOD_FEE_FEN


@pytest.mark.parametrize("error_s", [-10 * 365 * 86_400, -3_600, 3_600, 10 * 365 * 86_400])
async def test_a_wrong_clock_of_the_bike_never_costs_more_than_the_clouds_own(world, wang, error_s):
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_opened", command_id=ride.command_id, occurred_s_ago=-error_s)
    world.clock.advance(seconds=600)
    await world.evidence("lock_closed", occurred_s_ago=-error_s)
    found = world.ride_row(ride.id)
    assert found.state == "ended"
    assert ride.asked_at <= found.started_at <= found.ended_at <= world.clock.now_ms()
    assert found.fee_fen == fees.PERIOD_FEE_FEN


async def test_a_forgotten_lock_costs_no_more_than_the_limit(world, wang):
    ride = await world.rides.ask(BIKE, wang)
    await world.evidence("lock_opened", command_id=ride.command_id)
    world.clock.advance(seconds=30 * 86_400)
    await world.evidence("lock_closed")
    assert world.ride_row(ride.id).fee_fen == fees.FEE_FEN_MAX


async def test_a_poor_wallet_stops_no_commit_and_pays_before_the_next_ride(world):
    poor = world.add_person("poor", 150)
    ride = await world.rides.ask(BIKE, poor)
    await world.evidence("lock_opened", command_id=ride.command_id)
    world.clock.advance(seconds=80 * 60)
    await world.evidence("lock_closed")
    found = world.ride_row(ride.id)
    assert (found.state, found.fee_fen, found.flagged) == ("ended", 300, "unpaid")
    assert (wallet(world, poor), world.balance(ledger.RIDES)) == (0, 300)
    assert await refused(world.rides.ask(BIKE, poor)) == (402, "top_up_first")

    from cloud.wallet.service import top_up

    world.database.write_here(lambda tx: top_up(tx, poor.id, 500, "again", world.clock.now_ms()))
    assert (await world.rides.ask(BIKE, poor)).state == "unlocking"
    assert wallet(world, poor) == 500 - 150
    assert world.ride_row(ride.id).flagged == ""


@pytest.mark.parametrize(
    ("minutes", "periods"), [(0, 1), (0.001, 1), (29.99, 1), (30, 1), (30.001, 2), (60, 2), (61, 3)]
)
def test_the_fee_counts_started_half_hours(minutes, periods):
    assert fees.fee_fen(round(minutes * 60_000)) == periods * fees.PERIOD_FEE_FEN


# --- lifecycle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", RideState)
@pytest.mark.parametrize("event", RideEvent)
def test_every_transition_outside_the_table_is_illegal(state, event):
    if (state, event) in RIDE.table:
        assert RIDE.next(state, event) is RIDE.table[state, event]
    else:
        with pytest.raises(IllegalTransitionError):
            RIDE.next(state, event)
    assert RIDE.reachable() == set(RideState)
