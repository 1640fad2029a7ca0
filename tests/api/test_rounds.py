"""Rounds and people: what an admin decides stays, a crew shares its vehicle, the latch of what was inspected opens."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import select

from cloud.planning.gather import gather
from cloud.tables import crew, crew_member, intent, outbox, person
from cloud.work_orders import proof
from cloud.work_orders.upkeep import OrderKeeper
from fleet.incident import AlarmEvent, AlarmState
from tests.api.duty_world import on_duty
from tests.api.roster_world import ALL_DAY, bring
from tests.unit.dispatch_cases import NOW, alarm_change, definition
from tests.web.world import add_device

PATH = "/api/v1/work-orders"
SHAKEN = definition("shaken", skill="inspection")


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {}) as world:
        add_device(world.world, "bike-001", "bike", latitude=38.86, longitude=121.52)
        add_crew(world, "person-wu", "wu")
        yield world


def add_crew(duty, person_id, login):
    duty.world.write(person, id=person_id, login=login, name=login, role="crew", password_hash="", created_at=NOW)


def join(duty, crew_id, capacity, *person_ids):
    duty.world.write(
        crew, id=crew_id, name_zh=crew_id, name_en=crew_id, latitude=38.86, longitude=121.52,
        vehicle_capacity=capacity, created_at=NOW,
    )  # fmt: skip
    for person_id in person_ids:
        duty.world.write(crew_member, person_id=person_id, crew_id=crew_id, skills="repair,restock,inspection")


async def make(duty, key):
    body = {"device_id": "bike-001", "skill": "repair", "title": "R", "key": key}
    return (await duty.post(PATH, body, role="admin", status=201))["id"]


async def test_no_plan_takes_away_what_an_admin_gave_to_somebody(duty):
    orders = [await make(duty, f"key-{number}") for number in range(4)]
    to = {}
    for order_id in orders:  # against what load and distance would say
        await duty.post(f"{PATH}/{order_id}/assign", {"person_id": "person-wu"}, role="admin")
        to[order_id] = "person-wu"
    for _ in range(2):
        planned = await duty.post("/api/v1/planning", role="admin")
        await duty.world.services.get(OrderKeeper).look()
    assert {one["id"]: one["assigned_to"] for one in (await duty.get(PATH))["orders"]} == to
    (row,) = [one for one in planned["rounds"] if one["stops"]]
    assert (row["person_id"], len(row["stops"])) == ("person-wu", 4)


async def test_an_order_is_not_given_to_who_is_off_duty(duty):
    await bring(duty, ALL_DAY.replace("second_crew,wu", "second_crew,crew").replace("on_call,crew", "on_call,wu"))
    order_id = await make(duty, "key")
    refused = await duty.post(f"{PATH}/{order_id}/assign", {"person_id": "person-crew"}, role="admin", status=409)
    assert refused["code"] == "off_duty"
    assert (await duty.get(f"{PATH}/{order_id}"))["assigned_to"] == "person-wu"


async def test_a_crew_has_one_vehicle_and_who_works_at_the_same_time_shares_it(duty):
    add_crew(duty, "person-sun", "sun")
    join(duty, "north", 61, "person-crew", "person-wu")
    join(duty, "south", 40, "person-sun")
    found = duty.world.database.read_here(lambda tx: gather(tx, NOW))
    assert {one.id: one.capacity[0] for one in found.problem.crews} == {
        "person-crew": 30, "person-wu": 30, "person-sun": 40,
    }  # fmt: skip


async def test_who_follows_in_the_next_shift_has_the_whole_vehicle(duty):
    join(duty, "north", 60, "person-crew", "person-wu")
    turns = ("on_call,crew,,2027-01-01 00:00,12:00,daily", "on_call,wu,,2027-01-01 12:00,24:00,daily")
    await bring(duty, "\n".join(("tier,person,crew,from,until,repeat", *turns, "")))
    found = duty.world.database.read_here(lambda tx: gather(tx, NOW))
    assert {one.capacity[0] for one in found.problem.crews} == {60}


async def test_work_done_on_site_and_verified_opens_the_latch_through_an_order(duty):
    """From the alarm over the scan to the intent in the device's lane; the order keeper asks exactly once."""
    raised = alarm_change(of=SHAKEN, at=NOW)
    duty.plan(raised)
    (order,) = (await duty.get(PATH))["orders"]
    mine = order["assigned_to"]
    login = "crew" if mine == "person-crew" else "admin"
    code = await duty.clients["admin"].get(f"{PATH}/codes/bike-001.svg")
    assert code.status_code == 200
    for act in ("accept", "travel", "start"):
        await duty.post(f"{PATH}/{order['id']}/{act}", role=login)
    duty.world.database.write_here(lambda tx: _scan(tx, mine))
    await duty.post(f"{PATH}/{order['id']}/complete", role=login)
    keeper = duty.world.services.get(OrderKeeper)
    await keeper.look()
    assert _intents(duty) == [], "it is still true"
    latched = AlarmState.LATCHED_UNACKNOWLEDGED
    event = AlarmEvent.RETURN_LATCHED
    duty.plan(replace(raised, event=event, before=AlarmState.UNACKNOWLEDGED, after=latched, at=NOW + 1))
    await keeper.look()
    await keeper.look()
    (act,) = _intents(duty)
    assert (act.name, act.actor, act.device_id) == ("reset_latch", mine, "bike-001")
    assert json.loads(act.arguments)["alarm_id"] == raised.alarm_id


