"""Every query of every board on a real InfluxDB after a simulated day: it answers what truly happened.

Two opinions: each query against an evaluation of the same text in Python over the truth (`influxql_oracle`), and the
panels that people decide by against the truth itself, without any query.
"""

import math
from collections import Counter
from datetime import UTC

import httpx
import pytest
from board_world import COUNTS, DAYS, END_MS, HOUR_MS, START_MS, platform_point, rows_of, simulate
from influx_fixture import TOKEN
from influxql_oracle import Oracle, answered

from cli.dashboards.influx import InfluxReader
from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.influx_rollup import InfluxRollup
from cloud.timeseries.levels import HOUR, MINUTE
from cloud.timeseries.lines import encode_lines
from dashboards.build import build_all
from dashboards.check import run_board
from dashboards.queries import Span
from fleet.series import MEASUREMENTS

pytestmark = [pytest.mark.influxdb, pytest.mark.timeout(300)]

DATABASE = "proof"
BOARDS = build_all("en")
SPAN = Span(START_MS - 30 * 60_000, END_MS, UTC)
LINES_PER_WRITE = 2000


@pytest.fixture(scope="module")
def truth():
    return simulate()


@pytest.fixture(scope="module")
def run(influx, truth):
    """Runs a query on a database that holds the day at the level `raw`."""
    with httpx.Client(base_url=influx.url, headers={"Authorization": f"Token {TOKEN}"}, timeout=60) as client:
        make_database(client, DATABASE)
        for start in range(0, len(truth.points), LINES_PER_WRITE):
            write(client, DATABASE, truth.points[start : start + LINES_PER_WRITE])
    with InfluxReader(influx.url, DATABASE, TOKEN) as reader:
        yield reader.run


def make_database(client, name):
    for text in (
        f"CREATE DATABASE {name} WITH DURATION INF NAME raw",
        *(f"CREATE RETENTION POLICY {level} ON {name} DURATION INF REPLICATION 1" for level in ("minute", "hour")),
    ):
        client.post("/query", params={"q": text}).raise_for_status()


def write(client, name, points):
    parameters = {"bucket": f"{name}/raw", "precision": "ns"}
    answer = client.post("/api/v2/write", params=parameters, content=encode_lines(points))
    assert answer.is_success, answer.text


@pytest.fixture(scope="module")
def outcomes(run):
    """(board, place, name) → its outcomes, with every board as it opens, over the day."""
    found = {}
    for board in BOARDS.values():
        for one in run_board(board, run, SPAN, {"resolution": ["raw"]}):
            found.setdefault((one.query.board, one.query.place, one.query.name), []).append(one)
    return found


@pytest.fixture(scope="module")
def oracle(truth):
    return Oracle(rows_of(truth.points))


def test_every_query_answers_what_the_truth_implies(outcomes, oracle):
    wrong = []
    for (board, place, name), members in outcomes.items():
        for one in members:
            if one.answer.error is not None:
                wrong.append(f"{board} {place} {name!r} {one.query.ref}: {one.answer.error}")
                continue
            text = one.filled.text
            expected, shown = oracle.answer(text), answered(one.answer, text)
            if not alike(expected, shown):
                wrong.append(f"{board} {place} {name!r} {one.query.ref}\n  {text}\n  {expected[:3]}\n  {shown[:3]}")
    assert wrong == []


def alike(expected, shown):
    if len(expected) != len(shown):
        return False
    for (tags, at, columns), (other_tags, other_at, others) in zip(expected, shown, strict=True):
        if (tags, at) != (other_tags, other_at) or [name for name, _ in columns] != [name for name, _ in others]:
            return False
        for (_, value), (_, other) in zip(columns, others, strict=True):
            same = math.isclose(value, other, rel_tol=1e-6) if isinstance(value, float) else value == other
            if not same:
                return False
    return True


def test_no_panel_is_empty_after_such_a_day_(outcomes):
    empty = {
        (board, name)
        for (board, place, name), members in outcomes.items()
        if place == "panel" and not any(one.answer.rows for one in members)
    }
    assert empty == set()


def test_annotations_mark_what_happened(outcomes):
    marks = {
        key: sum(one.answer.rows for one in members) for key, members in outcomes.items() if key[1] == "annotation"
    }
    assert marks
    assert {key for key, rows in marks.items() if not rows} == set()


