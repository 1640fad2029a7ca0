"""Wrong settings end with one line that names the key, its source and the fix, and with exit code 2."""

import json
import socket
import subprocess
import sys

import pytest
from cli_support import fleet, one_line

from cli import settings_errors
from cli.clock import real_now_ms
from cli.demo.command import parse_duration
from cli.doctor.sql import DAY_MS
from cli.serve import _summary
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import twin


@pytest.fixture(autouse=True)
def logs_stay_as_they_are(monkeypatch):
    """A server that starts in this process would bind the log to a stderr that ends with the test."""
    monkeypatch.setattr("cloud.logs.configure", lambda *_: None)


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (
            ["serve"],
            {"FLEET_BROKER_PORT": "abc"},
            ["broker_port", "'abc'", "FLEET_BROKER_PORT", "correct it or unset it"],
        ),
        (["serve", "--http-port", "70000"], {}, ["http_port", "70000", "option --http-port"]),
        (["serve"], {"FLEET_SERIES": "mongo"}, ["series", "'mongo'", "FLEET_SERIES", "influxdb"]),
        (["serve"], {"FLEET_CLOCK_SPEED": "0"}, ["clock_speed", "FLEET_CLOCK_SPEED"]),
        (["serve"], {"FLEET_KIND_FOLDERS": "/opt/bus"}, ["kind_folders", "FLEET_KIND_FOLDERS", "JSON list"]),
        (["doctor"], {"FLEET_HTTP_PORT": "many"}, ["http_port", "FLEET_HTTP_PORT"]),
        (["devices", "list"], {"FLEET_BROKER_PORT": "-1"}, ["broker_port", "FLEET_BROKER_PORT"]),
        (["dashboards", "build"], {"FLEET_KIND_FOLDERS": "{"}, ["FLEET_KIND_FOLDERS", "JSON list"]),
        (["dashboards", "build", "--kind-folder", "/nowhere/bus"], {}, ["/nowhere/bus", "kind.py"]),
        (["docs", "asyncapi", "--kind-folder", "/nowhere/bus"], {}, ["/nowhere/bus", "kind.py"]),
        (
            ["serve"],
            {"FLEET_DATA_DIRECTORY": "/proc/nowhere"},
            ["data_directory", "/proc/nowhere", "FLEET_DATA_DIRECTORY"],
        ),
        (["demo", "--count", "bogus=1"], {}, ["--count", "bogus", "nursing_room"]),
        (["demo", "--count", "bike"], {}, ["--count", "'bike'", "KIND=NUMBER"]),
        (["demo", "--for", "nonsense"], {}, ["--for", "'nonsense'", "60s"]),
        (["demo", "--for", "-5s"], {}, ["--for", "'-5s'", "60s"]),
        (["demo", "--kind-folder", "/nowhere/bus"], {}, ["/nowhere/bus", "kind.py"]),
        (["edge", "--config", "/nowhere/edge.toml"], {}, ["/nowhere/edge.toml", "--config"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_one_line_names_key_source_and_fix(arguments, settings, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fleet(*arguments, **settings)
    line = one_line(result)
    assert result.exit_code == 2, result.output
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


def test_one_role_on_sqlite_is_refused(tmp_path):
    result = fleet("serve", "--role", "ingest", "--data-directory", tmp_path / "data")
    line = one_line(result)
    assert result.exit_code == 2
    assert "PostgreSQL" in line
    assert "FLEET_DATABASE_URL" in line


def test_an_unknown_role_is_refused_with_those_there_are():
    result = fleet("serve", "--role", "king")
    assert result.exit_code == 2
    assert "king" in result.stderr
    assert "dispatch" in result.stderr


EDGE = """
device_id = "room-001"
kind = "nursing_room"
transport = "serial:/dev/null"
data_directory = "data"
[broker]
host = "127.0.0.1"
plain = true
[command_keys]
main = "main.pem"
"""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("device_id = ", ["edge.toml", "TOML", "correct the syntax"]),
        (EDGE.replace('"room-001"', '"Room 1"'), ["device_id", "edge.toml", "a-z"]),
        (EDGE.replace('kind = "nursing_room"\n', ""), ["kind", "edge.toml", "add it"]),
        (EDGE.replace("plain = true", "plain = true\nprot = 1"), ["broker.prot", "edge.toml", "spelling"]),
        (EDGE.replace("plain = true", ""), ["broker", "authority", "PEM"]),
        (EDGE, ["main", "main.pem"]),
    ],
    ids=["syntax", "device_id", "kind", "extra", "tls", "key"],
)
def test_a_bad_file_of_an_edge_box(tmp_path, content, words):
    path = tmp_path / "edge.toml"
    path.write_text(content)
    result = fleet("edge", "--config", path)
    line = one_line(result)
    assert result.exit_code == 2
    for word in words:
        assert word in line


def test_simulators_without_certificates_are_refused(tmp_path):
    options = ["--broker-port", 1, "--command-key", "k.pem", "--command-key-id", "k", "--directory", tmp_path / "sim"]
    missing = fleet("sim", *options)
    assert missing.exit_code == 2
    assert "--plain" in one_line(missing)
    unreadable = fleet("sim", *options, "--plain")
    assert unreadable.exit_code == 2
    assert "k.pem" in one_line(unreadable)
    unknown = fleet("sim", *options, "--plain", "--scenario", "war")
    assert unknown.exit_code == 2
    assert "quiet" in one_line(unknown)


def test_durations():
    assert [parse_duration(text) for text in ("", "90", "60s", "5m", "1.5h")] == [0, 90, 60, 300, 5400]
    for text in ("s", "0s", "-1m", "1d", "nan", "inf"):
        with pytest.raises(ValueError, match="60s"):
            parse_duration(text)


def test_a_misspelt_variable_is_told_by_the_doctor(monkeypatch):
    monkeypatch.setenv("FLEET_BROKER_PROT", "1884")
    assert settings_errors.unknown_variables() == ["FLEET_BROKER_PROT"]


def test_the_doctor_on_an_empty_machine_says_what_to_do(tmp_path):
    nowhere = {"FLEET_BROKER_PORT": "1", "FLEET_HTTP_PORT": "1", "FLEET_BROKER_PROT": "1884"}
    result = fleet("doctor", "--data-directory", tmp_path, "--json", **nowhere)
    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert not report["healthy"]
    findings = {finding["check"]: finding for finding in report["findings"]}
    assert findings["Broker"]["verdict"] == findings["Cloud"]["verdict"] == "problem"
    assert findings["Database"]["verdict"] == "warning"
    assert "FLEET_BROKER_PROT" in findings["Settings"]["found"]
    for finding in report["findings"]:
        assert finding["verdict"] == "ok" or finding["fix"], finding
    assert list(tmp_path.iterdir()) == [], "a doctor changes nothing"

    for_people = fleet("doctor", "--data-directory", tmp_path, **nowhere)
    assert for_people.exit_code == 3
    assert "fleet serve" in for_people.stdout
    assert for_people.stdout.count("→") >= 3


@pytest.mark.parametrize(
    ("heard_days_ago", "verdict", "word"),
    [(-2, "problem", "before"), (0, "ok", "fits"), (29, "ok", "fits"), (40, "warning", "after")],
)
def test_the_doctor_holds_this_machines_clock_against_what_is_stored(tmp_path, heard_days_ago, verdict, word):
    url = f"sqlite:///{tmp_path / 'state.db'}"
    upgrade(url)
    database = SqlDatabase(url)
    zeros = dict.fromkeys(
        ["generation", "emergency_seq", "event_seq", "telemetry_seq", "online", "link_boot_epoch", "link_connection",
         "link_changed_at", "last_reading_at", "version"], 0,
    )  # fmt: skip
    heard_ms = [real_now_ms() - heard_days_ago * DAY_MS] * 3 + [real_now_ms() + 4_000 * DAY_MS, 0]
    rows = [
        {**zeros, "device_id": f"bike-{number:03}", "kind": "bike", "state": "{}", "desk": "{}", "last_heard_at": at}
        for number, at in enumerate(heard_ms)
    ]
    database.write_here(lambda tx: tx.execute(twin.insert(), rows))
    database.close()
    result = fleet("doctor", "--data-directory", tmp_path, "--json", FLEET_BROKER_PORT="1", FLEET_HTTP_PORT="1")
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["Clock"]["verdict"] == verdict
    assert word in findings["Clock"]["found"]
    assert verdict == "ok" or "timedatectl" in findings["Clock"]["fix"]


def test_the_summary_of_a_server_tells_no_secret():
    settings = settings_errors.cloud_settings(
        database_url="postgresql+psycopg://fleet:s3cret@db/fleet", webhook_secret="s3cret", influxdb_token="s3cret"
    )
    summary = json.dumps(_summary(settings, "all"))
    assert "s3cret" not in summary
    assert json.loads(summary)["database"] == "external"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"FLEET_DATABASE_URL": "s3cret nonsense"}, ["database_url", "FLEET_DATABASE_URL", "postgresql+psycopg"]),
        ({"FLEET_DATABASE_URL": "oracel://u:s3cret@h/n"}, ["database_url", "oracel", "FLEET_DATABASE_URL"]),
        (
            {"FLEET_DATABASE_URL": "postgresql+psycopg://u:s3cret@127.0.0.1:1/n"},
            ["database_url", "refused", "FLEET_DATABASE_URL", "start the database"],
        ),
        ({"FLEET_BROKER_HOST": "broker.example.org"}, ["broker_host", "TLS", "FLEET_BROKER_CA_FILE"]),
        ({"FLEET_APPRISE_URLS": "tgram://s3cret"}, ["apprise_urls", "FLEET_APPRISE_URLS", "JSON list"]),
        ({"FLEET_APPRISE_URLS": '{"s3cret": 1}'}, ["apprise_urls", "FLEET_APPRISE_URLS"]),
    ],
)
def test_what_can_not_be_used_ends_the_start_with_one_line_without_secrets(settings, words, tmp_path):
    result = fleet("serve", "--data-directory", tmp_path / "data", **settings)
    line = one_line(result)
    assert result.exit_code == 2, result.output
    assert all(word in line for word in words)
    assert "s3cret" not in result.output


