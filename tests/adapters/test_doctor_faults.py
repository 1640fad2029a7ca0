"""Every fault the doctor is to find, made on real servers where they can run here; each finding names a fix."""

import datetime as dt
import os
import signal
import time
import urllib.request

import psycopg
import pytest
from grafana_fake import ROUTES, HttpError, grafana_fake
from influx_fixture import BUCKET, TOKEN
from secure_broker import SecureBroker
from sqlalchemy import insert, text

from cli.clock import real_now_ms
from cli.doctor import broker, grafana, series, sql
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.settings import CloudSettings
from cloud.tables import outbox, quarantine
from dashboards.build import build_all
from dashboards.publish import for_deployment
from fleet.topics import INGESTER_NAME
from tests.adapters.postgres_fixture import postgresql_server, postgresql_url  # noqa: F401

HOUR_MS = 3_600_000
NOW = dt.datetime.now(dt.UTC)


def found(findings):
    """Check → finding; each that is not ok says what to do."""
    by_check = {one.check: one for one in findings}
    for one in by_check.values():
        assert one.verdict == "ok" or one.fix, one
        assert "Traceback" not in one.found
    return by_check


def bad(findings):
    return {check: one.verdict for check, one in found(findings).items() if one.verdict != "ok"}


# --- broker --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    with SecureBroker(tmp_path_factory.mktemp("doctor"), ["bike-001"]) as it:
        yield it


def broker_settings(secure, **changes):
    identity = secure.folder / "identities" / INGESTER_NAME
    given = {
        "broker_host": "127.0.0.1", "broker_port": secure.process.services_port,
        "broker_ca_file": secure.pki.root_file("services"),
        "broker_certificate_file": identity.with_name(f"{INGESTER_NAME}.pem"),
        "broker_key_file": identity.with_name(f"{INGESTER_NAME}.key"), "pki_directory": secure.pki.directory,
    }  # fmt: skip
    return CloudSettings(**{**given, **changes})


@pytest.mark.mosquitto
def test_a_broker_in_good_order_its_access_list_and_certificates_are_well(secure):
    settings = broker_settings(secure)
    checks = found([*broker.look_at_broker(settings, NOW), *broker.look_at_certificates(settings, NOW)])
    assert {"Broker", "Broker's certificate", "Broker's access list", "Our certificate", "Revocation list"} <= set(
        checks
    )
    assert {check: one.verdict for check, one in checks.items() if one.verdict != "ok"} == {"Offline keys": "warning"}


@pytest.mark.mosquitto
def test_faults_of_tls_name_what_is_to_be_replaced(secure, tmp_path):
    def fix(**changes):
        (finding,) = broker.look_at_broker(broker_settings(secure, **changes), NOW)
        assert finding.verdict == "problem"
        return finding.fix

    assert "services' root" in fix(broker_ca_file=secure.pki.root_file("devices"))
    assert "FLEET_BROKER_" in fix(broker_key_file=tmp_path / "absent.key")
    assert "start Mosquitto" in fix(broker_port=1)
    bike = secure.folder / "identities" / "bike-001"
    assert "does not take our certificate" in fix(
        broker_certificate_file=bike.with_name("bike-001.pem"), broker_key_file=bike.with_name("bike-001.key")
    )


@pytest.mark.mosquitto
def test_an_access_list_that_is_open_or_closed_to_us_is_found(secure):
    path = secure.process.directory / "acl"
    before = path.read_text()
    settings = broker_settings(secure)
    try:
        for content, words in ((f"user {INGESTER_NAME}\ntopic readwrite #\n", "not in force"), ("", "may not write")):
            path.write_text(content)
            finding = access_list_once_read(secure, settings, words)
            assert finding.verdict == "problem"
            assert words in finding.found
    finally:
        path.write_text(before)
        assert access_list_once_read(secure, settings, "refuses the rest").verdict == "ok"


