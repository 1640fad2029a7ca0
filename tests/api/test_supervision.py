"""Supervision of calls and buttons through HTTP and the command line; what each second of a call shows."""

import json

import pytest
from sqlalchemy import insert

from cloud import tables
from cloud.supervision.service import SupervisionService
from cloud.synthetic import ROOM
from tests.api.duty_world import on_duty, refusals
from tests.web.world import NOW_MS, add_call, add_device

DESK = {
    "alarms": {
        "silent": {"state": "unacknowledged", "condition": True, "since": NOW_MS - 8_000_000, "alarm_id": "a"},
        "substitute_due": {"state": "unacknowledged", "condition": True, "since": NOW_MS - 800_000, "alarm_id": "b"},
    },
    "button": {
        "watched_since": NOW_MS - 9 * 86_400_000, "proven_at": NOW_MS - 86_400_000, "faulty_since": NOW_MS - 8_000_000,
    },
}  # fmt: skip


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {}) as found:
        world = found.world
        for device_id, desk in (("room-001", {}), ("room-002", DESK), (ROOM, {})):
            add_device(world, device_id, "nursing_room", name=f"母婴室 {device_id}")
            world.database.write_here(
                lambda tx, device_id=device_id, desk=desk: tx.execute(
                    tables.twin.update().where(tables.twin.c.device_id == device_id).values(desk=json.dumps(desk))
                )
            )
        world.services.get(SupervisionService)._intents = world.intents
        yield found


async def test_the_overview_names_faults_and_hides_the_synthetic_room(duty):
    found = await duty.get("/api/v1/supervision")
    assert [one["device_id"] for one in found["buttons"]] == ["room-001", "room-002"]
    broken = found["buttons"][1]
    assert broken["faults"] == ["silent"]
    assert broken["substitute_due"]
    assert broken["faulty_since"] == NOW_MS - 8_000_000
    assert broken["test_due_at"] == NOW_MS + 6 * 86_400_000
    assert not found["chain"]["watched"]
    page = await duty.get("/api/v1/supervision?limit=1")
    assert page["next_after"] == "room-001"
    assert (await duty.clients["crew"].get(f"/api/v1/supervision/rooms/{ROOM}")).status_code == 404


async def test_the_synthetic_room_and_its_calls_are_nowhere(duty):
    add_call(duty.world, "synthetic", ROOM, purpose="synthetic")
    add_call(duty.world, "tested", "room-001", purpose="test")
    add_call(duty.world, "real", "room-002")
    listed = await duty.get("/api/v1/calls?open=true")
    assert sorted(call["id"] for call in listed["calls"]) == ["real", "tested"]
    assert (await duty.clients["crew"].get("/api/v1/calls/synthetic")).status_code == 404
    fleet = await duty.get("/api/v1/fleet")
    assert fleet["open"]["calls"] == 1, "a test is no call for help, and a synthetic one is none at all"
    left = await duty.post("/api/v1/roster/handovers", {"note": ""}, status=201)
    assert [one["id"] for one in left["open_items"]] == ["real"], "nor is it handed over"
    assert ROOM not in json.dumps(await duty.get("/api/v1/devices"))
    assert (await duty.clients["crew"].get(f"/api/v1/devices/{ROOM}")).status_code == 404


async def test_a_measure_is_recorded_with_who_what_and_until_when(duty):
    body = {"measure": "front desk looks in every 10 min", "responsible": "Li", "until_at": NOW_MS + 3_600_000}
    made = await duty.post("/api/v1/supervision/rooms/room-002/substitute", body, status=201)
    assert made["recorded_by"] == "person-crew"
    assert (await duty.get("/api/v1/supervision/rooms/room-002"))["measure"]["responsible"] == "Li"
    ((actor, room, detail),) = duty.audited("button.substitute")
    assert (actor, room) == ("person-crew", "room-002")
    assert "front desk" in detail
    duty.world.intents.refusal = "this room can call for help: no substitute measure is needed"
    refused = await duty.post("/api/v1/supervision/rooms/room-001/substitute", body, status=409)
    assert "no substitute measure is needed" in refused["detail"]
    await duty.post("/api/v1/supervision/rooms/room-001/substitute", {**body, "measure": ""}, status=422)