@pytest.mark.parametrize("content", [b"no pem", None], ids=["content", "folder"])
def test_a_command_key_that_is_none_is_told(tmp_path, content):
    path = tmp_path / "key"
    path.mkdir() if content is None else path.write_bytes(content)
    result = fleet("serve", "--data-directory", tmp_path / "data", FLEET_COMMAND_KEY_FILE=str(path))
    assert result.exit_code == 2, result.output
    assert "FLEET_COMMAND_KEY_FILE" in one_line(result)


def test_an_unknown_variable_is_warned_of_with_the_nearest_known_one(tmp_path):
    wrong = {"FLEET_BROKER_PROT": "1884", "FLEET_BROKER_HOST": "broker.example.org"}
    result = fleet("serve", "--data-directory", tmp_path / "data", **wrong)
    assert "FLEET_BROKER_PORT" in result.stderr.splitlines()[0]
    assert "warning" in result.stderr.splitlines()[0]


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_that_is_taken_is_said_in_one_line(command, tmp_path, monkeypatch):
    monkeypatch.setenv("FLEET_DATA_DIRECTORY", str(tmp_path / "data"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        option = "--port" if command == "demo" else "--http-port"
        result = fleet(command, option, str(port))
    assert result.exit_code == 2
    assert str(port) in one_line(result)


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "127.0.0.1:8000"])
def test_the_doctor_explains_a_wrong_address(url):
    result = fleet("doctor", "--url", url)
    assert result.exit_code == 2
    assert "http://127.0.0.1:8000" in one_line(result)


def test_the_doctor_leaves_another_deployments_broker_to_it(tmp_path):
    result = fleet("doctor", "--data-directory", tmp_path, "--url", "http://127.0.0.1:9", "--json")
    assert result.exit_code == 3
    checks = {found["check"] for found in json.loads(result.stdout)["findings"]}
    assert "Cloud" in checks
    assert "Broker" not in checks


@pytest.mark.parametrize("command", [("dashboards", "build", "--out"), ("docs", "pages", "--out")])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, command):
    (tmp_path / "file").write_text("")
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", *command, str(tmp_path / "file" / "x")], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "name a place that can be written" in line
