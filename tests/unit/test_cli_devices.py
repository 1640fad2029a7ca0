"""`fleet devices` and `fleet quarantine` on a real SQLite file."""

import json

import pytest
from cli_support import fleet, one_line

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import quarantine


@pytest.fixture
def data(tmp_path):
    upgrade(f"sqlite:///{tmp_path / 'state.db'}")
    return "--data-directory", tmp_path


def enrol(data, device_id="room-007", kind="nursing_room", *options):
    return fleet("devices", "enrol", device_id, "--kind", kind, *options, *data)


def test_without_a_database_it_says_how_to_get_one(tmp_path):
    for command in (["devices", "list"], ["devices", "show", "room-001"], ["quarantine"]):
        result = fleet(*command, "--data-directory", tmp_path)
        assert result.exit_code == 2
        assert "fleet serve" in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_an_enrolled_device_is_listed_and_shown(data):
    enrolled = enrol(data, "room-007", "nursing_room", "--name", "Tower [B], floor 7", "--latitude", 38.86, "--json")
    assert enrolled.exit_code == 0
    assert json.loads(enrolled.stdout)["kind"] == "nursing_room"
    assert enrol(data, "bike-001", "bike").exit_code == 0
    listed = json.loads(fleet("devices", "list", "--json", *data).stdout)
    assert [(row["device_id"], row["kind"], row["online"]) for row in listed] == [
        ("bike-001", "bike", False),
        ("room-007", "nursing_room", False),
    ]
    only = json.loads(fleet("devices", "list", "--kind", "bike", "--json", *data).stdout)
    assert [row["device_id"] for row in only] == ["bike-001"]
    assert "Tower [B]" in fleet("devices", "list", *data).stdout

    shown = json.loads(fleet("devices", "show", "room-007", "--json", *data).stdout)
    assert (shown["name"], shown["latitude"], shown["state"]) == ("Tower [B], floor 7", 38.86, None)
    assert "Tower [B], floor 7" in fleet("devices", "show", "room-007", *data).stdout


def test_an_empty_list_tells_what_to_do_and_is_an_empty_array_in_json(data):
    result = fleet("devices", "list", *data)
    assert result.exit_code == 0
    assert "fleet devices enrol" in result.stderr
    assert json.loads(fleet("devices", "list", "--json", *data).stdout) == []


@pytest.mark.parametrize(
    ("device_id", "kind", "exit_code", "words"),
    [
        ("room-007", "nursing_room", 1, ["room-007", "exists already"]),
        ("Room 7", "nursing_room", 2, ["'Room 7'", "a-z"]),
        ("room-008", "hovercraft", 2, ["hovercraft", "nursing_room"]),
    ],
)
def test_what_cannot_be_enrolled(data, device_id, kind, exit_code, words):
    enrol(data)
    result = enrol(data, device_id, kind)
    assert result.exit_code == exit_code
    for word in words:
        assert word in one_line(result)


def test_a_device_that_is_not_there(data):
    result = fleet("devices", "show", "room-404", *data)
    assert result.exit_code == 1
    assert "fleet devices list" in one_line(result)


def test_quarantine_shows_bytes_topic_and_reason_newest_first(data):
    database = SqlDatabase(f"sqlite:///{data[1] / 'state.db'}")
    rows = [
        {"received_at": 1_800_000_000_000 + number, "topic": f"f/1/bike-00{number}/up/event", "device_id": None,
         "reason": f"[bold] reason {number}", "payload": bytes([0, number])}
        for number in range(3)
    ]  # fmt: skip
    database.write_here(lambda tx: tx.execute(quarantine.insert(), rows))
    database.close()
    found = json.loads(fleet("quarantine", "--limit", 2, "--json", *data).stdout)
    assert [(row["payload_hex"], row["bytes"]) for row in found] == [("0002", 2), ("0001", 2)]
    assert found[0]["topic"] == "f/1/bike-002/up/event"
    table = fleet("quarantine", *data).stdout
    assert "reason 0" in table
    assert "2027-01-15" in table


def test_an_empty_quarantine_says_so(data):
    result = fleet("quarantine", *data)
    assert result.exit_code == 0
    assert "empty" in result.stderr
    assert json.loads(fleet("quarantine", "--json", *data).stdout) == []