# --- what people decide by ---------------------------------------------------------------------------------------


def values_of(outcomes, board, title):
    """Column (or tag and column) → its values, over all answers of a panel."""
    values = {}
    for one in outcomes[board, "panel", title]:
        for series in one.answer.series:
            for row in series.rows:
                for column, value in zip(series.columns[1:], row[1:], strict=True):
                    values.setdefault((*series.tags.values(), column), []).append(value)
    return values


def total(values, *key):
    return sum(value for value in values.get(key, ()) if value is not None)


def test_the_overview_counts_devices_alarms_and_calls(outcomes, truth):
    titles = {"bike": "Shared bike", "meal_machine": "Meal machine", "nursing_room": "Nursing room"}
    for kind, title in titles.items():
        assert values_of(outcomes, "fleet-overview", title)["Devices",] == [COUNTS[kind]]
    now = values_of(outcomes, "fleet-overview", "The whole fleet now")
    assert now["Alarms",] == [sum(truth.alarms_open.values())]
    assert now["Open calls",] == [truth.calls_open]
    began = values_of(outcomes, "fleet-overview", "Alarms that began, per hour")
    assert sum(map(sum, began.values())) == truth.activated > 5


def test_calls_and_the_time_to_answer_them(outcomes, truth):
    shown = values_of(outcomes, "fleet-nursing-room", "Calls, per hour")
    assert {key[0]: sum(values) for key, values in shown.items()} == Counter(purpose for _, purpose, _ in truth.presses)
    p95 = values_of(outcomes, "fleet-nursing-room", "Calls: time to each step, p95")
    times = sorted(truth.acknowledged_ms)
    assert times
    assert p95["acknowledge", "Since the press"] == [times[math.floor(len(times) * 0.95 + 0.5) - 1]]


def test_rides_their_income_and_how_long_a_lock_takes(outcomes, truth):
    shown = values_of(outcomes, "fleet-bike", "Rides and demand, per hour")
    opened = [ride for ride in truth.rides if ride.opened]
    assert total(shown, "asked", "Rides") == len(truth.rides) == 24 * DAYS
    assert total(shown, "closed", "Rides") == len(opened)
    assert total(shown, "failed", "Rides") == len(truth.rides) - len(opened)
    ((_, fees),) = values_of(outcomes, "fleet-bike", "Income from rides, per hour").items()
    assert sum(fees) == pytest.approx(sum(ride.fee_fen for ride in opened) / 100)
    ((_, unlock_ms),) = values_of(outcomes, "fleet-bike", "Scan to unlocked, p95").items()
    assert unlock_ms == [ride.unlock_ms for ride in opened]


def test_bikes_stand_where_they_are_and_are_counted_by_what_they_do(outcomes, truth):
    bikes = truth.last_readings("bike")
    shown = {
        series.tags["device_id"]: series.rows[0][1:3]
        for series in outcomes["fleet-bike", "panel", "Where the bikes are"][0].answer.series
    }
    assert shown == {device: (one.latitude, one.longitude) for device, one in bikes.items()}
    groups = values_of(outcomes, "fleet-bike", "Can be rented, riding, faulty")
    assert total(groups, "riding") == sum(one.lock_state == "unlocked" for one in bikes.values())
    faults = ("can be rented", "too little charge", "lying on the ground", "lock jammed")
    assert sum(total(groups, name) for name in ("riding", *faults)) == len(bikes)


def test_refunds_by_cause_and_stock(outcomes, truth):
    failed = [one for one in truth.purchases if one.failed]
    refunds = values_of(outcomes, "fleet-meal-machine", "Refunds by cause")
    assert {key[0]: total(refunds, *key) for key in refunds} == {"jam": len(failed)}
    wasted = values_of(outcomes, "fleet-meal-machine", "Waste by cause")
    assert {key[0]: total(wasted, *key) for key in wasted} == dict(truth.wasted)


def test_the_operations_board_shows_the_rates_of_the_processes(outcomes):
    shown = values_of(outcomes, "fleet-operations", "Messages from devices")
    rates = {value for value in shown["accepted",][1:-1] if value is not None}  # the first and last step are cut
    assert rates == {3 * 39}
    assert values_of(outcomes, "fleet-operations", "API error budget left")["API error budget left",] == [100]


