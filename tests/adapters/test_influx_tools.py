"""`fleet influx …` on a real InfluxDB 1.6.7: levels, roll-ups by hand, backup and restore."""

import itertools
import json
import shutil

import pytest
from influx_fixture import TOKEN
from typer.testing import CliRunner

from cli.influx import app
from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.series_influx import InfluxSeries
from cloud.timeseries.points import Point

pytestmark = pytest.mark.influxdb
HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000
names = (f"tools_{number}" for number in itertools.count())
LONG = ["--raw-days", "36500", "--minute-days", "36500", "--hour-days", "36500"]
"""The tests' readings lie in 2026, whatever the clock of the machine says."""


class Bench:
    """A database of its own, and the command on it."""

    def __init__(self, server):
        self.server, self.database = server, next(names)
        self.http = InfluxHttp(server.url, TOKEN)

    def fleet(self, *arguments, token=TOKEN, url=None):
        environment = {
            "FLEET_INFLUXDB_URL": url or self.server.url, "FLEET_INFLUXDB_TOKEN": token,
            "FLEET_INFLUXDB_BUCKET": self.database,
        }  # fmt: skip
        return CliRunner().invoke(app, [*map(str, arguments)], env=environment)

    def answer(self, *arguments):
        result = self.fleet(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    async def write(self, points):
        store = InfluxSeries(url=self.server.url, token=TOKEN, org="fleet", bucket=self.database)
        await store.write(points)
        await store.close()

    def table(self, policy, measurement, columns="*"):
        query = f'SELECT {columns} FROM "{policy}"."{measurement}" GROUP BY *'
        return {
            (rows.tags.get("device_id"), values[0]): dict(zip(rows.columns[1:], values[1:], strict=True))
            for rows in self.http.rows(query, database=self.database, epoch="ms")
            for values in rows.values
        }


@pytest.fixture
def bench(influx):
    made = Bench(influx)
    yield made
    made.http.close()


def readings(count=240, device="bike-001", step_ms=30_000):
    return [
        Point("bike", device, (NOW_MS + number * step_ms) * 1_000_000 + 64, {
            "message_seq": number, "battery_percent": 10.0 + number / 7, "lock_state": 'op"en' if number % 3 else "ok",
            "on": number % 2 == 0, "gone": None if number % 5 else 0.1,
        })
        for number in range(count)
    ]  # fmt: skip


def outcomes(document):
    return {step["thing"]: step["outcome"] for step in document["steps"]}


def test_init_makes_the_levels_once_and_says_what_is_there(bench):
    planned = bench.answer("init", "--dry-run")
    assert set(outcomes(planned).values()) == {"would make"}
    assert "tools" not in str(bench.http.query("SHOW DATABASES")) or bench.database not in str(
        bench.http.query("SHOW DATABASES")
    )
    made = bench.answer("init")
    assert set(outcomes(made).values()) == {"made"} | ({"warning"} if "warning" in outcomes(made).values() else set())
    (series,) = bench.http.query(f"SHOW RETENTION POLICIES ON {bench.database}")
    kept = {row[0]: (row[1], row[4]) for row in series["values"]}
    assert kept["raw"] == ("720h0m0s", True)
    assert kept["minute"] == ("8760h0m0s", False)
    assert kept["hour"] == ("43800h0m0s", False)
    again = bench.answer("init")
    assert {outcomes(again)[f"retention policy {name}"] for name in ("raw", "minute", "hour")} == {"exists"}


def test_init_lengthens_and_refuses_to_shorten_unless_told(bench):
    bench.answer("init")
    longer = bench.answer("init", "--raw-days", "60")
    assert outcomes(longer)["retention policy raw"] == "changed"
    refused = bench.fleet("init", "--raw-days", "30")
    assert refused.exit_code == 1
    assert "60 days" in refused.stderr
    assert "--shorten" in refused.stderr
    assert (
        outcomes(bench.answer("init", "--raw-days", "30", "--shorten", "--dry-run"))["retention policy raw"]
        == "would change"
    )
    assert outcomes(bench.answer("init", "--raw-days", "30", "--shorten"))["retention policy raw"] == "changed"


def test_shortening_one_level_deletes_nothing_of_another(bench):
    bench.answer("init", "--hour-days", "2000")
    refused = bench.fleet("init", "--raw-days", "14", "--shorten")
    assert refused.exit_code == 1
    assert "hour is kept 2000 days" in " ".join(refused.stderr.split())
    kept = outcomes(bench.answer("init", "--raw-days", "30", "--hour-days", "2000", "--dry-run"))
    assert kept["retention policy raw"] == kept["retention policy hour"] == "exists", "nothing was changed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token": "wrong"}, "does not know this token"),
        ({"url": "http://127.0.0.1:9"}, "is InfluxDB running"),
    ],
)
def test_what_is_in_the_way_is_said_in_one_line(bench, changes, words):
    result = bench.fleet("init", **changes)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert words in line


