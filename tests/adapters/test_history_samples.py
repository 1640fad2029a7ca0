"""The state of the fleet each minute, and forecasts, from the tables of both databases."""

import pytest
from history_cases import NOW_MS, StillClock, add_alarm, add_call, add_order
from sqlalchemy import func, insert, select, update

from cloud.history import samples
from cloud.history.samples import Samples, fleet_state
from cloud.history.steps import decode_points
from cloud.meals.forecast import forecast_of
from cloud.tables import alarm, call, device, hiding, history_sample, twin, work_order
from devices.meal_machine.forecast import PRIOR_PER_HOUR, Habit
from devices.meal_machine.messages import MealMachineReading
from devices.meal_machine.state import MS_PER_HOUR, Demand, State

pytest_plugins = ("tests.adapters.postgres_fixture",)

MINUTE_MS = 60_000


def add_device(tx, device_id, kind, *, online=1, retired_at=None):
    tx.execute(insert(device).values(device_id=device_id, kind=kind, enrolled_at=1, retired_at=retired_at))
    marks = dict.fromkeys(
        ("generation", "emergency_seq", "event_seq", "telemetry_seq", "link_boot_epoch", "link_connection",
         "link_changed_at", "version"), 1,
    )  # fmt: skip
    heard = {"online": online, "last_heard_at": NOW_MS, "last_reading_at": NOW_MS}
    tx.execute(insert(twin).values(device_id=device_id, kind=kind, state="{}", desk="{}", **marks, **heard))


async def state_of(database, kind):
    points = await database.read(lambda tx: fleet_state(tx, NOW_MS))
    return {dict(point.tags)["kind"]: point.fields for point in points}[kind]


async def test_each_kind_says_how_many_are_there_and_fit_for_use(database):
    def happen(tx):
        for number in range(1, 7):
            add_device(tx, f"machine-00{number}", "meal_machine", online=int(number != 2))
        add_device(tx, "machine-007", "meal_machine", retired_at=5)
        add_alarm(tx, "warm", device_id="machine-003")  # of high priority
        add_alarm(tx, "silent", device_id="machine-004")
        tx.execute(update(alarm).where(alarm.c.id == "silent").values(key="silent", priority="medium"))
        out = {"form": "out_of_service", "key": "", "actor": "a", "reason": "r", "from_at": 1, "created_at": 1}
        tx.execute(insert(hiding).values(id="h1", device_id="machine-005", **out))
        tx.execute(insert(hiding).values(id="h2", device_id="machine-006", ended_at=NOW_MS, **out))

    await database.write(happen)
    found = await state_of(database, "meal_machine")
    expected = {"devices": 6, "online": 5, "silent": 1, "reporting": 4, "out_of_service": 1, "alarms_open": 2}
    assert {name: found[name] for name in expected} == expected
    assert found["availability_percent"] == pytest.approx(100 * 2 / 6, abs=0.001)  # 001 and 006


async def test_what_is_open_is_counted_and_the_deployments_own_calls_are_not(database):
    def happen(tx):
        add_call(tx, "c1")
        add_call(tx, "tested", purpose="test")
        add_call(tx, "mine", purpose="synthetic", device_id="synthetic-room")
        add_call(tx, "over")
        tx.execute(update(call).where(call.c.id == "tested").values(state="attended"))
        tx.execute(insert(device).values(device_id="synthetic-room", kind="nursing_room", enrolled_at=1))
        add_order(tx, "late", due_at=NOW_MS - 1)
        add_order(tx, "in time")
        add_order(tx, "done", due_at=NOW_MS - 1)
        tx.execute(update(work_order).where(work_order.c.id == "done").values(state="done"))
        for name, state, view in (
            ("seen", "acknowledged", "shown"), ("hidden", "unacknowledged", "shelved"),
            ("returned", "returned_unacknowledged", "shown"), ("over", "normal", "shown"),
        ):  # fmt: skip
            add_alarm(tx, name, device_id="machine-001")
            tx.execute(update(alarm).where(alarm.c.id == name).values(state=state, view=view))

    await database.write(happen)
    rooms, bikes = await state_of(database, "nursing_room"), await state_of(database, "bike")
    assert (rooms["devices"], rooms["calls_open"]) == (0, 2)
    assert "availability_percent" not in rooms
    assert (bikes["orders_open"], bikes["orders_overdue"]) == (2, 1)
    machines = await state_of(database, "meal_machine")
    assert (machines["alarms_open"], machines["alarms_unacknowledged"], machines["alarms_hidden"]) == (2, 1, 1)


