"""Orders on both databases: once per cause under replay and concurrency, given out by skill, overdue told once."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select, update

from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.dispatch.planner import Dispatch
from cloud.synthetic import ROOM
from cloud.tables import crew, crew_member, duty_plan, shift, work_order
from cloud.work_orders import preventive
from cloud.work_orders.upkeep import look
from tests.unit.dispatch_cases import NOW, add_people, alarm_change, decided, definition, need_change, rows

pytest_plugins = ("tests.adapters.postgres_fixture",)

REPAIR = definition("fallen", skill="repair")
DAY = 86_400_000
PROCESSES = 2
ORDERS = 12

PROGRAM = """
import sys
from cloud.adapters.sql.database import SqlDatabase
from cloud.dispatch.planner import Dispatch
from cloud.work_orders.upkeep import look
from tests.unit.dispatch_cases import NOW, alarm_change, decided, definition, need_change
database = SqlDatabase(sys.argv[1])
repair = definition("fallen", skill="repair")
for number in range(1, int(sys.argv[2]) + 1):
    changes = decided(alarm_change(number, of=repair), need_change(device_id=f"machine-{number:03}"))
    database.write_here(lambda tx: Dispatch().plan(tx, changes, NOW))
    database.write_here(lambda tx: look(tx, NOW + 90_000_000, ("inbox",), plans=True))