async def test_a_roll_up_by_hand_has_means_extremes_counts_and_last_texts(bench):
    bench.answer("init", *LONG)
    points = readings()
    await bench.write(points)
    call = Point("call_step", "room-001", NOW_MS * 1_000_000 + 7, {"call_id": "a", "since_press_ms": 5})
    await bench.write([call])
    span = ["--from", "2026-09-21T13:00:00+00:00", "--until", "2026-09-21T17:00:00+00:00"]
    first = bench.answer("rollup", *span)
    assert first["lines"]["minute"] == 121  # the call is in every level
    minutes = bench.table("minute", "bike")
    expected = {}
    for point in points:
        expected.setdefault(point.at_ns // 60_000_000_000 * 60_000, []).append(point.fields)
    assert {at for _, at in minutes} == set(expected)
    for at, fields in expected.items():
        row = minutes["bike-001", at]
        batteries = [one["battery_percent"] for one in fields]
        assert row["battery_percent"] == pytest.approx(sum(batteries) / len(batteries))
        assert (row["battery_percent_min"], row["battery_percent_max"]) == (min(batteries), max(batteries))
        assert row["message_seq_count"] == len(fields)
        assert (row["lock_state"], row["on"]) == (fields[-1]["lock_state"], fields[-1]["on"])
    hours = bench.table("hour", "bike", '"battery_percent_count"')
    assert sum(row["battery_percent_count"] for row in hours.values()) == 240
    assert bench.table("hour", "call_step") == {("room-001", NOW_MS): {"call_id": "a", "since_press_ms": 5}}
    assert bench.table("minute", "call_step") == bench.table("hour", "call_step")
    again = bench.answer("rollup", *span)
    assert {name: again[name] for name in again if name != "cost"} == {
        name: first[name] for name in first if name != "cost"
    }
    assert first["cost"]["seconds_per_day"] >= first["cost"]["seconds"] > 0
    assert bench.table("minute", "bike") == minutes


def test_an_unknown_measurement_is_said(bench):
    bench.answer("init", *LONG)
    result = bench.fleet("rollup", "--measurement", "nothing")
    assert result.exit_code == 1
    assert "no measurement 'nothing'" in result.stderr


async def test_a_backup_restores_the_same_points_elsewhere(bench, influx, tmp_path):
    bench.answer("init", *LONG)
    await bench.write([*readings(), *readings(50, "bike-002", HOUR_MS)])
    bench.answer("rollup", "--from", "2026-09-21T13:00:00+00:00", "--until", "2026-09-21T17:00:00+00:00")
    folder = tmp_path / "backup"
    taken = bench.answer("backup", folder, "--until", "2027-01-01")
    assert taken["complete"] is True
    other = Bench(influx)
    other.answer("init", *LONG)
    restored = other.answer("restore", folder)
    assert (restored["lines_written"], restored["values_missing"]) == (taken["lines"], 0)
    for policy in ("raw", "minute", "hour"):
        assert other.table(policy, "bike") == bench.table(policy, "bike")
    again = other.answer("restore", folder)
    assert (again["files_there_already"], again["lines_written"]) == (taken["files"], 0)
    assert bench.fleet("backup", folder).exit_code == 1
    other.http.close()


async def test_a_backup_that_broke_off_goes_on(bench, tmp_path):
    bench.answer("init", *LONG)
    await bench.write(readings(20, step_ms=6 * HOUR_MS))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    bench.answer("backup", whole, "--until", "2027-01-01")
    shutil.copytree(whole, broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    cut = manifest["files"].pop()
    (broken / cut["file"]).write_bytes(b"half")
    (broken / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    assert bench.fleet("restore", broken).exit_code == 1
    bench.answer("backup", broken)
    assert json.loads((broken / "manifest.json").read_text()) == json.loads((whole / "manifest.json").read_text())


async def test_a_damaged_backup_is_refused_before_anything_is_written(bench, tmp_path):
    bench.answer("init", *LONG)
    await bench.write(readings(20))
    bench.answer("backup", tmp_path / "backup", "--until", "2027-01-01")
    (file,) = (tmp_path / "backup").rglob("*.gz")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    result = bench.fleet("restore", tmp_path / "backup")
    assert result.exit_code == 1
    assert "damaged" in result.stderr


async def test_what_a_level_no_longer_keeps_is_counted_as_expired(bench, influx, tmp_path):
    bench.answer("init", *LONG)
    old = Point("bike", "bike-001", 1_500_000_000_000_000_000, {"message_seq": 1})
    await bench.write([old, *readings(20)])
    bench.answer("backup", tmp_path / "backup", "--until", "2027-01-01")
    other = Bench(influx)
    other.answer("init", "--raw-days", "3000")
    restored = other.answer("restore", tmp_path / "backup")
    assert (restored["lines_expired"], restored["values_missing"]) == (1, 0)
    assert len(other.table("raw", "bike")) == 20
    other.http.close()
