"""Firmware and waste become steps from what a lane remembers and what restockers reported, on both databases."""

import json
from types import SimpleNamespace

from history_cases import NOW_MS
from sqlalchemy import insert, select, text

from cloud.history.found import IS_A_VISIT, LOOK_BACK_MS, firmware_changes, waste
from cloud.presence import Presence, encode
from cloud.tables import device, event, twin
from cloud.twin.stage import Twin

pytest_plugins = ("tests.adapters.postgres_fixture",)


def add(tx, device_id, kind, presence):
    tx.execute(insert(device).values(device_id=device_id, kind=kind, enrolled_at=1))
    marks = dict.fromkeys(
        ("generation", "emergency_seq", "event_seq", "telemetry_seq", "link_boot_epoch", "link_connection",
         "link_changed_at", "version", "online", "last_heard_at", "last_reading_at"), 1,
    )  # fmt: skip
    values = {"state": "{}", "desk": "{}", "presence": encode(presence), **marks}
    tx.execute(insert(twin).values(device_id=device_id, kind=kind, **values))


def add_event(tx, number, at_ms, event_type, body, *, occurred_at=None):
    tx.execute(
        insert(event).values(
            device_id="meal-001",
            kind="meal_machine",
            lane="event",
            boot_epoch=1,
            seq=number,
            event_id=f"e{number}",
            type=event_type,
            occurred_at=at_ms if occurred_at is None else occurred_at,
            received_at=at_ms,
            body=body,
        )
    )


def line(slot, removed, reason):
    return {"slot": slot, "sku": "rice-1", "expected_count": 5, "removed_count": removed, "removed_reason": reason}


def hello(firmware):
    return SimpleNamespace(firmware=firmware, boots=1)


async def test_a_change_of_firmware_is_told_once_with_what_was_before(database):
    lane = SimpleNamespace(presence=Presence(), online=True, link_changed_at=0)
    Twin.on_hello(lane, hello("2.0.3"), NOW_MS - 5000)
    Twin.on_hello(lane, hello("2.0.3"), NOW_MS - 4000)
    Twin.on_hello(lane, hello("2.1.0"), NOW_MS - 3000)
    Twin.on_hello(lane, hello("2.1.0"), NOW_MS - 2000)
    old = Presence(firmware="1.0", firmware_before="0.9", firmware_at=NOW_MS - LOOK_BACK_MS - 1)

    def happen(tx):
        add(tx, "meal-001", "meal_machine", lane.presence)
        add(tx, "bike-001", "bike", old)
        add(tx, "bike-002", "bike", Presence(firmware="1.0"))  # kept by a release that did not note changes

    await database.write(happen)
    (only,) = await database.read(lambda tx: firmware_changes(tx, NOW_MS))
    assert (only.kind, only.device_id, only.at_ns) == ("firmware_step", "meal-001", (NOW_MS - 3000) * 1_000_000)
    assert only.fields == {"firmware": "2.1.0", "firmware_before": "2.0.3"}
    assert await database.read(lambda tx: firmware_changes(tx, NOW_MS)) == [only]


async def test_boxes_that_were_taken_out_are_told_slot_by_slot(database):
    visit = json.dumps({"lines": [line(1, 3, "expired"), line(2, 0, ""), line(3, 1, "spoiled")]})

    def happen(tx):
        add(tx, "meal-001", "meal_machine", Presence())
        add_event(tx, 1, NOW_MS - 1000, "restocked", visit)
        add_event(tx, 2, NOW_MS - 1000, "restocked", visit)  # in the same millisecond
        add_event(tx, 3, NOW_MS - 1000, "door_opened", "{}")
        add_event(tx, 4, NOW_MS - LOOK_BACK_MS - 1, "restocked", visit)
        add_event(tx, 5, NOW_MS - 1000, "restocked", '{"lines": 7}')

    await database.write(happen)
    points = await database.read(lambda tx: waste(tx, NOW_MS))
    assert [(dict(one.tags)["reason"], one.fields["boxes"], one.fields["slot"]) for one in points] == [
        ("expired", 3, 1), ("spoiled", 1, 3), ("expired", 3, 1), ("spoiled", 1, 3),
    ]  # fmt: skip
    assert len({one.at_ns for one in points}) == 4
    assert await database.read(lambda tx: waste(tx, NOW_MS)) == points


async def test_a_visit_that_came_in_days_late_is_found_and_stands_where_it_was(database):
    visited_ms = NOW_MS - 3 * LOOK_BACK_MS

    def happen(tx):
        add(tx, "meal-001", "meal_machine", Presence())
        visit = json.dumps({"lines": [line(1, 3, "expired")]})
        add_event(tx, 1, NOW_MS - 1000, "restocked", visit, occurred_at=visited_ms)

    await database.write(happen)
    (only,) = await database.read(lambda tx: waste(tx, NOW_MS))
    assert only.at_ns // 1_000_000 == visited_ms


async def test_visits_are_found_by_their_own_index(database):
    """Most of the events are something else."""

    def explain(tx):
        if tx.dialect.name == "postgresql":
            tx.execute(text("SET LOCAL enable_seqscan = off"))  # an empty table is read as a whole otherwise
        query = select(event.c.id).where(event.c.received_at > NOW_MS, IS_A_VISIT)
        compiled = query.compile(dialect=tx.dialect, compile_kwargs={"literal_binds": True})
        prefix = "EXPLAIN " if tx.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        return " ".join(str(row) for row in tx.exec_driver_sql(prefix + str(compiled)))

    assert "event_of_visits" in await database.read(explain)