def access_list_once_read(secure, settings, words):
    """After SIGHUP; Mosquitto says in no log of ours when it has read the file, so it is asked until it has."""
    os.kill(secure.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + 20
    while True:
        finding = found(broker.look_at_broker(settings, NOW))["Broker's access list"]
        if words in finding.found or time.monotonic() > deadline:
            return finding


@pytest.mark.parametrize(
    ("days", "checks"),
    [
        (8, {"Revocation list"}),
        (80, {"Revocation list", "Our certificate"}),
        (4_000, {"Revocation list", "Our certificate"}),
    ],
)
def test_what_has_ended_is_found_by_its_date(secure, days, checks):
    findings = found(broker.look_at_certificates(broker_settings(secure), NOW + dt.timedelta(days=days)))
    assert checks <= {check for check, one in findings.items() if one.verdict == "problem"}
    assert all("fleet pki" in findings[check].fix for check in checks)


# --- SQL -----------------------------------------------------------------------------------------------------------


@pytest.mark.postgresql
def test_faults_of_postgresql(postgresql_url, postgresql_server, monkeypatch):  # noqa: F811
    settings = CloudSettings(database_url=postgresql_url)
    assert "start `fleet serve` once" in found(sql.look_at_sql(settings))["Database"].fix
    upgrade(postgresql_url, "0012")
    behind = found(sql.look_at_sql(settings))
    assert behind["Schema"].verdict == "problem"
    assert "0012" in behind["Schema"].found
    upgrade(postgresql_url)
    plain = postgresql_url.replace("+psycopg", "")
    database = SqlDatabase(postgresql_url)
    try:
        # The server of these tests runs without fsync: which is exactly what must not go unnoticed.
        assert bad(sql.look_at_sql(settings)) == {"PostgreSQL's durability": "problem"}
        database.write_here(put_late_rows)
        monkeypatch.setattr(sql, "TRANSACTION_S_MAX", -1)
        with psycopg.connect(plain) as idle:
            idle.execute("SELECT 1")
            wrong = found(sql.look_at_sql(settings))
        assert wrong["Outbox"].verdict == "problem"
        assert "receiver hung up" in wrong["Outbox"].found
        assert "another type" in wrong["Series refuses points"].fix
        assert wrong["Long transaction"].verdict == "warning"
        held = [psycopg.connect(plain) for _ in range(48)]
        try:
            assert found(sql.look_at_sql(settings))["PostgreSQL's pool"].verdict == "problem"
        finally:
            for connection in held:
                connection.close()
        database.write_here(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
        assert "newer release" in found(sql.look_at_sql(settings))["Schema"].fix
    finally:
        database.close()
    nobody = CloudSettings(database_url="postgresql+psycopg://fleet:s3cret@127.0.0.1:1/fleet")
    assert "s3cret" not in str(found(sql.look_at_sql(nobody)))
    away = CloudSettings(database_url=f"postgresql+psycopg://fleet@{postgresql_server}/nobody")
    assert "FLEET_DATABASE_URL" in found(sql.look_at_sql(away))["Database"].fix


def put_late_rows(tx):
    late = {
        "delivery_id": "d", "channel": "webhook", "notification": "{}", "urgent": 1,
        "created_at": real_now_ms() - HOUR_MS,
        "available_at": real_now_ms() - HOUR_MS, "last_error": "receiver hung up",
    }  # fmt: skip
    tx.execute(insert(outbox), [late])
    reason = (
        "series: HTTP 400: field type conflict: input field battery_percent is type float, already exists as string"
    )
    tx.execute(insert(quarantine), [{"received_at": real_now_ms(), "topic": "t", "reason": reason, "payload": b""}])


# --- InfluxDB ------------------------------------------------------------------------------------------------------


def series_settings(influx, **changes):
    given = {"series": "influxdb", "influxdb_url": influx.url, "influxdb_token": TOKEN, "influxdb_bucket": BUCKET}
    return CloudSettings(**{**given, **changes})


def now():
    return dt.datetime.now(dt.UTC)


def ask_influx(influx, path, body):
    request = urllib.request.Request(
        f"{influx.url}{path}", data=body.encode(), headers={"Authorization": f"Token {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()  # it says 200 before it begins


@pytest.mark.influxdb
def test_faults_of_influxdb(influx):
    influx.create_database("doctor")
    settings = series_settings(influx, influxdb_bucket="doctor")
    missing = found(series.look_at_series(settings, now))
    assert missing["InfluxDB's levels"].verdict == "problem"
    assert "fleet influx init" in missing["InfluxDB's levels"].fix
    for level in ("raw", "minute", "hour"):
        ask_influx(influx, "/query", f"q=CREATE RETENTION POLICY {level} ON doctor DURATION INF REPLICATION 1")
    assert bad(series.look_at_series(settings, now)) == {"InfluxDB's reader": "warning"}
    for policy, line in (("autogen", "meal_machine stock_count=3i 1"), ("minute", "meal_machine stock_count=3.5 1")):
        ask_influx(influx, f"/api/v2/write?bucket=doctor%2F{policy}&precision=ns", line)
    assert bad(series.look_at_series(settings, now)) == {"InfluxDB's reader": "warning"}, "a mean is no other type"

    wrong = found(series.look_at_series(series_settings(influx, influxdb_token="other"), now))
    assert wrong["InfluxDB's token"].verdict == "problem"
    assert "FLEET_INFLUXDB_TOKEN" in wrong["InfluxDB's token"].fix
    nowhere = found(series.look_at_series(series_settings(influx, influxdb_bucket="nowhere"), now))
    assert nowhere["InfluxDB's bucket"].verdict == "problem"
    assert "FLEET_INFLUXDB_BUCKET" in nowhere["InfluxDB's bucket"].fix

    too_much = found(
        series.look_at_series(settings.model_copy(update={"influxdb_reader_token": settings.influxdb_token}), now)
    )
    assert "may write as well" in too_much["InfluxDB's reader"].found
    skewed = found(series.look_at_series(settings, lambda: now() + dt.timedelta(seconds=60)))
    assert "behind" in skewed["InfluxDB's clock"].found
    assert "timedatectl" in skewed["InfluxDB's clock"].fix
    ahead = found(series.look_at_series(settings, lambda: now() - dt.timedelta(seconds=60)))
    assert "ahead of" in ahead["InfluxDB's clock"].found

    ask_influx(influx, "/api/v2/write?bucket=doctor&precision=ns", 'bike,device_id=b battery_percent="full" 1')
    typed = found(series.look_at_series(settings, now))
    assert "bike.battery_percent is string there" in typed["InfluxDB's field types"].found
    ask_influx(influx, "/api/v2/write?bucket=doctor&precision=ns", "order_step,step=hold since_made_ms=1.5 1")
    typed = found(series.look_at_series(settings, now))
    assert "order_step.since_made_ms is float there, we write integer" in typed["InfluxDB's field types"].found

    influx.fault('return 403 \'{"code":"forbidden","message":"insufficient permissions for write"}\';')
    try:
        reader = settings.model_copy(update={"influxdb_reader_token": settings.influxdb_token})
        forbidden = found(series.look_at_series(reader, now))
    finally:
        influx.fault("")
    assert forbidden["InfluxDB's write right"].verdict == "problem"
    assert forbidden["InfluxDB's reader"].verdict == "ok"


# --- Grafana -------------------------------------------------------------------------------------------------------


def source_health(fake, uid, **_):
    if uid not in fake.sources:
        raise HttpError(404, "Data source not found")
    return {"status": "OK", "message": "datasource is working. 4 measurements found"}


def test_faults_of_grafana(monkeypatch):
    monkeypatch.setitem(ROUTES, "/datasources/uid/([^/]+)/health", {"GET": (None, source_health)})
    with grafana_fake() as fake:
        settings = CloudSettings(grafana_url=fake.url, grafana_token="admin-token")
        empty = found(grafana.look_at_grafana(settings))
        assert empty["Grafana's data source"].verdict == empty["Grafana's boards"].verdict == "problem"
        assert "fleet dashboards publish" in empty["Grafana's boards"].fix

        assert "Grafana's rights" not in empty
        fake.tokens["viewer-token"] = "viewer"
        viewer = settings.model_copy(
            update={"grafana_token": CloudSettings(grafana_token="viewer-token").grafana_token}
        )
        rights = found(grafana.look_at_grafana(viewer))["Grafana's rights"]
        assert rights.verdict == "problem"
        assert "dashboards:create" in rights.found
        assert "Editor" in rights.fix
        assert fake.writes == []

        fake.sources["fleet"] = {"uid": "fleet", "name": "fleet", "type": "influxdb"}
        fake.folders["fleet"] = {"id": 1, "uid": "fleet", "title": "Fleet", "version": 1}
        for board in build_all("en").values():
            fake._keep(board["uid"], for_deployment(board), "fleet", "fleet dashboards publish", "sa-fleet")
        assert bad(grafana.look_at_grafana(settings)) == {}
        assert bad(grafana.look_at_grafana(viewer)) == {"Grafana's rights": "warning"}, "history is shown to editors"
        fake.save_by_hand("fleet-overview", title="Mine")
        assert "fleet-overview" in found(grafana.look_at_grafana(settings))["Grafana's boards"].found
        fake.save_by_hand("fleet-overview", tags=[])
        foreign = found(grafana.look_at_grafana(settings))["Foreign boards"]
        assert foreign.verdict == "problem"
        assert "not ours" in foreign.found
        fake.fails.append(("GET", "/datasources/uid/fleet/health", 400, "error reading influxDB: unauthorized"))
        assert "reader's token" in found(grafana.look_at_grafana(settings))["Grafana's data source"].fix
        wrong = settings.model_copy(update={"grafana_token": CloudSettings(grafana_token="other").grafana_token})
        assert "FLEET_GRAFANA_TOKEN" in found(grafana.look_at_grafana(wrong))["Grafana's token"].fix
    assert "start Grafana" in found(grafana.look_at_grafana(settings))["Grafana"].fix
