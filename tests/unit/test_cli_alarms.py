"""`fleet alarms` on a real SQLite file, with a lane that answers as a running process does."""

import json
import threading

import pytest
from cli_support import fleet, one_line
from dispatch_cases import NOW, alarm_change, decided, definition
from sqlalchemy import select

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.dispatch.planner import Dispatch
from cloud.ingest.repository import answer_intents, waiting_intents
from cloud.model import Decisions, DeviceLane
from cloud.ports import IntentRefusedError
from cloud.rules import acts, hiding
from cloud.rules.desk import AlarmStatus, Desk
from cloud.tables import alarm, audit, device
from fleet.incident import AlarmState, Priority

SILENT = definition("silent", Priority.MEDIUM)


class Ingester(threading.Thread):
    """Takes acts from the database into the lanes, as `fleet serve` does beside a command."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.database = SqlDatabase(url)
        self.ending = threading.Event()
        self.desks = {}

    def run(self):
        while not self.ending.wait(0.02):
            for item in self.database.read_here(waiting_intents):
                self.database.write_here(lambda tx, item=item: self.take(tx, item))
        self.database.close()

    def take(self, tx, item):
        desk = self.desks.setdefault(item.device_id, Desk())
        for row in tx.execute(select(alarm).where(alarm.c.device_id == item.device_id)):
            status = desk.alarms.setdefault(row.key, AlarmStatus())
            status.state, status.alarm_id, status.condition = AlarmState(row.state), row.id, True
        lane, decisions = DeviceLane(item.device_id, "bike", None, desk), Decisions()
        try:
            answer = acts.ACTS[item.name](lane, {"silent": SILENT}, item, item.at, decisions)
        except IntentRefusedError as refusal:
            answer_intents(tx, [(item, None, str(refusal))], item.at)
            return
        hiding.review(lane, {"silent": SILENT}, item.at, decisions, item.actor)
        Dispatch().plan(tx, decisions, item.at)
        answer_intents(tx, [(item, json.dumps(answer), None)], item.at)


@pytest.fixture
def data(tmp_path):
    url = f"sqlite:///{tmp_path / 'state.db'}"
    upgrade(url)
    database = SqlDatabase(url)
    names = [{"device_id": f"bike-{n:03}", "kind": "bike", "enrolled_at": 1, "site": "A"} for n in range(1, 11)]
    database.write_here(lambda tx: tx.execute(device.insert(), names))
    changes = decided(*(alarm_change(number, of=SILENT) for number in range(1, 11)))
    database.write_here(lambda tx: Dispatch().plan(tx, changes, NOW))
    ingester = Ingester(url)
    ingester.start()
    yield "--data-directory", tmp_path
    ingester.ending.set()
    ingester.join()
    database.close()


def answer_of(*arguments):
    result = fleet(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_alarms_are_listed_shown_acknowledged_hidden_and_shown_again(data):
    assert len(answer_of("alarms", "list", "--site", "A", *data)) == 10
    assert [one["id"] for one in answer_of("alarms", "list", "--device", "bike-003", *data)] == ["alarm-silent-3"]
    assert answer_of("alarms", "acknowledge", "alarm-silent-3", "--note", "seen", *data)["done"] == 1
    assert answer_of("alarms", "show", "alarm-silent-3", *data)["state"] == "acknowledged"
    shelved = answer_of("alarms", "shelve", "alarm-silent-4", "--for-s", "3600", "--reason", "antenna", *data)
    assert shelved["alarms"] == [{"alarm_id": "alarm-silent-4", "refused": ""}]
    (line,) = answer_of("alarms", "hidden", *data)["hidden"]
    assert (line["device_id"], line["reason"]) == ("bike-004", "antenna")
    assert [one["id"] for one in answer_of("alarms", "list", "--hidden", *data)] == ["alarm-silent-4"]
    answer_of("alarms", "unshelve", "alarm-silent-4", *data)
    steps = answer_of("alarms", "history", "alarm-silent-4", *data)
    assert [step["event"] for step in steps] == ["activate", "shelve", "show"]
    assert "antenna" in fleet("alarms", "history", "alarm-silent-4", *data).stdout


def test_windows_outages_incidents_and_statistics(data):
    window = answer_of("alarms", "windows", "plan", "site", "A", "--reason", "power cut", "--for-s", "600", *data)
    assert (window["device_count"], window["refused"]) == (10, {})
    assert [one["id"] for one in answer_of("alarms", "windows", "list", *data)] == [window["id"]]
    assert answer_of("alarms", "windows", "end", window["id"], "--reason", "back", *data)["ended_at"]
    answer_of("alarms", "out-of-service", "bike-001", "--reason", "workshop", *data)
    answer_of("alarms", "in-service", "bike-001", "--reason", "repaired", *data)
    found = {one["id"]: one for one in answer_of("alarms", "incidents", "list", *data)}
    incident = found[f"flood:page:{NOW}"]
    assert len(found) == 1, "what was hidden in the window is told again as part of the same incident"
    assert (incident["alarm_count"], incident["site"]) == (10, "A")
    assert len(answer_of("alarms", "incidents", "show", incident["id"], *data)["alarms"]) == 10
    assert answer_of("alarms", "incidents", "acknowledge", incident["id"], *data)["acknowledged_alarms"] == 10
    assert set(answer_of("alarms", "stats", *data)) >= {"per_day", "people", "bad_actors", "chattering", "stale"}
    for command in (["list"], ["hidden"], ["stats"], ["windows", "list"], ["incidents", "list", "--all"]):
        assert fleet("alarms", *command, *data).exit_code == 0
    database = SqlDatabase(f"sqlite:///{data[1] / 'state.db'}")
    acted = database.read_here(lambda tx: set(tx.scalars(select(audit.c.action))))
    database.close()
    assert acted >= {"maintenance.plan", "maintenance.end", "device.out_of_service", "incident.acknowledge"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["list", "--state", "broken"], 2),
        (["shelve", "alarm-silent-1", "--reason", "x"], 2),
        (["shelve", "alarm-silent-1", "--reason", "x", "--for-s", "90000"], 1),
        (["acknowledge", "none"], 1),
        (["show", "none"], 1),
        (["reset-latch", "alarm-silent-1", "--reason", "x"], 1),
        (["in-service", "bike-001", "--reason", "x"], 1),
        (["windows", "plan", "planet", "x", "--reason", "x"], 2),
        (["windows", "plan", "site", "B", "--reason", "x"], 1),
        (["windows", "plan", "site", "A", "--reason", "x", "--for-s", "300000"], 2),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(data, arguments, code):
    result = fleet("alarms", *arguments, *data)
    assert result.exit_code == code, result.output
    assert one_line(result)


def test_without_a_database_the_fix_is_named(tmp_path):
    assert "fleet serve" in one_line(fleet("alarms", "list", "--data-directory", tmp_path))
