"""`fleet devices enrol --serial`, approve, reject, revoke, retire, certificates: what an admin types and reads."""

import json

import pytest
from cli_support import fleet, one_line

from cli import enrolment_commands
from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.identity.pki_folder import PkiFolder
from fleet.claim import parse_claim
from tests.api.enrolment_world import Wall

COMMANDS = (
    ["devices", "list"], ["devices", "waiting"], ["devices", "certificates"], ["devices", "retire", "room-007"],
    ["devices", "revoke", "room-007", "--reason", "x"], ["devices", "approve", "room-007", "--fingerprint", "0" * 8],
    ["quarantine"],
)  # fmt: skip


@pytest.fixture
def data(tmp_path):
    upgrade(f"sqlite:///{tmp_path / 'state.db'}")
    return "--data-directory", tmp_path


@pytest.fixture
def pki(tmp_path):
    folder = PkiFolder(tmp_path / "pki")
    folder.initialise(Wall().now)
    return {"FLEET_PKI_DIRECTORY": str(folder.directory)}


def enrol(data, pki, *options):
    return fleet("devices", "enrol", "room-007", "--kind", "nursing_room", *options, *data, **pki)


def rows(data, table):
    database = SqlDatabase(f"sqlite:///{data[1] / 'state.db'}")
    try:
        return database.read_here(lambda tx: list(tx.execute(table.select())))
    finally:
        database.close()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1] if len(command) > 1 else command[0])
def test_an_unreachable_database_ends_with_one_line(command):
    url = "postgresql+psycopg://nobody:secret@127.0.0.1:9/fleet?connect_timeout=2"
    result = fleet(*command, FLEET_DATABASE_URL=url)
    assert result.exit_code == 1
    assert "FLEET_DATABASE_URL" in one_line(result)
    assert "secret" not in result.stderr


def test_a_claim_is_shown_once_and_never_stored(data, pki):
    result = enrol(data, pki, "--serial", "FB-0042", "--json")
    assert result.exit_code == 0, result.stderr
    made = json.loads(result.stdout)
    parse_claim(made["claim"])
    (row,) = rows(data, tables.claim)
    assert row.hardware_serial == "FB-0042"
    assert row.expires_at - row.made_at == 900_000
    assert made["claim"] not in str(row)
    again = enrol(data, pki, "--serial", "FB-0042", "--json")
    assert json.loads(again.stdout)["claim"] != made["claim"]
    assert [row.withdrawn_at is None for row in sorted(rows(data, tables.claim), key=lambda row: row.made_at)].count(
        True
    ) == 1


def test_what_cannot_be_is_said_in_one_line(data, pki):
    assert "FLEET_PKI_DIRECTORY" in one_line(enrol(data, {}, "--serial", "FB-1"))
    assert enrol(data, pki).exit_code == 0
    assert "--serial" in one_line(enrol(data, pki))
    other = fleet("devices", "enrol", "room-007", "--kind", "bike", "--serial", "X", *data, **pki)
    assert "nursing_room" in one_line(other)
    assert "fleet edge enrol" in one_line(fleet("devices", "approve", "room-007", *data))
    assert "fleet edge enrol" in one_line(fleet("devices", "reject", "room-007", *data))
    assert "fleet devices list" in one_line(fleet("devices", "revoke", "nobody", "--reason", "x", *data))


def test_revoking_writes_rows_that_serve_carries_out(data, pki):
    enrol(data, pki)
    result = fleet("devices", "revoke", "room-007", "--reason", "stolen", "--json", *data)
    assert json.loads(result.stdout)["reason"] == "stolen"
    (device,) = rows(data, tables.device)
    assert device.revoked_reason == "stolen"
    assert [row.name for row in rows(data, tables.intent)] == ["revoke"]
    assert [row.action for row in rows(data, tables.audit)] == ["device.enrol", "device.revoke"]


def test_retiring_needs_a_running_cloud_and_leaves_nothing_behind(data, pki, monkeypatch):
    monkeypatch.setattr(enrolment_commands, "ANSWER_WITHIN_S", 0.3)
    enrol(data, pki)
    result = fleet("devices", "retire", "room-007", *data)
    assert result.exit_code == 1
    assert "fleet serve" in one_line(result)
    (intent,) = rows(data, tables.intent)
    assert intent.refused == "withdrawn"


def test_certificates_and_waiting_boxes_are_empty_lists_at_first(data):
    assert json.loads(fleet("devices", "certificates", "--json", *data).stdout) == []
    assert json.loads(fleet("devices", "waiting", "--json", *data).stdout) == []


def test_fingerprints_are_grouped_for_people():
    from cli.enrolment_commands import _grouped

    assert _grouped("1f3a9c02aa") == "1f3a 9c02 aa"
