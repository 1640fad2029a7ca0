"""Steps and samples on a real InfluxDB: asked as boards ask, once each, also across an outage."""

import itertools
import json
import urllib.parse
import urllib.request
from functools import partial

import pytest
from history_cases import (
    MINUTE_MS,
    NOW_MS,
    Follower,
    add_alarm,
    add_call,
    add_call_step,
    add_command,
    add_order,
    add_purchase,
    add_purchase_step,
    add_ride,
)
from influx_fixture import TOKEN
from sqlalchemy import insert

from cloud.adapters.series_influx import InfluxSeries
from cloud.adapters.sql.database import SqlDatabase
from cloud.history.samples import Samples, fleet_state
from cloud.history.steps import point
from cloud.tables import device, metadata
from fleet import series

pytestmark = pytest.mark.influxdb
DATABASES = (f"history_{number}" for number in itertools.count())


@pytest.fixture
async def store(influx):
    name = next(DATABASES)
    influx.create_database(name)
    opened = InfluxSeries(url=influx.url, token=TOKEN, org="fleet", bucket=name)
    opened.asked = partial(asked, influx, name)
    yield opened
    await opened.close()


@pytest.fixture
def database(tmp_path):
    opened = SqlDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    opened.write_here(metadata.create_all)
    yield opened
    opened.close()


def asked(influx, database, query):
    """Rows of all series as dicts, with their tags."""
    parameters = urllib.parse.urlencode({"db": database, "q": query, "epoch": "ms"})
    request = urllib.request.Request(f"{influx.url}/query?{parameters}", headers={"Authorization": f"Token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        (result,) = json.load(answer)["results"]
    assert "error" not in result, result
    return [
        {**one.get("tags", {}), **dict(zip(one["columns"], row, strict=True))}
        for one in result.get("series", ())
        for row in one["values"]
    ]


async def test_a_board_reads_steps_and_samples_and_a_repeat_changes_nothing(influx, store, database):
    def happen(tx):
        add_call(tx, "c1")
        add_call_step(tx, "c1", "acknowledge", "calling", "acknowledged", NOW_MS + 42_000)
        add_call(tx, "mine", purpose="synthetic", device_id="synthetic-room")
        add_alarm(tx, "a1")
        add_order(tx, "o1")
        add_ride(tx, "r1")
        add_command(tx, "c1")
        add_purchase(tx, "p1")
        add_purchase_step(tx, "p1", "pay", "payment_pending", "paid", NOW_MS + 1_000, paid_at=NOW_MS + 1_000)
        add_purchase_step(tx, "p1", "deliver", "dispensing", "delivered", NOW_MS + 71_000)
        tx.execute(insert(device).values(device_id="bike-001", kind="bike", enrolled_at=1))
        tx.execute(insert(device).values(device_id="synthetic-room", kind="nursing_room", enrolled_at=1))

    await database.write(happen)
    it = Follower(database, store=store)
    samples = Samples(database, it.clock, {series.FLEET_STATE.name: fleet_state})
    assert await samples.take(NOW_MS + 61_234) == 3
    assert await samples.take(NOW_MS + 62_000) == 0  # the same minute
    influx.fault("return 503;")
    failures = iter(range(2))

    async def sleep(_seconds):
        if next(failures, None) is None:
            influx.fault("")

    it.sending._sleep = sleep
    await it.follow()
    assert it.sending.statistics.retries >= 3
    expected = await store.count()
    assert expected == 2 + 1 + 1 + 1 + 1 + 3 + 3

    found = store.asked("SELECT since_press_ms, state, call_id FROM call_step WHERE step = 'acknowledge' GROUP BY *")
    assert [(row["device_id"], row["purpose"], row["since_press_ms"], row["call_id"]) for row in found] == [
        ("room-001", "help", 42_000, "c1")
    ]
    sold = store.asked("SELECT sum(fen) AS fen, mean(since_paid_ms) AS ms FROM purchase_step WHERE step = 'deliver'")
    assert (sold[0]["fen"], sold[0]["ms"]) == (1850, 70_000)
    assert store.asked("SELECT count(fen) FROM purchase_step WHERE reason != ''") == []
    minute_ms = NOW_MS + MINUTE_MS
    now = store.asked("SELECT devices, online, availability_percent FROM fleet_state GROUP BY kind")
    assert {row["kind"]: (row["devices"], row["time"]) for row in now} == {
        "bike": (1, minute_ms), "meal_machine": (0, minute_ms), "nursing_room": (0, minute_ms),
    }  # fmt: skip

    kept = [
        point(series.CALL_STEP, 1, NOW_MS, {"device_id": "room-001", "step": "press", "purpose": "help"},
              {"call_id": "c1", "state": "calling", "since_press_ms": 0, "escalation": 0}),
    ]  # fmt: skip
    await store.write(kept)  # as after a crash
    assert await store.count() == expected


async def test_no_measurement_changes_the_type_of_a_field(store):
    """All fields of all measurements, whole and fractional values: what the vocabulary says is what InfluxDB keeps."""
    samples = {"text": "word", "bool": True}
    for value in (1, 2.5):
        points = [
            point(
                one, 0, NOW_MS + int(value), dict.fromkeys(one.tags, "x"),
                {field.name: samples.get(field.unit, value) for field in one.fields},
            )
            for one in series.MEASUREMENTS
        ]  # fmt: skip
        await store.write(points)
    kinds = {int: "integer", float: "float", str: "string", bool: "boolean"}
    for measurement in series.MEASUREMENTS:
        found = store.asked(f'SHOW FIELD KEYS FROM "{measurement.name}"')
        expected = {field.name: kinds[field.value_type] for field in measurement.fields}
        assert {row["fieldKey"]: row["fieldType"] for row in found} == expected
