"""`fleet bench boards` and the made-up fleet behind it, on a real InfluxDB, as small as they get."""

import json

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.sample.fleet import HOUR_MS, SampleFleet
from cli.sample.store import VERSION
from cloud.history.groups import counted_groups
from devices import kinds
from fleet import series

pytestmark = [pytest.mark.influxdb, pytest.mark.timeout(120)]
AT_MS = 1_795_172_400_000  # 2026-11-20T19:00 in Shanghai


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    arguments = ["bench", "boards", "--days", "0.05", "--devices", "3", "--folder", str(folder), "--json"]
    result = CliRunner().invoke(app, arguments)
    return folder, result


def test_it_times_every_query_of_every_board(bench):
    _, result = bench
    assert result.exit_code in {0, 3}, result.output  # 3: a busy machine was too slow
    found = json.loads(result.stdout)
    assert found["devices"] == 3
    assert found["queries"] > 300
    assert 0 < found["median_ms"] <= found["p95_ms"] <= found["slowest_ms"] == found["slowest"][0]["ms"]
    assert (result.exit_code == 3) == (found["above_ms_max"] > 0)
    assert "fleet-overview: The whole fleet now" not in found["without_rows"]


def test_it_keeps_what_it_wrote_and_refuses_another_fleet(bench):
    folder, _ = bench
    state = json.loads((folder / "sample.json").read_text())
    assert (state["hours_written"], state["version"]) == (1, VERSION)
    result = CliRunner().invoke(app, ["bench", "boards", "--days", "0.05", "--devices", "4", "--folder", str(folder)])
    assert result.exit_code == 1
    assert "holds another fleet" in result.output.replace("\n", " ")


def fields_of(points, measurement, **tags):
    return [dict(one.fields) for one in points if one.kind == measurement and tags.items() <= dict(one.tags).items()]


def test_the_made_up_hour_is_the_same_again_and_says_one_thing_everywhere():
    points = list(SampleFleet(1, 39).hour(AT_MS - HOUR_MS))
    assert points == list(SampleFleet(1, 39).hour(AT_MS - HOUR_MS))
    assert {one.kind for one in points} >= {"fleet_state", "group_state", "platform", "alarm_step", "call_step"}
    known = {one.name: {field.name for field in one.fields} for one in series.MEASUREMENTS}
    for one in points:
        if one.kind in known:
            assert set(one.fields) <= known[one.kind], one
    last = fields_of(points, "fleet_state", kind="nursing_room")[-1]
    assert last["calls_open"] == 1  # the one that boards show
    for name in sorted(kinds()):
        devices = fields_of(points, "fleet_state", kind=name)[-1]["devices"]
        for key in counted_groups(name):
            assert all(0 <= one["devices"] <= devices for one in fields_of(points, "group_state", kind=name, group=key))
    free, occupied = (fields_of(points, "group_state", kind="nursing_room", group=one) for one in ("free", "occupied"))
    assert all(one["devices"] + two["devices"] == 19 for one, two in zip(free[:-1], occupied[:-1], strict=True))
