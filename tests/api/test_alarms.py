"""Alarms over HTTP, on real SQLite."""

import pytest

from cloud.alarms.service import AlarmService
from fleet.incident import AlarmEvent, AlarmState, Priority
from tests.api.duty_world import on_duty, refusals
from tests.unit.dispatch_cases import NOW, alarm_change, definition

BATTERY = definition("battery_low", Priority.MEDIUM, skill="battery")
GONE = definition("of_an_older_release")


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {"silent": definition(skill="repair"), "battery_low": BATTERY}) as world:
        yield world


async def test_a_list_of_alarms_newest_first_with_what_was_asked_for(duty):
    duty.plan(
        alarm_change(1, at=NOW),
        alarm_change(2, at=NOW + 10),
        alarm_change(3, of=BATTERY, at=NOW + 20),
        alarm_change(1, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, at=NOW + 30),
    )
    ids = [line["id"] for line in (await duty.get("/api/v1/alarms"))["alarms"]]
    assert ids == ["alarm-battery_low-3", "alarm-silent-2", "alarm-silent-1"]
    for query, expected in (
        ("state=returned_unacknowledged", ["alarm-silent-1"]),
        ("priority=medium", ["alarm-battery_low-3"]),
        ("device_id=bike-002", ["alarm-silent-2"]),
        ("kind=nursing_room", []),
        ("priority=high&state=unacknowledged", ["alarm-silent-2"]),
    ):
        found = await duty.get(f"/api/v1/alarms?{query}")
        assert [line["id"] for line in found["alarms"]] == expected, query
    page = await duty.get("/api/v1/alarms?limit=2")
    assert len(page["alarms"]) == 2
    rest = await duty.get(f"/api/v1/alarms?limit=2&before={page['next_before']}")
    assert ([line["id"] for line in rest["alarms"]], rest["next_before"]) == (["alarm-silent-1"], None)


async def test_alarms_raised_in_one_moment_are_all_found_page_by_page(duty):
    duty.plan(*(alarm_change(number) for number in range(1, 6)))
    seen, mark = [], ""
    for _ in range(3):
        page = await duty.get(f"/api/v1/alarms?limit=2{mark}")
        seen += [found["id"] for found in page["alarms"]]
        mark = f"&before={page['next_before']}"
    assert seen == [f"alarm-silent-{number}" for number in range(5, 0, -1)]
    assert page["next_before"] is None


async def test_no_open_alarm_drops_off_the_most_urgent_comes_first(duty):
    duty.plan(
        *(alarm_change(number, of=BATTERY, at=NOW + number) for number in (1, 2)),
        *(alarm_change(number) for number in (3, 4, 5)),
        alarm_change(6, at=NOW + 9),
    )
    await duty.post("/api/v1/alarms/alarm-silent-6/acknowledge")
    service = duty.world.services.get(AlarmService)
    seen, after = [], None
    for _ in range(3):
        page = await service.open_alarms(after, 2)
        seen += [f"{found.key}-{found.device_id[-1]}" for found in page.alarms]
        after = page.next_before
    assert seen == ["silent-3", "silent-4", "silent-5", "battery_low-2", "battery_low-1", "silent-6"]
    assert after is None


async def test_one_alarm_says_what_to_do_and_what_happened(duty):
    duty.plan(alarm_change(of=definition(skill="repair")))
    found = await duty.get("/api/v1/alarms/alarm-silent-1")
    assert found["title"] == {"zh": "设备失联", "en": "Device silent"}
    assert found["guide"]["action"]["en"] == "Check power and network; go there if they are fine"
    assert (await duty.get(f"/api/v1/work-orders/{found['order_id']}"))["cause"] == "alarm:alarm-silent-1"
    assert [step["event"] for step in found["transitions"]] == ["activate"]


async def test_an_alarm_whose_definition_is_gone_can_still_be_read(duty):
    duty.plan(alarm_change(of=GONE))
    found = await duty.get("/api/v1/alarms/alarm-of_an_older_release-1")
    assert (found["guide"], found["title"]["en"]) == (None, "of_an_older_release")


async def test_acknowledging_goes_through_the_lane_and_is_audited(duty):
    duty.plan(alarm_change())
    found = await duty.post("/api/v1/alarms/alarm-silent-1/acknowledge", {"note": "去看看"})
    assert (found["state"], found["acknowledged_by"], found["acknowledged_by_name"]) == (
        "acknowledged",
        "person-crew",
        "李师傅",
    )
    assert found["transitions"][-1]["note"] == "去看看"
    assert duty.lane.submitted == [
        ("bike-001", "acknowledge_alarm", "person-crew", {"alarm_id": "alarm-silent-1", "note": "去看看"})
    ]
    ((actor, alarm_id, detail),) = duty.audited("alarm.acknowledge")
    assert (actor, alarm_id) == ("person-crew", "alarm-silent-1")
    assert "去看看" in detail


async def test_what_the_lane_refuses_is_a_conflict_and_not_audited(duty):
    duty.plan(alarm_change())
    await duty.post("/api/v1/alarms/alarm-silent-1/acknowledge")
    refused = await duty.post("/api/v1/alarms/alarm-silent-1/acknowledge", role="admin", status=409)
    assert (refused["code"], refused["detail"]) == ("not_to_acknowledge", "this alarm is acknowledged")
    assert len(duty.audited("alarm.acknowledge")) == 1


async def test_unknown_alarms_and_bad_queries(duty):
    assert (await duty.clients["crew"].get("/api/v1/alarms/none")).status_code == 404
    await duty.post("/api/v1/alarms/none/acknowledge", status=404)
    for query in ("state=open", "priority=top", "limit=0", "limit=501", "before=-1"):
        assert (await duty.clients["crew"].get(f"/api/v1/alarms?{query}")).status_code == 422, query
    duty.plan(alarm_change())
    await duty.post("/api/v1/alarms/alarm-silent-1/acknowledge", {"note": "x" * 501}, status=422)
    await duty.post("/api/v1/alarms/alarm-silent-1/acknowledge", {"state": "normal"}, status=422)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/alarms"),
        ("GET", "/api/v1/alarms/alarm-silent-1"),
        ("POST", "/api/v1/alarms/alarm-silent-1/acknowledge"),
    ],
)
async def test_alarms_are_for_those_on_duty(duty, method, path):
    duty.plan(alarm_change())
    await refusals(duty, method, path, {"crew", "admin"})