async def test_test_mode_enters_the_lane_and_is_audited(duty):
    duty.world.intents.submitted.clear()

    async def begun(device_id, name, actor, arguments):
        duty.world.intents.submitted.append((device_id, name, actor, arguments))
        return {"test_until": NOW_MS + 60_000}

    duty.world.intents.submit = begun
    answer = await duty.post("/api/v1/supervision/rooms/room-001/test", {"seconds": 60})
    assert answer == {"device_id": "room-001", "test_until": NOW_MS + 60_000}
    assert duty.world.intents.submitted == [("room-001", "begin_button_test", "person-crew", {"seconds": 60.0})]
    assert duty.audited("button.test")
    await duty.post("/api/v1/supervision/rooms/room-001/test", {"seconds": 6_000}, status=422)
    await duty.post("/api/v1/supervision/rooms/room-999/test", {"seconds": 60}, status=404)


async def test_the_history_of_proof_tests_is_kept_and_looking_at_it_is_written_down(duty):
    rows = [
        {"device_id": "room-001", "kind": "nursing_room", "at": NOW_MS - age, "received_at": NOW_MS - age, "how": how,
         "passed": passed, "failure": failure, "event_id": f"{age:032x}"}
        for age, how, passed, failure in ((900, "pressed", 1, ""), (600, "self_test_result", 0, "cord"))
    ]  # fmt: skip
    duty.world.database.write_here(lambda tx: tx.execute(insert(tables.proof_test), rows))
    found = await duty.get("/api/v1/supervision/rooms/room-001/proof-tests")
    assert [(one["how"], one["passed"], one["failure"]) for one in found["tests"]] == [
        ("self_test_result", False, "cord"), ("pressed", True, ""),
    ]  # fmt: skip
    assert (await duty.get("/api/v1/supervision/rooms/room-001"))["proven_at"] == NOW_MS - 900
    assert [line[1] for line in duty.audited("button.view_tests")] == ["room-001"]


async def test_a_call_shows_each_attempt_to_tell_somebody(duty):
    add_call(duty.world, "real", "room-002")
    pressed_at = NOW_MS - 42_000
    attempt = {
        "at": pressed_at + 1_200, "delivery_id": "d", "reference": "real", "kind_of": "call", "channel": "sms",
        "recipient": "person-crew", "contact_id": "", "attempt": 1, "urgent": 1, "outcome": "failed",
        "duration_ms": 90, "error": "HTTP 500",
    }  # fmt: skip
    duty.world.database.write_here(lambda tx: tx.execute(insert(tables.delivery_attempt).values(attempt)))
    (found,) = (await duty.get("/api/v1/calls/real"))["attempts"]
    assert (found["seconds_after_press"], found["recipient_name"], found["error"]) == (1.2, "李师傅", "HTTP 500")
    page = await duty.clients["crew"].get("/calls/real")
    assert page.status_code == 200
    assert "HTTP 500" in page.text
    assert "+1.2 s" in page.text
    assert ("person-crew", "room-002", "{}") in duty.audited("call.view_history")


async def test_the_pages_of_calls_work_as_plain_forms(duty):
    add_call(duty.world, "real", "room-002")
    page = await duty.clients["crew"].get("/calls")
    assert page.status_code == 200
    assert "/calls/real" in page.text
    assert "登记替代措施" in page.text
    form = {"measure": "前台值守", "responsible": "李", "hours": "4"}
    done = await duty.clients["crew"].post("/rooms/room-002/substitute", data=form)
    assert done.status_code == 303, done.text
    assert done.headers["location"].startswith("/calls?notice=measure_recorded")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/supervision"),
        ("GET", "/api/v1/supervision/rooms/room-001"),
        ("GET", "/api/v1/supervision/rooms/room-001/proof-tests"),
        ("POST", "/api/v1/supervision/rooms/room-001/test"),
        ("POST", "/api/v1/supervision/rooms/room-001/substitute"),
    ],
)
async def test_only_those_on_duty_are_let_in(duty, method, path):
    await refusals(duty, method, path, {"crew", "admin"})


async def test_the_watchdogs_word_is_on_the_status_and_in_the_banner(duty):
    service = duty.world.services.get(SupervisionService)
    service._chain = {
        "whole": False, "stage": "dispatch", "reason": "nobody took it", "round_trip_s": 0.1, "whole_before_s": 31.0,
        "announced": [], "rounds": 9,
    }  # fmt: skip
    found = (await duty.get("/api/v1/supervision"))["chain"]
    assert (found["watched"], found["stage"]) == (True, "dispatch")
    assert "紧急呼叫可能无法送达：分派" in (await duty.clients["crew"].get("/orders")).text
