"""Every panel's query on a real InfluxDB 1.6.7: the answer is what the written readings imply, not just "not empty"."""

import itertools
import statistics
from typing import get_args, get_origin

import httpx
import pytest
from influx_fixture import TOKEN

from cloud.timeseries.lines import encode_lines
from cloud.timeseries.points import Point
from dashboards import build, influxql
from devices import kinds
from fleet.units import unit_of

pytestmark = pytest.mark.influxdb

DATABASE = "boards"
START_MS = 1_790_000_400_000  # on a full hour, so that time steps are easy to count
STEP_MS = 600_000
READINGS = 12
DEVICES = ("a-1", "b-2", "c-3")
HOUR_MS = 3_600_000
AGGREGATES = {
    "mean": statistics.fmean, "min": min, "max": max, "sum": sum, "last": lambda values: values[-1], "count": len,
}  # fmt: skip


@pytest.fixture(scope="module")
def query(influx):
    """A function that runs InfluxQL on a database holding three devices of every kind."""
    influx.create_database(DATABASE)
    with httpx.Client(base_url=influx.url, headers={"Authorization": f"Token {TOKEN}"}, timeout=30) as client:
        for kind, device in itertools.product(kinds().values(), DEVICES):
            lines = encode_lines(points_of(kind, device))
            parameters = {"bucket": DATABASE, "precision": "ns"}
            client.post("/api/v2/write", params=parameters, content=lines).raise_for_status()

        def run(text):
            parameters = {"db": DATABASE, "q": text, "epoch": "ms"}
            (result,) = client.get("/query", params=parameters).raise_for_status().json()["results"]
            assert "error" not in result, (text, result)
            return result.get("series", [])

        yield run


def readings_of(kind, device):
    """(time, fields) of one device; deterministic, inside every bound, different for every device and field."""
    for index in range(READINGS):
        fields = {}
        for number, (name, field) in enumerate(kind.reading.model_fields.items()):
            shift = (DEVICES.index(device) * 7 + index * 3 + number) % 20
            members = get_args(field.annotation)
            number_type = next((one for one in (field.annotation, *members) if one in (int, float)), None)
            if type(None) in members and index % 4 == 2:
                continue  # this sensor gave no value
            if field.annotation is bool:
                fields[name] = shift % 2 == 0
            elif number_type is not None and unit_of(field) != "none":
                fields[name] = number_type(shift + 1 if "longitude" not in name else shift + 100)
            elif members and all(isinstance(member, str) for member in members) and get_origin(field.annotation):
                fields[name] = members[shift % len(members)]
        yield START_MS + index * STEP_MS, fields


def points_of(kind, device):
    return [Point(kind.name, device, at_ms * 1_000_000, fields) for at_ms, fields in readings_of(kind, device)]


def filled_in(text):
    """What Grafana makes of the macros and variables for the time shown here."""
    end_ms = START_MS + READINGS * STEP_MS
    text = text.replace("$timeFilter", f"time >= {START_MS}ms and time <= {end_ms}ms")
    return text.replace("$__interval", "1h").replace("${device:regex}", ".*")


CASES = [
    pytest.param(kind, panel, language, id=f"{kind.name}-{panel.title.en}-{language}")
    for kind in kinds().values()
    for panel in build.panels_of(kind)
    for language in build.LANGUAGES
]


@pytest.mark.parametrize(("kind", "panel", "language"), CASES)
def test_a_panel_shows_what_was_measured(query, kind, panel, language):
    board = build.build_kind(kind, language)
    (drawn,) = [drawn for drawn in board["panels"] if drawn["title"] == panel.title.in_language(language)]
    answers = [query(filled_in(target["query"])) for target in drawn["targets"]]
    series = list(itertools.chain.from_iterable(answers))
    values = {device: [fields for _, fields in readings_of(kind, device)] for device in DEVICES}
    join = AGGREGATES["last" if panel.style == "geomap" else panel.aggregate]
    if panel.style == "timeseries":
        check_over_time(kind, panel, series, join)
    elif panel.style == "bar":
        (only,) = series
        (field,) = panel.fields
        shown = {dict(zip(only["columns"], row, strict=True))["device_id"]: row[1] for row in only["values"]}
        assert shown == pytest.approx({device: join(present(values[device], field)) for device in DEVICES})
    elif panel.per_device:
        assert {one["tags"]["device_id"] for one in series} == set(DEVICES)
        for one in series:
            device = one["tags"]["device_id"]
            expected = [join(present(values[device], field)) for field in panel.fields]
            if len(answers) == 1:
                assert one["values"][0][1:] == pytest.approx(expected)
            else:
                assert one["values"][0][1] in expected
    else:
        shown = [one["values"][0][1] for one in series]
        assert shown == pytest.approx(
            [join([present(values[device], field)[-1] for device in DEVICES]) for field in panel.fields]
        )


def present(readings, field):
    """The field's values, oldest first, without the readings in which its sensor gave none."""
    return [fields[field] for fields in readings if field in fields]


def check_over_time(kind, panel, series, join):
    """Every hour's value of every device, or of all together."""
    groups = [(device,) for device in DEVICES] if panel.per_device else [DEVICES]
    expected = []
    for field in panel.fields:
        for group in groups:
            hours = {}
            everything = sorted(
                (at_ms, fields[field])
                for device in group
                for at_ms, fields in readings_of(kind, device)
                if field in fields  # a dead sensor gives no value
            )
            for at_ms, value in everything:
                hours.setdefault(at_ms - at_ms % HOUR_MS, []).append(value)
            expected.append([[hour, pytest.approx(join(values))] for hour, values in hours.items()])
    shown = [
        [[row[0], row[column]] for row in one["values"]] for one in series for column in range(1, len(one["columns"]))
    ]
    assert shown == expected


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_the_overview_counts_devices_and_readings(query, kind):
    field = build.counted_field(kind)
    now = influxql.now_of_all(kind.name, field, "n", "count", f"time >= {START_MS}ms")
    assert query(now)[0]["values"][0][1] == len(DEVICES)
    assert (
        query(influxql.now_of_all(kind.name, field, "n", "count", f"time > now() - {kind.silent_after_s:.0f}s")) == []
    )
    counted = query(filled_in(influxql.readings_over_time(kind.name, field, "n")))[0]["values"]
    assert sum(row[1] for row in counted) == len(DEVICES) * READINGS


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_the_choice_of_devices_lists_them(query, kind):
    assert [row[1] for row in query(influxql.devices_of(kind.name))[0]["values"]] == list(DEVICES)
