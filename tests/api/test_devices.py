"""The fleet over HTTP, on real SQLite; the sender of commands and the lane are stand-ins."""

import json

import pytest
from sqlalchemy import insert, select, update

from cloud import tables
from cloud.ports import CommandQueueFullError
from tests.web import world as worlds
from tests.web.client import client
from tests.web.world import NOW_MS, make_world


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    bike = {"device_id": "bike-001", "reading": worlds.BIKE_READING, "lock_state": "locked"}
    worlds.add_device(made, "bike-001", "bike", state=bike)
    worlds.add_device(made, "bike-002", "bike", heard_ago_ms=3_600_000)  # link up, but no word for an hour
    worlds.add_device(made, "bike-003", "bike", online=False)
    worlds.add_device(made, "room-001", "nursing_room", name="母婴小屋 001")
    worlds.add_device(made, "room-002", "nursing_room", name="100%_room")
    yield made
    made.database.close()


async def test_the_fleet_in_numbers(world):
    worlds.add_call(world, "call-1", "room-001")
    worlds.add_call(world, "call-2", "room-002", state="cleared")
    worlds.add_alarm(world, "alarm-1", "bike-001", "bike", "fallen")
    worlds.add_alarm(world, "alarm-2", "bike-001", "bike", "tampered", state="normal")
    worlds.add_order(world, "order-1", "bike-001", "bike")
    worlds.add_order(world, "order-2", "bike-001", "bike", state="done")
    async with client(world, "crew") as crew:
        answer = (await crew.get("/api/v1/fleet")).json()
    kinds = {one["kind"]: (one["total"], one["online"], one["silent"]) for one in answer["kinds"]}
    assert kinds["bike"] == (3, 1, 2)
    assert kinds["nursing_room"] == (2, 2, 0)
    assert kinds["meal_machine"] == (0, 0, 0)
    assert answer["open"] == {"calls": 1, "alarms": 1, "orders": 1}


async def test_a_device_that_never_spoke_is_silent_not_missing(world):
    world.write(tables.device, device_id="bike-009", kind="bike", enrolled_at=NOW_MS)
    async with client(world, "crew") as crew:
        fleet = (await crew.get("/api/v1/fleet")).json()
        listed = (await crew.get("/api/v1/devices", params={"state": "silent"})).json()
        one = (await crew.get("/api/v1/devices/bike-009")).json()
    assert next(kind for kind in fleet["kinds"] if kind["kind"] == "bike")["silent"] == 3
    assert [line["device_id"] for line in listed["devices"]] == ["bike-002", "bike-003", "bike-009"]
    assert one["status"] == "silent"
    assert one["link"] is None


async def test_the_list_pages_through_every_device_once(world):
    seen, after = [], ""
    async with client(world, "crew") as crew:
        while True:
            page = (await crew.get("/api/v1/devices", params={"limit": 2, "after": after})).json()
            seen += [line["device_id"] for line in page["devices"]]
            after = page["next_after"]
            if after is None:
                break
    assert seen == ["bike-001", "bike-002", "bike-003", "room-001", "room-002"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"kind": "nursing_room"}, ["room-001", "room-002"]),
        ({"q": "小屋"}, ["room-001"]),
        ({"q": "%_r"}, ["room-002"]),
        ({"q": "%"}, ["room-002"]),
        ({"state": "online", "kind": "bike"}, ["bike-001"]),
        ({"state": "alarm"}, ["bike-003", "room-001"]),
        ({"state": "retired"}, []),
    ],
)
async def test_the_list_is_filtered(world, query, expected):
    worlds.add_call(world, "call-1", "room-001")
    worlds.add_alarm(world, "alarm-1", "bike-003", "bike", "fallen")
    async with client(world, "crew") as crew:
        answer = (await crew.get("/api/v1/devices", params=query)).json()
    assert [line["device_id"] for line in answer["devices"]] == expected


async def test_one_device_with_its_state_and_incidents(world):
    worlds.add_alarm(world, "alarm-1", "bike-001", "bike", "fallen")
    worlds.add_alarm(world, "alarm-2", "bike-001", "bike", "gone_from_the_code")
    async with client(world, "crew") as crew:
        answer = (await crew.get("/api/v1/devices/bike-001")).json()
    assert answer["state"]["reading"]["battery_percent"] == 81.0
    assert (answer["latitude"], answer["longitude"]) == (38.862, 121.515)  # by its reading, not where it was put up
    assert answer["link"] == {"online": True, "changed_at": NOW_MS - 3_600_000}
    assert {alarm["key"]: alarm["title_en"] for alarm in answer["alarms"]} == {
        "fallen": "Fallen over",
        "gone_from_the_code": "gone_from_the_code",
    }


