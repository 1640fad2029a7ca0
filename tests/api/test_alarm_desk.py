"""Shelving, latches, maintenance windows, incidents, sites and statistics over HTTP, on real SQLite."""

import pytest
from sqlalchemy import select

from cloud.alarms.service import AlarmService
from cloud.tables import alarm, device, hiding
from fleet.incident import AlarmEvent, AlarmState, Priority
from tests.api.duty_world import on_duty, refusals
from tests.unit.dispatch_cases import NOW, alarm_change, definition

LATCHING = definition("tampered", Priority.HIGH)
SILENT = definition("silent", Priority.MEDIUM)
DEFINITIONS = {"silent": SILENT, "tampered": LATCHING}
HOUR_MS = 3_600_000


@pytest.fixture
async def desk(tmp_path):
    async with on_duty(tmp_path, DEFINITIONS) as world:
        for number in range(1, 13):
            world.world.write(
                device, device_id=f"bike-{number:03}", kind="bike", enrolled_at=NOW, site="A座" if number < 11 else ""
            )
        yield world


async def test_shelving_hides_with_its_reason_and_end_and_unshelving_shows_again(desk):
    desk.plan(alarm_change(1, of=SILENT))
    path = "/api/v1/alarms/alarm-silent-1"
    found = await desk.post(f"{path}/shelve", {"reason": "换网络", "for_s": 3600})
    now = desk.world.clock.now_ms()
    assert (found["view"], found["hidden_until"], found["hidden_by_name"], found["hidden_reason"]) == (
        "shelved", now + HOUR_MS, "李师傅", "换网络",
    )  # fmt: skip
    assert found["state"] == "unacknowledged", "hiding says nothing about what is true"
    assert found["transitions"][-1]["event"] == "shelve"
    (line,) = (await desk.get("/api/v1/alarms/hidden"))["hidden"]
    assert (line["form"], line["until_at"], line["reason"]) == ("shelf", now + HOUR_MS, "换网络")
    assert [one["id"] for one in (await desk.get("/api/v1/alarms?hidden=yes"))["alarms"]] == ["alarm-silent-1"]
    assert (await desk.get("/api/v1/alarms?hidden=no"))["alarms"] == []
    desk.world.clock.advance(seconds=60)
    found = await desk.post(f"{path}/unshelve", {"reason": "好了"})
    assert (found["view"], found["hidden_until"], found["hidden_by"]) == ("shown", None, "")
    assert (await desk.get("/api/v1/alarms/hidden"))["hidden"] == []
    (row,) = desk.world.database.read_here(lambda tx: tx.execute(select(hiding)).all())
    assert (row.ended_by, row.ended_reason) == ("person-crew", "好了")
    assert [action for action in ("alarm.shelve", "alarm.unshelve") if desk.audited(action)] == [
        "alarm.shelve", "alarm.unshelve",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reason": "", "for_s": 3600}, 422),
        ({"for_s": 3600}, 422),
        ({"reason": "x", "for_s": 24 * 3600 + 1}, 409),
        ({"reason": "x"}, 409),
        ({"reason": "x", "for_s": 5}, 422),
        ({"reason": "x", "for_s": 3600, "forever": True}, 422),
    ],
)
async def test_a_shelf_without_reason_or_above_its_maximum_is_refused_and_hides_nothing(desk, body, status):
    desk.plan(alarm_change(1, of=SILENT))
    await desk.post("/api/v1/alarms/alarm-silent-1/shelve", body, status=status)
    assert (await desk.get("/api/v1/alarms/alarm-silent-1"))["view"] == "shown"
    assert desk.audited("alarm.shelve") == []


async def test_a_latched_alarm_is_reset_only_with_what_was_found_and_not_while_it_is_true(desk):
    desk.plan(alarm_change(1, of=LATCHING))
    path = "/api/v1/alarms/alarm-tampered-1/reset-latch"
    await desk.post(path, {"reason": "看过"}, status=409)
    desk.plan(alarm_change(1, AlarmEvent.RETURN_LATCHED, AlarmState.UNACKNOWLEDGED, of=LATCHING, at=NOW + 5))
    assert (await desk.get("/api/v1/alarms/alarm-tampered-1"))["state"] == "latched_unacknowledged"
    await desk.post(path, {}, status=422)
    found = await desk.post(path, {"reason": "锁体完好"})
    assert found["state"] == "normal"
    assert [step["event"] for step in found["transitions"]] == ["activate", "return_latched", "acknowledge", "reset"]
    assert found["transitions"][-1]["note"] == "锁体完好"