def _scan(tx, person_id):
    return proof.record_scan(tx, "bike-001", person_id, NOW, None)


def _intents(duty):
    return duty.world.database.read_here(lambda tx: tx.execute(select(intent)).all())


async def test_who_decides_about_work_that_cannot_be_done_is_told_once(duty):
    order_id = await make(duty, "key")
    keeper = duty.world.services.get(OrderKeeper)
    keeper.channels = ("inbox", "person")
    owner = (await duty.get(f"{PATH}/{order_id}"))["assigned_to"]
    for act in ("accept", "travel", "start"):
        await duty.post(f"{PATH}/{order_id}/{act}", role="admin")
    await duty.post(f"{PATH}/{order_id}/give_up", {"reason": "part_missing", "note": "没有泵"}, role="admin")
    for _ in range(3):
        await keeper.look()
    assert _told(duty) == [("inbox", "", "part_missing"), ("person", "person-admin", "part_missing")]
    await duty.post(f"{PATH}/{order_id}/release", role="admin")
    assert (await duty.get(f"{PATH}/{order_id}"))["state"] == "assigned"
    assert owner is not None


async def test_overdue_work_of_who_went_home_is_told_to_who_is_there(duty):
    join(duty, "north", 60, "person-wu")
    order_id = await make(duty, "key")
    await duty.post(f"{PATH}/{order_id}/assign", {"person_id": "person-crew"}, role="admin")
    await duty.post(f"{PATH}/{order_id}/accept")
    await bring(duty, ALL_DAY.replace("second_crew,wu", "second_crew,sun").replace("on_call,crew", "on_call,wu")
                .replace("second_crew,sun,,2027-01-01 00:00,24:00,daily\n", ""))  # fmt: skip
    keeper = duty.world.services.get(OrderKeeper)
    keeper.channels = ("person",)
    duty.world.clock.advance(seconds=5 * 3600)
    await keeper.look()
    assert {recipient for _, recipient, _ in _told(duty)} == {"person-crew", "person-wu"}


def _told(duty):
    query = select(outbox.c.channel, outbox.c.recipient, outbox.c.notification).order_by(outbox.c.id)
    found = duty.world.database.read_here(lambda tx: tx.execute(query).all())
    facts = [(row.channel, row.recipient, json.loads(row.notification)["facts"]) for row in found]
    return [(channel, recipient, one.get("reason", one.get("stage"))) for channel, recipient, one in facts]