async def test_series_of_a_number(world):
    async with client(world, "crew") as crew:
        query = {"field": "battery_percent", "from": NOW_MS - 3_600_000, "to": NOW_MS, "step_s": 600}
        answer = (await crew.get("/api/v1/devices/bike-001/series", params=query)).json()
        assert answer["unit"] == "percent"
        assert len(answer["points"]) == 6
        text = await crew.get("/api/v1/devices/bike-001/series", params={"field": "lock_state"})
        wide = await crew.get(
            "/api/v1/devices/bike-001/series", params={"field": "battery_percent", "from": 0, "step_s": 1}
        )
    assert text.json()["code"] == "unknown_field"
    assert wide.json()["code"] == "bad_range"


async def test_events_page_backwards_and_a_look_at_a_room_is_audited_once(world):
    for number in range(5):
        world.write(
            tables.event, device_id="room-001", kind="nursing_room", lane="event", boot_epoch=1, seq=number,
            event_id=f"{number:032x}", type="mains_lost", occurred_at=NOW_MS + number, received_at=NOW_MS + number,
            body=json.dumps({"type": "mains_lost", "event_id": f"{number:032x}"}),
        )  # fmt: skip
    async with client(world, "crew") as crew:
        first = (await crew.get("/api/v1/devices/room-001/events", params={"limit": 3})).json()
        rest = (await crew.get("/api/v1/devices/room-001/events", params={"before": first["next_before"]})).json()
        await crew.get("/api/v1/devices/bike-001/events")
    assert [line["occurred_at"] - NOW_MS for line in first["events"] + rest["events"]] == [4, 3, 2, 1, 0]
    assert rest["next_before"] is None
    looks = world.database.read_here(lambda tx: tx.execute(select(tables.audit)).all())
    assert [(look.actor, look.action, look.object) for look in looks] == [
        ("person-crew", "device.view_history", "room-001")
    ]


# --- commands --------------------------------------------------------------------------------------------------


async def test_a_command_is_ordered_followed_and_audited(world):
    async with client(world, "crew") as crew:
        answer = await crew.post("/api/v1/devices/bike-001/commands", json={"action": "ring", "duration_seconds": 7})
        assert answer.status_code == 202
        assert answer.json()["status"] == "queued"
        assert world.commands.woken == 1
        done = (await crew.get(answer.headers["location"], params={"wait_s": 5})).json()
    assert done["status"] == "succeeded"
    assert done["final"] is True
    row = world.database.read_here(lambda tx: tx.execute(select(tables.command)).one())
    assert json.loads(row.arguments) == {"action": "ring", "duration_seconds": 7}
    audit = world.database.read_here(lambda tx: tx.execute(select(tables.audit)).one())
    assert (audit.actor, audit.action, audit.object) == ("person-crew", "device.command", "bike-001")


@pytest.mark.parametrize(
    ("login", "body", "status", "code"),
    [
        ("crew", {"action": "reboot"}, 403, "not_allowed"),
        ("admin", {"action": "reboot"}, 202, None),
        ("crew", {"action": "explode"}, 422, "unknown_action"),
        ("crew", {}, 422, "unknown_action"),
        ("crew", {"action": "ring", "duration_seconds": 99}, 422, "invalid_arguments"),
        ("crew", {"action": "ring", "duration_seconds": "5"}, 422, "invalid_arguments"),
        ("crew", {"action": "unlock", "extra": 1}, 422, "invalid_arguments"),
    ],
)
async def test_commands_are_checked_by_role_and_arguments(world, login, body, status, code):
    async with client(world, login) as person:
        answer = await person.post("/api/v1/devices/bike-001/commands", json=body)
    assert answer.status_code == status
    assert code is None or answer.json()["code"] == code
    assert world.commands.woken == int(status == 202)


RING = {"action": "ring", "duration_seconds": 7}


@pytest.mark.parametrize(
    ("headers", "params", "applied"),
    [
        ({"prefer": "respond-async, wait=5"}, {}, "wait=5"),
        ({"prefer": "wait=99999"}, {}, "wait=30"),
        ({}, {"wait_s": 5}, None),
    ],
)
async def test_the_answer_can_wait_for_the_outcome(world, headers, params, applied):
    async with client(world, "crew") as crew:
        url = "/api/v1/devices/bike-001/commands"
        ended = await crew.post(url, json=RING, headers=headers, params=params)
        at_once = await crew.post(url, json=RING, headers={"prefer": "handling=strict"})
    assert (ended.status_code, ended.json()["status"]) == (200, "succeeded")
    assert ended.headers.get("preference-applied") == applied
    assert ended.headers["location"].endswith(ended.json()["id"])
    assert (at_once.status_code, at_once.json()["status"]) == (202, "queued")