def test_bikes_are_counted_over_time_by_what_they_said(outcomes, truth):
    shown = {}
    for one in outcomes["fleet-bike", "panel", "Can be rented, riding, faulty over time"]:
        for series in one.answer.series:
            shown[series.tags["group"]] = {row[0]: row[1] for row in series.rows}
    assert set(shown) == {"can_be_rented", "riding", "too_little_charge", "on_the_ground", "lock_jammed"}
    for at_ms in sorted(shown["riding"])[8:-1:7]:  # each step holds the one sample that was taken at its beginning
        latest = [rows_until(rows, at_ms)[-1] for name, rows in truth.readings.items() if truth.kinds[name] == "bike"]
        assert shown["riding"][at_ms] == sum(one.lock_state == "unlocked" for one in latest)
        assert sum(counts[at_ms] for counts in shown.values()) == len(latest)


def rows_until(rows, at_ms):
    return [reading for at, reading in rows if at <= at_ms]


# --- the same at the levels that the service rolls up ------------------------------------------------------------


@pytest.fixture(scope="module", params=["minute", "hour"])
def rolled(request, influx, run):
    """(level, board → its panels' outcomes) of that level, made by the service's own roll-up."""
    http = InfluxHttp(influx.url, TOKEN, timeout_s=60)
    rollup, level = InfluxRollup(http, DATABASE), {"minute": MINUTE, "hour": HOUR}[request.param]
    for name in sorted(rollup.measurements()):
        rollup.roll_here(level, name, START_MS, END_MS)
    http.close()
    found = {}
    for uid in ("fleet-overview", "fleet-bike", "fleet-meal-machine", "fleet-nursing-room"):
        for one in run_board(BOARDS[uid], run, SPAN, {"resolution": [request.param]}):
            found.setdefault((one.query.board, one.query.place, one.query.name), []).append(one)
    return found


def test_steps_are_whole_at_every_level(rolled, truth):
    shown = values_of(rolled, "fleet-bike", "Rides and demand, per hour")
    assert total(shown, "asked", "Rides") == len(truth.rides)
    ((_, fees),) = values_of(rolled, "fleet-bike", "Income from rides, per hour").items()
    assert sum(fees) == pytest.approx(sum(ride.fee_fen for ride in truth.rides if ride.opened) / 100)
    began = values_of(rolled, "fleet-overview", "Alarms that began, per hour")
    assert sum(map(sum, began.values())) == truth.activated
    wasted = values_of(rolled, "fleet-meal-machine", "Waste by cause")
    assert {key[0]: total(wasted, *key) for key in wasted} == dict(truth.wasted)


def test_the_warmest_is_the_truly_warmest_at_every_level(rolled, truth):
    for board, title, kind, field in (
        ("fleet-nursing-room", "Fridges", "nursing_room", "fridge_celsius"),
        ("fleet-bike", "Battery temperature", "bike", "temperature_celsius"),
    ):
        said = [
            value
            for name, rows in truth.readings.items()
            if truth.kinds[name] == kind
            for at, reading in rows
            if at < END_MS and (value := getattr(reading, field)) is not None
        ]
        shown = values_of(rolled, board, title)
        assert max(shown["highest",]) == pytest.approx(max(said))
        assert min(shown["lowest",]) == pytest.approx(min(said))


def test_what_is_counted_is_the_same_at_every_level(rolled):
    for title, kind in (("Shared bike", "bike"), ("Meal machine", "meal_machine"), ("Nursing room", "nursing_room")):
        assert values_of(rolled, "fleet-overview", title)["Devices",] == [COUNTS[kind]]
    occupied = values_of(rolled, "fleet-nursing-room", "Occupancy")
    together = [sum(pair) for pair in zip(*occupied.values(), strict=True)]
    assert len(together) >= 20
    assert together[-1] == pytest.approx(COUNTS["nursing_room"])


def test_every_measurement_of_the_vocabulary_was_in_the_day(truth):
    assert {one.name for one in MEASUREMENTS} | set(COUNTS) <= {point.kind for point in truth.points}


def test_hours_are_whole():
    assert START_MS % HOUR_MS == 0
    assert platform_point(START_MS, "ingest", 10).at_ns == START_MS * 1_000_000
