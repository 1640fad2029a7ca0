"""A kind that lives in one folder outside the package takes part everywhere, with nothing else touched.

Real components: Mosquitto with client certificates, the processes of `fleet demo`, SQLite.
"""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
from demo_process import TREE, DemoProcess, fleet

from cloud.adapters.series_sqlite import SqliteSeries

KIND_FOLDER = TREE / "tests" / "fixtures" / "kinds" / "shuttle_bus"
OPTION = ("--kind-folder", str(KIND_FOLDER))
SMALL = ("--count", "bike=2", "--count", "meal_machine=2", "--count", "nursing_room=2", "--count", "shuttle_bus=3")
# With this seed the first press of the scenario is on a bus.
SEED = ("--seed", "3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What people saw through HTTP while the demo ran, what it said at its end, and the folder it leaves behind."""
    directory = tmp_path_factory.mktemp("fourth-kind")
    seen = {}
    with DemoProcess(directory, *OPTION, *SMALL, *SEED) as demo:
        seen["kinds"] = demo.get("/api/v1/kinds")["kinds"]
        seen["devices"] = demo.wait_for(
            "/api/v1/devices?kind=shuttle_bus",
            lambda found: [line["status"] for line in found["devices"]] == ["online"] * 3,
        )["devices"]
        order = demo.as_person("crew").post(
            "/api/v1/devices/bus-002/commands", json={"action": "announce", "announcement": "next_stop"}
        )
        assert order.status_code == 202, order.text
        seen["command"] = demo.get(f"{order.headers['location']}?wait_s=10")
        seen["denied"] = demo.as_person("employee").post(
            "/api/v1/devices/bus-002/commands", json={"action": "announce", "announcement": "next_stop"}
        )
        seen["alarms"] = demo.wait_for("/api/v1/alarms?kind=shuttle_bus", lambda found: found["alarms"])["alarms"]
        seen["twin"] = demo.wait_for(
            "/api/v1/devices/bus-001", lambda found: (found["state"].get("reading") or {}).get("motor_celsius", 0) > 110
        )
        seen["calls"] = demo.wait_for(
            "/api/v1/calls", lambda found: any(call["kind"] == "shuttle_bus" for call in found["calls"])
        )["calls"]
        seen["fleet"] = demo.get("/api/v1/fleet")
        seen["series"] = demo.wait_for(
            "/api/v1/devices/bus-001/series?field=motor_celsius", lambda found: found["points"]
        )
        seen["exit_code"], seen["figures"], seen["words"] = demo.end()
    return directory, seen


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


pytestmark = [pytest.mark.e2e, pytest.mark.mosquitto]


def test_the_whole_run_counts_right(finished):
    _, seen = finished
    figures = seen["figures"]
    assert seen["exit_code"] == 0, seen["words"]
    assert figures["devices_online"] == 9
    assert figures["lost_events"] == figures["doubled_events"] == 0
    assert figures["calls_pressed"] == figures["calls_notified"] > 0


def test_the_simulator_made_its_events_and_the_cloud_holds_them(finished):
    directory, _ = finished
    truths = [line for line in lines_of(directory / "truth.jsonl") if line["device_id"].startswith("bus-")]
    happened = {line["event_id"] for line in truths if line["event_id"]}
    assert {line["what"] for line in truths} >= {"stop_reached", "pressed", "announced"}
    with sqlite3.connect(directory / "cloud" / "state.db") as database:
        stored = {row[0] for row in database.execute("SELECT event_id FROM event WHERE kind = 'shuttle_bus'")}
        quarantined = database.execute("SELECT reason FROM quarantine WHERE device_id LIKE 'bus-%'").fetchall()
    assert stored
    assert stored <= happened
    assert quarantined == []


async def test_its_readings_are_points_of_the_series(finished):
    directory, seen = finished
    store = SqliteSeries(directory / "cloud" / "series.db")
    try:
        assert await store.count("shuttle_bus") >= 9
    finally:
        await store.close()
    assert any(point[1] is not None for point in seen["series"]["points"]), seen["series"]


def test_the_twin_knows_its_state(finished):
    _, seen = finished
    assert seen["twin"]["title_en"] == "Shuttle bus"
    assert seen["twin"]["state"]["reading"]["motor_celsius"] > 110
    assert {
        "kind": "shuttle_bus",
        "title_zh": "通勤班车",
        "title_en": "Shuttle bus",
        "total": 3,
        "online": 3,
        "silent": 0,
    } in (seen["fleet"]["kinds"])


def test_its_rules_raise_its_alarm(finished):
    _, seen = finished
    assert ("bus-001", "motor_hot", "high") in {
        (alarm["device_id"], alarm["key"], alarm["priority"]) for alarm in seen["alarms"]
    }


def test_its_emergency_button_reaches_a_person(finished):
    directory, seen = finished
    pressed = {
        line["event_id"]
        for line in lines_of(directory / "truth.jsonl")
        if line["what"] == "pressed" and line["device_id"].startswith("bus-")
    }
    notices = [line["notification"] for line in lines_of(directory / "notified.jsonl")]
    told = {notice["facts"]["event_id"] for notice in notices if notice["kind_of"] == "call"}
    assert pressed
    assert pressed <= told
    assert {call["device_id"] for call in seen["calls"] if call["kind"] == "shuttle_bus"} <= {
        "bus-001",
        "bus-002",
        "bus-003",
    }


def test_the_api_lists_it_and_carries_its_command_to_success(finished):
    _, seen = finished
    (kind,) = (kind for kind in seen["kinds"] if kind["name"] == "shuttle_bus")
    assert "announce" in json.dumps(kind)
    assert [line["device_id"] for line in seen["devices"]] == ["bus-001", "bus-002", "bus-003"]
    assert seen["command"]["status"] == "succeeded", seen["command"]
    assert seen["denied"].status_code == 403


def test_boards_are_built_for_it(tmp_path):
    built = fleet("dashboards", "build", "--out", str(tmp_path), *OPTION, "--language", "en", "--json")
    assert built.returncode == 0, built.stderr
    boards = {board["board"]: board for board in json.loads(built.stdout)}
    names = [name for name in boards if "shuttle" in name]
    assert len(names) == 2, "one of the kind, one of a single device"
    made = [json.loads((tmp_path / f"{name}.json").read_text()) for name in names]
    titles = {panel.get("title") for board in made for panel in board["panels"]}
    assert {"Motor of each bus", "Passengers on board"} <= titles
    assert all("motor_celsius" in json.dumps(board) for board in made)


def test_asyncapi_describes_it():
    asked = fleet("docs", "asyncapi", env={**os.environ, "FLEET_KIND_FOLDERS": json.dumps([str(KIND_FOLDER)])})
    assert asked.returncode == 0, asked.stderr
    text = json.dumps(json.loads(asked.stdout))
    assert all(word in text for word in ("shuttle_bus", "announce", "motor_celsius"))


def test_it_keeps_the_contract_of_kinds():
    """The conformance tests walk it as they walk the kinds of the package."""
    walked = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/devices", "-k", "shuttle_bus"],
        cwd=TREE, env={**os.environ, "FLEET_KIND_FOLDERS": json.dumps([str(KIND_FOLDER)])}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert walked.returncode == 0, walked.stdout
    assert int(walked.stdout.rpartition(" passed")[0].rpartition("\n")[2].split()[-1]) > 20


def test_nothing_in_the_package_names_it():
    folders = ("fleet", "devices", "edge", "firmware_sim", "cloud", "dashboards", "cli")
    naming = [
        path
        for folder in folders
        for path in (TREE / folder).rglob("*.py")
        if "shuttle" in path.read_text(encoding="utf-8")
    ]
    assert naming == []