async def test_the_answer_says_at_once_that_the_device_cannot_be_reached(world):
    def link(online):
        world.database.write_here(
            lambda tx: tx.execute(
                update(tables.twin).where(tables.twin.c.device_id == "bike-001").values(online=online)
            )
        )

    async with client(world, "crew") as crew:
        reached = await crew.post("/api/v1/devices/bike-001/commands", json=RING)
        link(0)
        offline = await crew.post("/api/v1/devices/bike-001/commands", json=RING)
        assert (offline.status_code, offline.json()["status"]) == (202, "queued")
        ended = await crew.get(offline.headers["location"], params={"wait_s": 1})
    assert [answer.json()["device_offline"] for answer in (reached, offline, ended)] == [False, True, False]


async def test_a_devices_commands_are_listed_page_by_page_and_by_status(world):
    def past(tx):
        for number, (action, status) in enumerate([("ring", "succeeded"), ("lock", "expired"), ("ring", "sent")]):
            tx.execute(
                insert(tables.command).values(
                    id=f"{number:032x}", device_id="bike-001", action=action, arguments='{"action":"x","a":1}',
                    actor="p", issued_at=number, not_after=number, generation=1, status=status, changed_at=number,
                )
            )  # fmt: skip

    world.database.write_here(past)
    url = "/api/v1/devices/bike-001/commands"
    async with client(world, "crew") as crew:

        async def listed(**params):
            answer = (await crew.get(url, params=params)).json()
            return [one["issued_at"] for one in answer["commands"]], answer["next_before"]

        assert await listed() == ([2, 1, 0], None)
        assert await listed(limit=2) == ([2, 1], 1)
        assert await listed(limit=2, before=1) == ([0], None)
        assert await listed(status="open") == ([2], None)
        assert await listed(status=["open", "expired"]) == ([2, 1], None)
        assert await listed(action="ring") == ([2, 0], None)
        assert (await crew.get(url)).json()["commands"][0]["arguments"] == {"a": 1}
        assert (await crew.get(url, params={"status": "lost"})).status_code == 422
        assert (await crew.get("/api/v1/devices/nobody/commands")).status_code == 404
    async with client(world, "employee") as employee:
        assert (await employee.get(url)).status_code == 403


