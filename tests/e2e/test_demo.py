"""`fleet demo` from the outside: what it prints, counts and answers for, also when its cloud is killed.

Real components: Mosquitto with client certificates, the processes of the demo, SQLite.
"""

import json
import os
import re
import sqlite3

import pytest
from demo_process import DemoProcess, fleet

from cli.demo import verdict
from cloud.synthetic import ROOM

pytestmark = [pytest.mark.e2e, pytest.mark.mosquitto]

SMALL = ("--count", "bike=4", "--count", "meal_machine=2", "--count", "nursing_room=4")
# With this seed the scenario presses early, and again after the cloud was killed.
SEED = ("--seed", "3")
OF_PEOPLE = f"device_id <> '{ROOM}'"
"""The watchdog's own room is no device of the fleet."""
DEVICES = 10
KEYS = {
    "devices_online", "telemetry_points", "events", "calls_pressed", "calls_notified", "press_to_notified_ms",
    "unlocks", "sales", "restock_orders", "alarms_open", "lost_events", "doubled_events",
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of 16 s with a doctor's visit: (directory, exit code, figures, words, the doctor's process)."""
    directory = tmp_path_factory.mktemp("demo")
    with DemoProcess(directory, "--for", "16s", *SMALL, *SEED) as demo:
        broker = (directory / "broker" / "mosquitto.conf").read_text()
        environment = {
            **os.environ,
            "FLEET_DATA_DIRECTORY": str(directory / "cloud"),
            "FLEET_BROKER_PORT": re.search(r"listener (\d+)", broker).group(1),
        }
        visit = fleet("doctor", "--url", demo.base_url, "--json", env=environment)
        return directory, *demo.end(), visit


def test_it_exits_well_with_every_key(ran):
    _, exit_code, figures, words, _ = ran
    assert exit_code == 0, words
    assert figures.keys() >= KEYS
    assert figures["press_to_notified_ms"].keys() == {"p50", "p99", "max"}
    assert figures["unlocks"].keys() == {"asked", "opened", "ms_p95"}
    assert figures["sales"].keys() == {"asked", "delivered", "refunded"}


def test_its_figures_agree_with_each_other(ran):
    _, _, figures, _, _ = ran
    assert figures["devices_online"] == DEVICES
    assert figures["telemetry_points"] > DEVICES
    assert figures["events"] >= figures["calls_pressed"] == figures["calls_notified"] > 0
    latency = figures["press_to_notified_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"] < 5_000
    assert 0 < figures["unlocks"]["opened"] <= figures["unlocks"]["asked"]
    assert 0 < figures["sales"]["delivered"] + figures["sales"]["refunded"] <= figures["sales"]["asked"]
    assert figures["lost_events"] == figures["doubled_events"] == 0


def test_its_figures_agree_with_what_it_left_behind(ran):
    directory, _, figures, _, _ = ran
    with sqlite3.connect(directory / "cloud" / "state.db") as database:
        # While everything is being stopped, the fast clock lets stopped devices fall silent.
        query = "SELECT count(*) FROM alarm WHERE state != 'normal' AND key != 'silent'"
        (open_alarms,) = database.execute(query).fetchone()
        (restocks,) = database.execute("SELECT count(*) FROM work_order WHERE skill = 'restock'").fetchone()
        (devices,) = database.execute(f"SELECT count(*) FROM twin WHERE {OF_PEOPLE}").fetchone()
    assert devices == DEVICES
    assert restocks >= figures["restock_orders"] > 0
    assert open_alarms == pytest.approx(figures["alarms_open"], abs=2), "a last alarm may come or go after the count"


def test_what_it_left_behind_is_judged_bad_once_something_is_taken_away_or_added(ran):
    directory, *_ = ran
    truth = [json.loads(line) for line in (directory / "truth.jsonl").read_text().splitlines()]
    notices = [json.loads(line) for line in (directory / "notified.jsonl").read_text().splitlines()]
    with sqlite3.connect(directory / "cloud" / "state.db") as database:
        rows = [{"event_id": row[0]} for row in database.execute(f"SELECT event_id FROM event WHERE {OF_PEOPLE}")]
    kept = {row["event_id"] for row in rows}
    truths = verdict.truths_of([line for line in truth if line["event_id"] in kept], until_ms=2**53)
    all_ids = {line["event_id"] for line in truth if line["event_id"]}
    assert verdict.missing_events(truths, rows) == set()
    assert verdict.missing_events(truths, rows[1:]) == {rows[0]["event_id"]}
    assert verdict.doubled_events(all_ids, rows) == []
    assert verdict.doubled_events(all_ids, [*rows, rows[0]]) == [rows[0]["event_id"]]
    assert set(verdict.notified_presses(truths, notices)) == set(truths.presses)
    press = next(iter(truths.presses))
    others = [notice for notice in notices if notice["notification"]["facts"].get("event_id") != press]
    assert set(verdict.notified_presses(truths, others)) == set(truths.presses) - {press}


def test_words_go_to_stderr_and_name_the_page_and_the_people(ran):
    _, _, _, words, _ = ran
    assert "http://127.0.0.1:" in words
    assert all(f"sign in as {role} / " in words for role in ("employee", "crew", "admin"))


def test_the_doctor_finds_a_running_system_healthy(ran):
    *_, visit = ran
    report = json.loads(visit.stdout)
    assert report["healthy"], report
    assert visit.returncode == 0
    found = {finding["check"]: finding["found"] for finding in report["findings"]}
    assert {"Cloud", "Database", "Mosquitto"} <= set(found)
    assert json.loads(found["Cloud"])["checks"]["broker"] == "ok"


def test_kill_9_of_the_cloud_in_mid_run_changes_nothing(tmp_path):
    with DemoProcess(tmp_path, "--for", "18s", "--kill-cloud", *SMALL, *SEED) as demo:
        exit_code, figures, words = demo.end()
    assert exit_code == 0, words
    assert "kill -9" in words
    assert figures["cloud_restarts"] >= 1
    assert figures["devices_online"] == DEVICES
    assert figures["calls_pressed"] == figures["calls_notified"] > 0
    assert figures["lost_events"] == figures["doubled_events"] == 0