async def test_many_at_once_are_done_or_refused_one_by_one(desk):
    desk.plan(*(alarm_change(number, of=SILENT) for number in (1, 2, 3)))
    await desk.post("/api/v1/alarms/alarm-silent-2/acknowledge")
    ids = ["alarm-silent-1", "alarm-silent-2", "alarm-silent-3", "none"]
    answer = await desk.post("/api/v1/alarms/acts", {"act": "acknowledge", "alarm_ids": ids})
    assert answer["done"] == 2
    assert [line["refused"] for line in answer["alarms"]] == [
        "", "this alarm is acknowledged", "", "there is no such alarm",
    ]  # fmt: skip
    ((_, _, detail),) = [line for line in desk.audited("alarm.acknowledge") if line[1] == "2 alarms"]
    assert "alarm-silent-3" in detail
    await desk.post("/api/v1/alarms/acts", {"act": "clear", "alarm_ids": ids}, status=422)


async def test_a_window_for_a_site_enters_every_lane_of_it_and_can_be_ended(desk):
    desk.plan(alarm_change(1, of=SILENT), alarm_change(12, of=SILENT))
    now = desk.world.clock.now_ms()
    body = {"scope": "site", "target": "A座", "from_at": now, "until_at": now + HOUR_MS, "reason": "停电检修"}
    await desk.post("/api/v1/maintenance/windows", body, status=403)
    window = await desk.post("/api/v1/maintenance/windows", body, role="admin", status=201)
    assert (window["device_count"], window["refused"]) == (10, {})
    assert (await desk.get("/api/v1/alarms/alarm-silent-1"))["view"] == "out_of_service"
    assert (await desk.get("/api/v1/alarms/alarm-silent-12"))["view"] == "shown"
    ended = await desk.post(f"/api/v1/maintenance/windows/{window['id']}/end", {"reason": "done"}, role="admin")
    assert ended["ended_by"] == "person-admin"
    assert (await desk.get("/api/v1/alarms/alarm-silent-1"))["view"] == "shown"
    end = f"/api/v1/maintenance/windows/{window['id']}/end"
    await desk.post(end, {"reason": "again"}, role="admin", status=409)
    assert [len(desk.audited(action)) for action in ("maintenance.plan", "maintenance.end")] == [1, 1]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"until_at": -1}, 422), ({"until_at": 73 * HOUR_MS}, 422), ({"target": "bike-999"}, 404),
        ({"from_at": 91 * 24 * HOUR_MS, "until_at": 91 * 24 * HOUR_MS + 1}, 422), ({"scope": "everything"}, 422),
        ({"reason": ""}, 422),
    ],
)  # fmt: skip
async def test_a_window_that_makes_no_sense_is_refused(desk, change, status):
    now = desk.world.clock.now_ms()
    body = {"scope": "device", "target": "bike-001", "from_at": 0, "until_at": HOUR_MS, "reason": "x"} | change
    body |= {name: max(0, body[name] + now) for name in ("from_at", "until_at")}
    await desk.post("/api/v1/maintenance/windows", body, role="admin", status=status)
    assert (await desk.get("/api/v1/maintenance/windows"))["windows"] == []


async def test_out_of_service_until_somebody_puts_it_back(desk):
    desk.plan(alarm_change(1, of=SILENT))
    body = {"device_id": "bike-001", "reason": "in der Werkstatt"}
    await desk.post("/api/v1/maintenance/out-of-service", body)
    await desk.post("/api/v1/maintenance/out-of-service", body, status=409)
    assert (await desk.get("/api/v1/alarms/alarm-silent-1"))["view"] == "out_of_service"
    (line,) = (await desk.get("/api/v1/alarms/hidden"))["hidden"]
    assert (line["until_at"], line["key"]) == (None, "")
    await desk.post(f"/api/v1/maintenance/hidden/{line['id']}/end", {"reason": "zurück"})
    assert (await desk.get("/api/v1/alarms/alarm-silent-1"))["view"] == "shown"


