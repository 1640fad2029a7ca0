"""Emergency calls over HTTP, on real SQLite."""

import pytest

from cloud.calls.endpoints import router
from cloud.calls.service import CallService
from fleet.incident import CallEvent, CallState
from tests.api.duty_world import on_duty, refusals
from tests.unit.dispatch_cases import NOW, call_change, escalation, press
from tests.web.world import add_device


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {}) as world:
        add_device(world.world, "room-001", "nursing_room", name="软件园 1 号楼")
        yield world


async def test_a_call_shows_every_second_from_press_to_cleared(duty):
    duty.plan(press())
    duty.plan(escalation(1, at=NOW + 60_000))
    duty.world.clock.advance(seconds=75)
    await duty.post("/api/v1/calls/call-1/acknowledge")
    duty.plan(call_change(CallEvent.ATTEND, CallState.ACKNOWLEDGED, at=NOW + 200_000, press=2))
    duty.plan(call_change(CallEvent.CLEAR_AT_ORIGIN, CallState.ATTENDED, at=NOW + 260_500, press=3))
    found = await duty.get("/api/v1/calls/call-1")
    assert [(step["step"], step["seconds_after_press"]) for step in found["steps"]] == [
        ("press", 0),
        ("escalate", 60),
        ("acknowledge", 75),
        ("attend", 200),
        ("clear_at_origin", 260.5),
    ]
    assert (found["device_name"], found["state"], found["acknowledged_by_name"]) == (
        "软件园 1 号楼",
        "cleared",
        "李师傅",
    )
    assert found["steps"][2]["actor_name"] == "李师傅"
    assert found["steps"][0]["received_at"] == NOW + 40


async def test_open_calls_and_history(duty):
    duty.plan(press(1), press(2, at=NOW + 5))
    duty.plan(call_change(CallEvent.CLEAR_AT_ORIGIN, CallState.CALLING, at=NOW + 1000, press=3))
    for query, expected in (
        ("", ["call-2", "call-1"]),
        ("?open=true", ["call-2"]),
        ("?open=false", ["call-1"]),
        ("?device_id=room-002", ["call-2"]),
        (f"?before={NOW + 5}", ["call-1"]),
    ):
        assert [found["id"] for found in (await duty.get(f"/api/v1/calls{query}"))["calls"]] == expected, query
    first = await duty.get("/api/v1/calls?limit=1")
    assert (first["next_before"], len(first["calls"][0]["steps"])) == (f"{NOW + 5}.call-2", 1)


async def test_calls_pressed_in_one_moment_are_all_found_page_by_page(duty):
    duty.plan(*(press(number) for number in range(1, 6)))
    seen, mark = [], ""
    for _ in range(3):
        page = await duty.get(f"/api/v1/calls?open=true&limit=2{mark}")
        seen += [found["id"] for found in page["calls"]]
        mark = f"&before={page['next_before']}"
    assert seen == [f"call-{number}" for number in range(5, 0, -1)]
    assert page["next_before"] is None
    for wrong in ("x", "-1", "1_0.call", "9" * 16):
        assert (await duty.clients["crew"].get(f"/api/v1/calls?before={wrong}")).status_code == 422, wrong


async def test_no_open_call_drops_off_whoever_waits_longest_comes_first(duty):
    duty.plan(*(press(number, at=NOW + (number > 2)) for number in range(1, 6)))
    await duty.post("/api/v1/calls/call-1/acknowledge")
    service = duty.world.services.get(CallService)
    seen, after = [], None
    for _ in range(3):
        page = await service.open_calls(after, 2)
        seen += [found.id for found in page.calls]
        after = page.next_before
    assert (seen, after) == (["call-2", "call-3", "call-4", "call-5", "call-1"], None)


async def test_acknowledging_goes_through_the_lane_once(duty):
    duty.plan(press())
    found = await duty.post("/api/v1/calls/call-1/acknowledge")
    assert (found["state"], found["acknowledged_by"]) == ("acknowledged", "person-crew")
    refused = await duty.post("/api/v1/calls/call-1/acknowledge", role="admin", status=409)
    assert refused["detail"] == "this call is already acknowledged"
    assert [entry[1:3] for entry in duty.lane.submitted] == [
        ("acknowledge_call", "person-crew"),
        ("acknowledge_call", "person-admin"),
    ]
    assert [line[:2] for line in duty.audited("call.acknowledge")] == [("person-crew", "call-1")]


async def test_who_looked_at_a_room_s_history_is_written_down(duty):
    duty.plan(press())
    await duty.get("/api/v1/calls?open=true&device_id=room-001")
    await duty.get("/api/v1/calls?open=true")
    assert duty.audited("call.view_history") == []
    await duty.get("/api/v1/calls?device_id=room-001", role="admin")
    await duty.get("/api/v1/calls/call-1")
    await duty.get("/api/v1/calls")
    await duty.get("/api/v1/calls?open=false", role="admin")
    assert [line[:2] for line in duty.audited("call.view_history")] == [
        ("person-admin", "room-001"),
        ("person-crew", "room-001"),
        ("person-crew", "*"),
        ("person-admin", "*"),
    ]


async def test_no_route_of_the_application_clears_a_call(duty):
    routes = {(method, route.path) for route in router.routes for method in route.methods}
    assert routes == {
        ("GET", "/api/v1/calls"),
        ("GET", "/api/v1/calls/{call_id}"),
        ("POST", "/api/v1/calls/{call_id}/acknowledge"),
    }
    duty.plan(press())
    for method in ("DELETE", "PUT", "PATCH", "POST"):
        for path in ("/api/v1/calls/call-1", "/api/v1/calls/call-1/clear", "/api/v1/calls/call-1/cleared"):
            assert (await duty.clients["admin"].request(method, path, json={})).status_code in {404, 405}
    assert (await duty.get("/api/v1/calls/call-1"))["state"] == "calling"


async def test_unknown_calls(duty):
    assert (await duty.clients["crew"].get("/api/v1/calls/none")).status_code == 404
    await duty.post("/api/v1/calls/none/acknowledge", status=404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/calls"),
        ("GET", "/api/v1/calls/call-1"),
        ("POST", "/api/v1/calls/call-1/acknowledge"),
    ],
)
async def test_calls_are_for_those_on_duty(duty, method, path):
    duty.plan(press())
    await refusals(duty, method, path, {"crew", "admin"})