database.close()
"""


@pytest.fixture
def database(database_url):
    made = SqlDatabase(database_url)
    yield made
    made.close()


def plan(database, *changes, now=NOW):
    return database.write_here(lambda tx: Dispatch().plan(tx, decided(*changes), now))


def all_orders(database):
    return database.read_here(lambda tx: rows(tx, work_order))


def add_device(tx, device_id, kind="bike", latitude=None, longitude=None, retired_at=None):
    tx.execute(
        insert(tables.device).values(
            device_id=device_id, kind=kind, enrolled_at=NOW, latitude=latitude, longitude=longitude,
            retired_at=retired_at,
        )
    )  # fmt: skip


def test_two_processes_that_decide_the_same_make_each_order_once_and_tell_once(database):
    database.write_here(lambda tx: add_people(tx, ("p1", "crew"), ("p2", "crew"), ("boss", "admin")))
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", PROGRAM, url, str(ORDERS)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        ran = [
            pool.submit(subprocess.run, command, capture_output=True, text=True, timeout=90) for _ in range(PROCESSES)
        ]
        for one in ran:
            assert one.result().returncode == 0, one.result().stderr[-2000:]
    made = all_orders(database)
    assert len(made) == 2 * ORDERS == len({order["cause"] for order in made})
    assert {order["state"] for order in made} == {"assigned"}
    steps = database.read_here(lambda tx: rows(tx, tables.work_order_transition))
    count = Counter((step["order_id"], step["event"]) for step in steps)
    assert set(count.values()) == {1}
    notices = database.read_here(lambda tx: list(tx.scalars(select(tables.outbox.c.delivery_id))))
    assert len(notices) == len(set(notices))
    assert {order["told_overdue"] for order in made} == {7}


def test_the_nearest_with_the_skill_gets_it_and_load_counts(database):
    def world(tx):
        add_people(tx, ("east", "crew"), ("west", "crew"), ("boss", "admin"))
        for number, longitude in ((1, 121.481), (2, 121.482), (3, 121.559)):
            add_device(tx, f"bike-{number:03}", latitude=38.86, longitude=longitude)
        for name, longitude in (("east", 121.56), ("west", 121.48)):
            values = {"name_zh": name, "name_en": name, "latitude": 38.86, "vehicle_capacity": 60, "created_at": NOW}
            tx.execute(insert(crew).values(id=name, longitude=longitude, **values))
        tx.execute(insert(crew_member).values(person_id="east", crew_id="east", skills="repair"))
        tx.execute(insert(crew_member).values(person_id="west", crew_id="west", skills="repair,battery"))

    database.write_here(world)
    plan(database, *(alarm_change(number, of=REPAIR) for number in (1, 2, 3)))
    given = {order["device_id"]: order["assigned_to"] for order in all_orders(database)}
    assert given == {"bike-001": "west", "bike-002": "west", "bike-003": "east"}
    plan(database, alarm_change(3, of=definition("low", skill="battery")))
    (battery,) = [order for order in all_orders(database) if order["skill"] == "battery"]
    assert battery["assigned_to"] == "west"  # further away, but the only one who can


def test_nobody_with_the_skill_on_duty_is_told_once_and_the_order_goes_out_as_the_shift_begins(database):
    begins = NOW + 3_600_000

    def world(tx):
        add_people(tx, ("p1", "crew"), ("boss", "admin"))
        tx.execute(
            insert(duty_plan).values(
                id="plan", tier="on_call", person_id="p1", calendar="", expanded_until=begins + DAY, created_at=NOW,
                created_by="boss",
            )
        )  # fmt: skip
        values = {"plan_id": "plan", "tier": "on_call", "person_id": "p1"}
        tx.execute(insert(shift).values(id="s", from_at=begins, until_at=begins + DAY, **values))

    database.write_here(world)
    plan(database, alarm_change(of=REPAIR))
    for at in (NOW, NOW + 1000, begins - 1):
        database.write_here(lambda tx, at=at: look(tx, at, ("inbox",), plans=False))
    (order,) = all_orders(database)
    assert (order["state"], order["told_nobody"]) == ("dispatchable", 1)
    told = database.read_here(lambda tx: rows(tx, tables.outbox))
    assert sum('"skill":"repair"' in one["notification"] and "当班无人" in one["notification"] for one in told
               if one["channel"] == "inbox") == 1  # fmt: skip
    database.write_here(lambda tx: look(tx, begins, ("inbox",), plans=False))
    assert [(one["state"], one["assigned_to"]) for one in all_orders(database)] == [("assigned", "p1")]


def test_work_of_a_retired_device_is_called_off_and_new_work_refused(database):
    database.write_here(lambda tx: add_people(tx, ("p1", "crew")))
    database.write_here(lambda tx: add_device(tx, "bike-001"))
    plan(database, alarm_change(of=REPAIR))
    retired = update(tables.device).values(retired_at=NOW + 1)
    database.write_here(lambda tx: tx.execute(retired))
    database.write_here(lambda tx: look(tx, NOW + 2, ("inbox",), plans=False))
    assert [one["state"] for one in all_orders(database)] == ["cancelled"]
    plan(database, alarm_change(of=definition("other", skill="repair"), at=NOW + 3), now=NOW + 3)
    assert len(all_orders(database)) == 1
    lines = database.read_here(lambda tx: rows(tx, tables.audit))
    assert [line["action"] for line in lines] == ["work_order.cancel", "work_order.refused"]


def test_a_need_that_is_gone_while_the_order_waits_makes_no_second_one(database):
    plan(database, need_change())
    for _ in range(3):
        plan(database, need_change(at=NOW))
    assert len(all_orders(database)) == 1


def test_preventive_work_is_made_once_per_device_and_period_spread_over_the_week(database):
    rooms = 21

    def world(tx):
        preventive.seed(tx, NOW)
        for number in range(rooms):
            add_device(tx, f"room-{number:03}", "nursing_room")
        add_device(tx, "room-gone", "nursing_room", retired_at=NOW)
        add_device(tx, ROOM, "nursing_room")

    database.write_here(world)
    per_day = []
    for day in range(18):
        before = len(weekly(database))
        for hour in (0, 12):
            at = NOW + day * DAY + hour * 3_600_000
            database.write_here(lambda tx, at=at: preventive.make_due(tx, at))
            database.write_here(lambda tx, at=at: preventive.make_due(tx, at))
        per_day.append(len(weekly(database)) - before)
        done = update(work_order).where(work_order.c.state == "dispatchable")
        at = NOW + (day + 1) * DAY
        database.write_here(lambda tx, at=at, done=done: tx.execute(done.values(state="done", done_at=at)))
    count = Counter(order["device_id"] for order in weekly(database))
    assert len(count) == rooms
    assert "room-gone" not in count
    assert ROOM not in count, "nobody is sent to the room that is none"
    assert min(count.values()) >= 2
    assert max(count.values()) <= 4
    by_local_day = Counter((order["created_at"] + 8 * 3_600_000) // DAY for order in weekly(database))
    assert max(by_local_day.values()) <= 5  # half as much again as 21 / 7
    assert min(per_day[1:]) >= 1
    causes = [order["cause"] for order in all_orders(database)]
    assert len(causes) == len(set(causes))


def weekly(database):
    return [order for order in all_orders(database) if order["subject"] == "room-button-test"]
