"""`fleet export` from an embedded series: values keep their types, nothing is guessed."""

import csv
import datetime as dt
import json

import pytest
from typer.testing import CliRunner

from cli.export.command import export
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.timeseries.points import Point

pyarrow_parquet = pytest.importorskip("pyarrow.parquet")
START_MS = 1_790_000_000_000
DAY_MS = 86_400_000
SPAN = ["--from", "2026-09-20", "--until", "2026-09-30"]


def points():
    made = []
    for number in range(6):
        fields = {
            "message_seq": number,
            "battery_percent": float(number * 10),
            "lock_state": ["", 'a "b", c', "锁"][number % 3],
        }
        fields |= {"on": number % 2 == 0, "gone": None if number % 2 else 0.5}
        at_ns = (START_MS + number * DAY_MS) * 1_000_000 + 64
        made.append(Point("bike", f"bike-00{number % 2}", at_ns, fields))
    made.append(
        Point("call_step", "room-001", START_MS * 1_000_000, {"call_id": "c1", "since_press_ms": 5}, (("step", "x"),))
    )
    return made


@pytest.fixture
async def folder(tmp_path):
    store = SqliteSeries(tmp_path / "series.db")
    await store.write(points())
    await store.close()
    return tmp_path


def run(folder, *arguments):
    import typer

    app = typer.Typer()
    app.command()(export)
    return CliRunner().invoke(
        app, ["--data-directory", str(folder), *map(str, arguments)], env={"FLEET_SERIES": "sqlite"}
    )


def answer(folder, *arguments):
    result = run(folder, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def expected(at_number):
    return dt.datetime.fromtimestamp((START_MS + at_number * DAY_MS) / 1000, dt.UTC)


def test_parquet_keeps_texts_booleans_nulls_and_the_moment(folder):
    told = answer(folder, "--kind", "bike", "--out", folder / "bikes.parquet", *SPAN)
    table = pyarrow_parquet.read_table(folder / "bikes.parquet")
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=Asia/Shanghai]"
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["battery_percent"], types["message_seq"], types["on"], types["lock_state"]) == (
        "double", "int64", "bool", "string",
    )  # fmt: skip
    rows = sorted(table.to_pylist(), key=lambda row: row["time"])
    assert told["rows"] == len(rows) == 6
    for number, (row, point) in enumerate(zip(rows, points()[:6], strict=True)):
        assert row["time"] == expected(number)
        assert {name: row[name] for name in point.fields} == point.fields
        assert row["device_id"] == point.device_id


def test_csv_tells_an_empty_text_from_no_value(folder):
    answer(folder, "--kind", "bike", "--out", folder / "bikes.csv", "--format", "csv", *SPAN, "--time-zone", "UTC")
    lines = (folder / "bikes.csv").read_text().splitlines()
    assert lines[0] == '"time","device_id","battery_percent","gone","lock_state","message_seq","on"'
    first = next(line for line in lines if line.startswith("2026-09-21"))
    assert first == '2026-09-21T14:13:20.000+00:00,"bike-000",0.0,0.5,"",0,true'
    assert any(',10.0,,"a ""b"", c",1,false' in line for line in lines)
    rows = list(csv.DictReader(lines))
    assert len(rows) == 6


def test_devices_and_time_are_chosen_and_steps_have_their_tags(folder):
    told = answer(
        folder, "--kind", "bike", "--out", folder / "one.csv", "--format", "csv", "--devices", "bike-001", *SPAN
    )
    assert told["rows"] == 3
    narrow = ["--from", "2026-09-22T00:00+00:00", "--until", "2026-09-24T00:00+00:00"]
    assert answer(folder, "--kind", "bike", "--out", folder / "two.csv", "--format", "csv", *narrow)["rows"] == 2
    told = answer(folder, "--kind", "call_step", "--out", folder / "calls.csv", "--format", "csv", *SPAN)
    assert told["columns"] == ["time", "device_id", "step", "call_id", "since_press_ms"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--kind", "bikes"], 2, "did you mean bike"),
        (["--kind", "bike", "--from", "yesterday"], 2, "is no moment"),
        (["--kind", "bike", "--from", "2026-09-22", "--until", "2026-09-21"], 2, "is not before"),
        (["--kind", "bike", "--time-zone", "Mars"], 2, "is unknown"),
        (["--kind", "bike", "--level", "hour"], 2, "as measured only"),
        (["--kind", "meal_machine"], 1, "no points of"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_leaves_no_file(folder, arguments, code, words):
    result = run(
        folder, "--out", folder / "out.parquet", *(arguments if "--from" in arguments else [*arguments, *SPAN])
    )
    assert result.exit_code == code
    (line,) = result.stderr.splitlines()
    assert words in line
    assert not list(folder.glob("out*"))


def test_a_file_that_is_there_is_not_replaced_unless_told(folder):
    out = folder / "bikes.csv"
    out.write_text("mine")
    refused = run(folder, "--kind", "bike", "--format", "csv", "--out", out, *SPAN)
    assert (refused.exit_code, out.read_text()) == (2, "mine")
    assert answer(folder, "--kind", "bike", "--format", "csv", "--out", out, "--force", *SPAN)["rows"] == 6


def test_without_pyarrow_it_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    result = run(folder, "--kind", "bike", "--out", folder / "bikes.parquet", *SPAN)
    assert result.exit_code == 1
    assert "gaoxin-fleet[export]" in result.stderr
    assert not list(folder.glob("bikes*"))


def test_the_form_follows_the_ending_and_a_contradiction_is_refused(folder):
    assert answer(folder, "--kind", "bike", "--out", folder / "a.csv", *SPAN)["format"] == "csv"
    assert answer(folder, "--kind", "bike", "--out", folder / "b", *SPAN)["format"] == "parquet"
    refused = run(folder, "--kind", "bike", "--out", folder / "c.csv", "--format", "parquet", *SPAN)
    assert (refused.exit_code, (folder / "c.csv").exists()) == (2, False)


def test_nothing_found_says_which_times_and_devices_there_are(folder):
    asked = ["--kind", "bike", "--out", folder / "a.csv"]
    outside = run(folder, *asked, "--from", "2026-01-01", "--until", "2026-01-02")
    assert outside.exit_code == 1
    assert "2026-09-21T22:13:20+08:00 and 2026-09-26T22:13:20+08:00" in outside.stderr
    unknown = run(folder, *asked, "--devices", "bike-000,bike-999", *SPAN)
    assert unknown.exit_code == 1
    assert "no device bike-999 has points" in unknown.stderr
    assert not (folder / "a.csv").exists()
