"""`fleet doctor` itself: nonsense is explained, queues and the watchdog are judged, a damaged file is found."""

import datetime as dt
import json
import sqlite3

import pytest
from cli_support import fleet

from cli.doctor import series, service, sql
from cli.doctor.finding import guarded
from cloud.adapters.sql.migrate import upgrade
from cloud.settings import CloudSettings


def found(findings):
    """Check → finding; each that is not ok says what to do."""
    by_check = {one.check: one for one in findings}
    for one in by_check.values():
        assert one.verdict == "ok" or one.fix, one
    return by_check


def bad(findings):
    return {check: one.verdict for check, one in found(findings).items() if one.verdict != "ok"}


def now():
    return dt.datetime.now(dt.UTC)


def test_faults_of_sqlite(tmp_path):
    settings = CloudSettings(data_directory=tmp_path)
    assert found(sql.look_at_sql(settings))["Database"].verdict == "warning"
    upgrade(settings.sql_url())
    assert bad(sql.look_at_sql(settings)) == {}
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_audit_at' OR name = 'audit_by_object'"
        ).fetchone()
    connection.close()
    content = bytearray((tmp_path / "state.db").read_bytes())
    content[(root - 1) * page_bytes : root * page_bytes] = b"\x55" * page_bytes
    (tmp_path / "state.db").write_bytes(content)
    damaged = found(sql.look_at_sql(settings))
    assert "problem" in {one.verdict for one in damaged.values()}
    assert "restore" in " ".join(one.fix for one in damaged.values())


@pytest.mark.parametrize(
    "url",
    [
        "nonsense", "oracel://u:s3cret@h/n", "postgresql+psycopg://", "postgresql+psycopg://u:s3cret@[::1/n", "sqlite",
        "sqlite:////nowhere/x/state.db",
    ],
)  # fmt: skip
def test_a_database_that_is_none_is_a_finding(url, tmp_path):
    settings = CloudSettings(database_url=url, data_directory=tmp_path)
    findings = found(guarded("Database", lambda: sql.look_at_sql(settings), "see FLEET_DATABASE_URL"))
    assert findings["Database"].verdict == "problem"
    assert "s3cret" not in str(findings)


@pytest.mark.parametrize(
    "url", ["nonsense", "http://", "http://[::1", "http://127.0.0.1:1", "http://127.0.0.1:99999", "file:///etc"]
)
def test_an_influxdb_that_is_none_is_a_finding(url):
    settings = CloudSettings(series="influxdb", influxdb_url=url, influxdb_token="t")
    findings = found(guarded("InfluxDB", lambda: series.look_at_series(settings, now), "see FLEET_INFLUXDB_URL"))
    assert findings["InfluxDB"].verdict == "problem"


def test_queues_near_their_bounds_and_a_series_that_refuses_are_found():
    def judged(**numbers):
        return bad(service._judge_queues({f"fleet_{name}": value for name, value in numbers.items()}, "ingest"))

    assert judged(spool_fill_ratio=0.2, drain_lag_bytes=1e6, drain_flowing=1.0, revocation_list_left_s=6e5) == {}
    assert judged(spool_fill_ratio=0.85) == {"ingest: spool": "problem"}
    assert judged(drain_lag_bytes=1e6, drain_flowing=0.0) == {"ingest: drain": "problem"}
    assert judged(drain_lag_bytes=1e9, drain_flowing=1.0) == {"ingest: drain": "warning"}
    assert judged(revocation_list_left_s=3600.0) == {"ingest: revocation list": "problem"}
    assert judged(link_publishes_max=100.0, link_publishes_waiting=90.0) == {"ingest: messages to devices": "problem"}


def test_nobody_who_watches_is_told_and_so_is_a_watchdog_that_is_away():
    assert bad(service.look_at_watch(CloudSettings())) == {"Watchdog": "warning"}
    away = CloudSettings(probe_url="http://127.0.0.1:1", deadman_url="gopher://x")
    assert bad(service.look_at_watch(away)) == {
        "Watchdog": "problem", "Watchdog's voice": "warning", "Dead man's switch": "problem",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--url", "http://[::1"], {}),
        (["--url", "http://127.0.0.1:99999"], {}),
        (["--url", "http://a b"], {}),
        (["--url", "http://127.0.0.1:1\r\nX: y"], {}),
        (["--data-directory", "/dev/null"], {}),
        (["--data-directory", "/dev/null/x"], {}),
        ([], {"FLEET_DATABASE_URL": "nonsense"}),
        ([], {"FLEET_BROKER_HOST": "no such host", "FLEET_BROKER_CA_FILE": "/nowhere.pem"}),
        ([], {"FLEET_PKI_DIRECTORY": "/nowhere", "FLEET_BACKUP_DIRECTORY": "/nowhere"}),
        ([], {"FLEET_PROBE_URL": "nonsense", "FLEET_GRAFANA_URL": "nonsense", "FLEET_GRAFANA_TOKEN": "x"}),
        ([], {"FLEET_SERIES": "influxdb", "FLEET_INFLUXDB_URL": "http://[", "FLEET_INFLUXDB_TOKEN": "ü"}),
        ([], {"FLEET_KIND_FOLDERS": '["/nowhere"]', "FLEET_BROKER_PROT": "1"}),
    ],
)
def test_nonsense_is_explained_and_never_a_traceback(arguments, settings, tmp_path):
    nowhere = {"FLEET_BROKER_PORT": "1", "FLEET_HTTP_PORT": "1", "FLEET_DATA_DIRECTORY": str(tmp_path / "data")}
    result = fleet("doctor", "--json", *arguments, **{**nowhere, **settings})
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.exit_code in {2, 3}
    if result.exit_code == 3:
        report = json.loads(result.stdout)
        assert not report["healthy"]
        assert all(one["fix"] for one in report["findings"] if one["verdict"] != "ok")
