"""How many devices are in each group of the boards, from the twins of both databases."""

import msgspec
import pytest
from history_cases import NOW_MS, add_alarm
from sqlalchemy import insert, update

from cloud.history.groups import counted_groups, group_state, is_in
from cloud.tables import alarm, device, twin
from devices import kinds
from fleet.panel import Group, Where
from fleet.text import Text

pytest_plugins = ("tests.adapters.postgres_fixture",)

MARKS = dict.fromkeys(
    ("generation", "emergency_seq", "event_seq", "telemetry_seq", "link_boot_epoch", "link_connection",
     "link_changed_at", "version", "online", "last_heard_at"), 1,
)  # fmt: skip
BIKE = {"lock_state": "locked", "tilt_degrees": 5.0, "battery_percent": 80.0}


def add(tx, device_id, kind, reading, *, at_ms=NOW_MS, retired_at=None):
    tx.execute(insert(device).values(device_id=device_id, kind=kind, enrolled_at=1, retired_at=retired_at))
    state = msgspec.json.encode({"device_id": device_id, "reading": reading}).decode()
    tx.execute(
        insert(twin).values(device_id=device_id, kind=kind, state=state, desk="{}", last_reading_at=at_ms, **MARKS)
    )


async def counts_of(database, kind):
    points = await database.read(lambda tx: group_state(tx, NOW_MS))
    tags = [(dict(point.tags), point.fields["devices"]) for point in points]
    return {one["group"]: count for one, count in tags if one["kind"] == kind}


async def test_every_bike_is_counted_by_its_latest_reading(database):
    def happen(tx):
        add(tx, "bike-001", "bike", BIKE)
        add(tx, "bike-002", "bike", BIKE | {"lock_state": "unlocked"})
        add(tx, "bike-003", "bike", BIKE | {"lock_state": "jammed"})
        add(tx, "bike-004", "bike", BIKE | {"tilt_degrees": 85.0})
        add(tx, "bike-005", "bike", BIKE | {"battery_percent": 3.0})
        add(tx, "bike-006", "bike", BIKE)  # silent: nobody knows
        add_alarm(tx, "s", device_id="bike-006")
        tx.execute(update(alarm).where(alarm.c.id == "s").values(key="silent"))
        add_alarm(tx, "t", device_id="bike-001")
        tx.execute(update(alarm).where(alarm.c.id == "t").values(key="silent", state="normal"))  # was silent
        add(tx, "bike-007", "bike", BIKE, retired_at=5)
        add(tx, "bike-008", "bike", None, at_ms=0)  # never said anything
        add(tx, "nursing-001", "nursing_room", {"occupied": True})
        add(tx, "nursing-002", "nursing_room", {})

    await database.write(happen)
    assert await counts_of(database, "bike") == {
        "can_be_rented": 1, "riding": 1, "lock_jammed": 1, "on_the_ground": 1, "too_little_charge": 1,
    }  # fmt: skip
    assert await counts_of(database, "nursing_room") == {"occupied": 1, "free": 0}


async def test_kinds_without_devices_have_points_too(database):
    assert set((await counts_of(database, "bike")).values()) == {0}


@pytest.mark.parametrize(
    ("where", "said", "expected"),
    [
        (Where("x", 3.0, "<="), 3, True),
        (Where("x", 3.0, "<"), 3, False),
        (Where("x", ("a", "b")), "b", True),
        (Where("x", ("a", "b")), "c", False),
        (Where("x", "a", "!="), "b", True),
        (Where("x", value=False), False, True),
        (Where("x", value=True), None, False),
    ],
)
def test_conditions_hold_as_the_boards_mean_them(where, said, expected):
    assert is_in(Group(Text("组", "group"), (where,)), {"x": said}) is expected


def test_keys_are_one_of_each_in_a_kind():
    for name in kinds():
        groups = [key for key, _ in counted_groups(name).items()]
        assert len(groups) == len(set(groups))