async def test_a_queued_command_can_be_taken_back_by_who_sent_it_or_an_admin(world):
    url = "/api/v1/devices/bike-001/commands"
    async with client(world, "admin") as admin, client(world, "crew") as crew:
        theirs = (await admin.post(url, json=RING)).json()["id"]
        own = (await crew.post(url, json=RING)).json()["id"]
        refused = await crew.post(f"/api/v1/commands/{theirs}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
        taken_back = await crew.post(f"/api/v1/commands/{own}/cancel")
        assert (taken_back.json()["status"], taken_back.json()["reason"]) == ("refused", "cancelled")
        again = await admin.post(f"/api/v1/commands/{own}/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "already_sent")
        assert (await admin.post("/api/v1/commands/nothing/cancel")).status_code == 404
    audits = world.database.read_here(lambda tx: tx.execute(select(tables.audit.c.action)).scalars().all())
    assert audits.count("device.cancel_command") == 1


async def test_too_many_open_commands_of_one_person_are_a_429(world, monkeypatch):
    def full(*_arguments, **_keywords):
        raise CommandQueueFullError("actor", "64 of your commands have not ended yet; wait until they do")

    monkeypatch.setattr(world.commands, "order", full)
    async with client(world, "crew") as crew:
        answer = await crew.post("/api/v1/devices/bike-001/commands", json=RING)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_commands")
    assert "wait" in answer.json()["detail"]


async def test_a_full_queue_and_a_retired_device_take_no_commands(world):
    async with client(world, "admin") as admin:
        world.commands.full = True
        full = await admin.post("/api/v1/devices/bike-001/commands", json={"action": "unlock"})
        world.commands.full = False
        assert (await admin.post("/api/v1/devices/bike-001/retire")).status_code == 204
        retired = await admin.post("/api/v1/devices/bike-001/commands", json={"action": "unlock"})
    assert full.json()["code"] == "not_taken"
    assert retired.json()["code"] == "retired"


# --- administration --------------------------------------------------------------------------------------------


async def test_enrolling(world):
    body = {"device_id": "bike-100", "kind": "bike", "name": "new", "latitude": 38.86, "longitude": 121.5}
    async with client(world, "admin") as admin:
        made = await admin.post("/api/v1/devices", json=body)
        assert made.status_code == 201
        assert made.json()["status"] == "silent"
        assert (await admin.post("/api/v1/devices", json=body)).json()["code"] == "device_exists"
        assert (await admin.post("/api/v1/devices", json={**body, "kind": "boat"})).json()["code"] == "unknown_kind"
        assert (await admin.post("/api/v1/devices", json={**body, "device_id": "../x"})).status_code == 422


async def test_retiring_goes_through_the_lane(world):
    async with client(world, "admin") as admin:
        assert (await admin.post("/api/v1/devices/bike-001/retire")).status_code == 204
        assert (await admin.get("/api/v1/devices/bike-001")).json()["status"] == "retired"
        assert (await admin.post("/api/v1/devices/bike-999/retire")).status_code == 404
    assert world.intents.submitted == [("bike-001", "retire", "person-admin", {})]


async def test_a_room_with_an_open_call_cannot_be_retired(world):
    worlds.add_call(world, "call-1", "room-001", state="attended")
    async with client(world, "admin") as admin:
        answer = await admin.post("/api/v1/devices/room-001/retire")
        assert answer.json()["code"] == "call_open"
        assert (await admin.get("/api/v1/devices/room-001")).json()["retired_at"] is None
    assert world.intents.submitted == []


async def test_what_the_lane_refuses_is_not_retired(world):
    world.intents.refusal = "a call is open"
    async with client(world, "admin") as admin:
        assert (await admin.post("/api/v1/devices/room-001/retire")).json()["code"] == "not_retired"
        assert (await admin.get("/api/v1/devices/room-001")).json()["retired_at"] is None


async def test_quarantine_lists_bytes_and_reason(world):
    for number in range(3):
        world.write(
            tables.quarantine, received_at=NOW_MS + number, topic="f/1/bike-001/up/event", device_id="bike-001",
            lane="event", seq=number, reason="not JSON", payload=b"\xff" * 600,
        )  # fmt: skip
    async with client(world, "admin") as admin:
        first = (await admin.get("/api/v1/quarantine", params={"limit": 2})).json()
        rest = (await admin.get("/api/v1/quarantine", params={"before": first["next_before"]})).json()
    assert [one["seq"] for one in first["messages"] + rest["messages"]] == [2, 1, 0]
    assert first["messages"][0]["payload_bytes"] == 600
    assert first["messages"][0]["reason"] == "not JSON"


async def test_the_export_holds_every_event_once_across_its_pages(world, monkeypatch):
    monkeypatch.setattr("cloud.devices.service.EXPORT_ROWS", 2)
    for number in range(5):
        world.write(
            tables.event, device_id="bike-001", kind="bike", lane="event", boot_epoch=1, seq=number,
            event_id=f"{number:032x}", type="fall", occurred_at=NOW_MS, received_at=NOW_MS, body="{}",
        )  # fmt: skip
    async with client(world, "admin") as admin:
        answer = await admin.get("/api/v1/events/export")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["event_id"] for line in lines] == [f"{number:032x}" for number in range(5)]
    assert set(lines[0]) == {"id", "device_id", "type", "event_id", "occurred_at", "received_at"}
    taken = select(tables.audit.c.actor, tables.audit.c.object).where(tables.audit.c.action == "event.export")
    assert world.database.read_here(lambda tx: [tuple(row) for row in tx.execute(taken)]) == [("person-admin", "*")]


async def test_kinds_describe_themselves(world):
    async with client(world, "employee") as employee:
        answer = (await employee.get("/api/v1/kinds")).json()
    bike = next(kind for kind in answer["kinds"] if kind["name"] == "bike")
    battery = next(field for field in bike["fields"] if field["name"] == "battery_percent")
    assert battery == {
        "name": "battery_percent", "label_zh": "电量", "label_en": "Battery", "unit": "percent", "numeric": True,
    }  # fmt: skip
    assert next(field for field in bike["fields"] if field["name"] == "lock_state")["numeric"] is False
    ring = next(command for command in bike["commands"] if command["action"] == "ring")
    assert ring["roles"] == ["admin", "crew"]
    assert ring["arguments"]["properties"]["duration_seconds"]["maximum"] == 30