async def test_a_flood_is_one_incident_and_acknowledging_it_acknowledges_its_alarms(desk):
    desk.plan(*(alarm_change(number, of=SILENT) for number in range(1, 11)))
    (incident,) = (await desk.get("/api/v1/incidents?open=true"))["incidents"]
    assert (incident["alarm_count"], incident["open_count"], incident["site"], incident["state"]) == (
        10, 10, "A座", "open",
    )  # fmt: skip
    assert [(one["key"], one["count"]) for one in incident["keys"]] == [("silent", 10)]
    path = f"/api/v1/incidents/{incident['id']}"
    assert len((await desk.get(path))["alarms"]) == 10
    answer = await desk.post(f"{path}/acknowledge", {"note": "停电"})
    assert (answer["state"], answer["acknowledged_alarms"], answer["refused"]) == ("acknowledged", 10, {})
    states = desk.world.database.read_here(lambda tx: set(tx.scalars(select(alarm.c.state))))
    assert states == {"acknowledged"}
    desk.plan(
        *(
            alarm_change(number, AlarmEvent.RETURN, AlarmState.ACKNOWLEDGED, of=SILENT, at=NOW + 60_000)
            for number in range(1, 11)
        )
    )
    ended = await desk.get(path)
    assert (ended["state"], ended["open_count"]) == ("ended", 0)
    assert [step["event"] for step in ended["transitions"]] == ["grow", "acknowledge", "end"]
    assert (await desk.get("/api/v1/incidents?open=true"))["incidents"] == []
    await desk.post("/api/v1/incidents/none/acknowledge", status=404)


async def test_sites_are_set_by_admins_and_counted(desk):
    desk.plan(alarm_change(11, of=SILENT))
    body = {"site": "B座", "device_ids": ["bike-011", "bike-012"]}
    assert (await desk.clients["crew"].put("/api/v1/sites", json=body)).status_code == 403
    answer = await desk.clients["admin"].put("/api/v1/sites", json=body)
    assert answer.json()["sites"] == [
        {"site": "A座", "devices": 10, "open_alarms": 0}, {"site": "B座", "devices": 2, "open_alarms": 1},
    ]  # fmt: skip
    unknown = {"site": "C座", "device_ids": ["bike-001", "bike-404"]}
    assert (await desk.clients["admin"].put("/api/v1/sites", json=unknown)).status_code == 404
    assert len((await desk.get("/api/v1/alarms?site=B座"))["alarms"]) == 1
    assert (await desk.get("/api/v1/sites"))["sites"][0]["devices"] == 10, "nothing was changed by what was refused"


async def test_statistics_name_the_bad_actors_what_chatters_and_what_is_stale(desk):
    for second in range(0, 30, 10):
        at = NOW + second * 1000
        before = AlarmState.RETURNED_UNACKNOWLEDGED if second else AlarmState.NORMAL
        desk.plan(alarm_change(1, AlarmEvent.ACTIVATE, before, of=SILENT, at=at))
        desk.plan(alarm_change(1, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=SILENT, at=at + 5000))
    desk.plan(alarm_change(2, of=LATCHING, at=NOW + 1000))
    desk.world.clock.advance(seconds=25 * 3600)
    found = (await desk.world.services.get(AlarmService).statistics(2)).model_dump()
    assert (found["activations"], found["announced"]) == (4, 4)
    assert [(one["device_id"], one["key"], one["count"]) for one in found["bad_actors"]] == [
        ("bike-001", "silent", 3), ("bike-002", "tampered", 1),
    ]  # fmt: skip
    assert [one["device_id"] for one in found["chattering"]] == ["bike-001"]
    assert {(one["device_id"], one["count"]) for one in found["stale"]} == {("bike-001", 25), ("bike-002", 24)}
    assert sum(day["activations"] for day in found["per_day"]) == 4


async def test_statistics_of_no_days_are_refused(desk):
    assert (await desk.clients["crew"].get("/api/v1/alarms/statistics?days=0")).status_code == 422
    assert (await desk.get("/api/v1/alarms/statistics"))["activations"] == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/alarms/hidden", {"crew", "admin"}),
        ("GET", "/api/v1/alarms/statistics", {"crew", "admin"}),
        ("GET", "/api/v1/incidents", {"crew", "admin"}),
        ("POST", "/api/v1/alarms/acts", {"crew", "admin"}),
        ("POST", "/api/v1/maintenance/windows", {"crew", "admin"}),
        ("PUT", "/api/v1/sites", {"admin"}),
    ],
)
async def test_the_desk_is_for_those_on_duty(desk, method, path, allowed):
    await refusals(desk, method, path, allowed)