async def test_samples_are_taken_once_a_minute_at_its_beginning_and_bounded(database, monkeypatch):
    clock = StillClock(NOW_MS + 5_000)
    it = Samples(database, clock, {"fleet_state": fleet_state})
    for _ in range(3):
        assert await it.take(clock.ms) in {3, 0}
    clock.ms += MINUTE_MS
    assert await it.take(clock.ms) == 3
    rows = await database.read(lambda tx: tx.execute(select(history_sample).order_by(history_sample.c.id)).all())
    assert [row.at for row in rows] == [NOW_MS, NOW_MS + MINUTE_MS]
    assert {point.at_ns for point in decode_points(rows[0].points)} == {NOW_MS * 1_000_000}
    assert it.lost == 0
    monkeypatch.setattr(samples, "WAITING_MAX", 3)
    for _ in range(4):
        clock.ms += MINUTE_MS
        await it.take(clock.ms)
    left = await database.read(lambda tx: tx.scalar(select(func.count()).select_from(history_sample)))
    assert (left, it.lost) == (3, 3)


async def test_only_the_process_that_holds_the_feed_samples_and_waits_for_the_next_minute(database):
    waits, mine = [], iter((False, True))

    class EnoughError(Exception):
        pass

    async def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            raise EnoughError

    clock = StillClock(NOW_MS + 20_000)
    it = Samples(database, clock, {"fleet_state": fleet_state}, mine=lambda: next(mine), sleep=sleep)
    with pytest.raises(EnoughError):
        await it.run()
    assert waits == [40.0, 40.0]
    assert await database.read(lambda tx: tx.scalar(select(func.count()).select_from(history_sample))) == 1
    clock.speed = 3600.0
    assert it._wait_s(NOW_MS) == samples.SAMPLE_S_MIN


def test_a_forecast_is_boxes_over_the_rate_at_which_they_sell():
    slots = [
        {"slot": "A1", "sku": "rice", "status": "ready", "price_fen": 1500, "capacity_count": 10,
         "lots": [{"lot": "l1", "count": 6, "expires_at": NOW_MS + 9 * MS_PER_HOUR}]},
        {"slot": "A2", "sku": "noodles", "status": "ready", "price_fen": 1500, "capacity_count": 10,
         "lots": [{"lot": "l2", "count": 2, "expires_at": NOW_MS + 9 * MS_PER_HOUR},
                  {"lot": "l3", "count": 5, "expires_at": NOW_MS - 1}]},
    ]  # fmt: skip

    class Reading:
        at, locked_out, stock_count = NOW_MS, False, 8

    Reading.slots = [
        type("Slot", (), {**slot, "lots": [type("Lot", (), lot) for lot in slot["lots"]]}) for slot in slots
    ]
    assert {"slots", "locked_out", "stock_count"} <= set(MealMachineReading.model_fields)
    demand = {"rice": Demand(1.5, NOW_MS), "noodles": Demand(0.5, NOW_MS)}

    def selling(boxes_per_hour):
        habit = Habit(per_hour=(boxes_per_hour,) * len(PRIOR_PER_HOUR))
        return State(device_id="machine-001", reading=Reading, demand=demand, habit=habit)

    found = forecast_of("machine-001", selling(2.0), NOW_MS)
    assert (found.sellable, found.sales_per_hour) == (8, 2.0)
    assert (found.stock_out_hours, found.first_meal_hours) == (4.0, 4.0)
    assert forecast_of("machine-001", selling(0.0), NOW_MS).stock_out_hours is None
