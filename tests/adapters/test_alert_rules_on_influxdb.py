"""The alert rules' queries on a real InfluxDB: a healthy platform is quiet, and each sickness rings its own bell."""

import time

import httpx
import pytest
from board_world import platform_point
from influx_fixture import TOKEN

from cli.dashboards.influx import InfluxReader
from cloud.timeseries.lines import encode_lines
from dashboards.alert_rules import RULES

pytestmark = pytest.mark.influxdb

PROCESSES = ("ingest", "dispatch", "api")
SAMPLES, SAMPLE_MS = 72, 10_000  # twelve minutes, more than any rule looks back


def sick(field, *values, process="ingest", samples=SAMPLES):
    """(process, change of one sample): `values` in turn in the last `samples` samples of one process."""
    return process, lambda index: {field: values[index % len(values)]} if index >= SAMPLES - samples else {}


def growing(field):
    return "dispatch", lambda index: {field: max(0, index - SAMPLES + 20)}


SICKNESSES = {
    "fleet-calls-unproven": sick("synthetic_age_ms", 61_000, process="dispatch"),
    "fleet-broker-away": sick("broker_connected", False, samples=4),
    "fleet-ingest-lag": sick("broker_held", 9_000, 6_000),
    "fleet-commit-slow": sick("commit_ms_mean", 900.0, 400.0),
    "fleet-process-late": sick("loop_late_ms", 1_500),
    "fleet-disk-filling": sick("disk_free_percent", 14.0),
    "fleet-disk-full": sick("disk_free_percent", 4.0),
    "fleet-outbox-waiting": sick("outbox_oldest_ms", 61_000, process="dispatch"),
    "fleet-outbox-given-up": growing("outbox_given_up_total"),
    "fleet-series-stuck": sick("series_state", "waiting", "no_access"),
    "fleet-history-behind": sick("history_lag_ms", 700_000, process="dispatch"),
    "fleet-spool-filling": sick("spool_fill_percent", 61.0),
    "fleet-points-refused": growing("series_quarantined_total"),
    "fleet-api-errors": ("api", lambda index: {"api_errors_total": index}),
}
ALSO = {"fleet-disk-full": {"fleet-disk-filling"}}


def points(now_ms, process="", change=lambda _index: {}, without=""):
    """Twelve minutes of every process but `without`, one of them sick."""
    for name in PROCESSES:
        for index in range(SAMPLES):
            at_ms = now_ms - (SAMPLES - 1 - index) * SAMPLE_MS
            if name != without:
                yield platform_point(at_ms, name, index * 10, **(change(index) if name == process else {}))


@pytest.fixture(scope="module")
def ringing(influx):
    """A function that writes points into a new database, and tells which rules fire there."""
    with httpx.Client(base_url=influx.url, headers={"Authorization": f"Token {TOKEN}"}, timeout=60) as client:
        names = iter(range(1000))

        def rings(written):
            name = f"alerts_{next(names)}"
            client.post("/query", params={"q": f"CREATE DATABASE {name} WITH DURATION INF NAME raw"}).raise_for_status()
            parameters = {"bucket": f"{name}/raw", "precision": "ns"}
            client.post("/api/v2/write", params=parameters, content=encode_lines(list(written))).raise_for_status()
            found = set()
            with InfluxReader(influx.url, name, TOKEN) as reader:
                for rule in RULES:
                    answer = reader.run(rule.query)
                    assert answer.error is None, (rule.uid, answer.error)
                    values = [row[1] for series in answer.series for row in series.rows[-1:] if row[1] is not None]
                    if rule.fires(values):
                        found.add(rule.uid)
            return found

        yield rings


def test_a_healthy_platform_is_quiet(ringing):
    assert ringing(points(time.time_ns() // 1_000_000)) == set()


@pytest.mark.parametrize("uid", sorted(SICKNESSES))
def test_each_sickness_rings_its_own_bell(ringing, uid):
    process, change = SICKNESSES[uid]
    assert ringing(points(time.time_ns() // 1_000_000, process, change)) == {uid} | ALSO.get(uid, set())


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_that_says_nothing_rings(ringing, process):
    assert ringing(points(time.time_ns() // 1_000_000, without=process)) == {f"fleet-{process}-silent"}


def test_nothing_at_all_rings_for_every_process(ringing):
    old = points(time.time_ns() // 1_000_000 - 3_600_000)
    assert ringing(old) == {f"fleet-{process}-silent" for process in PROCESSES}


def test_every_rule_was_heard():
    assert set(SICKNESSES) | {f"fleet-{process}-silent" for process in PROCESSES} == {rule.uid for rule in RULES}
