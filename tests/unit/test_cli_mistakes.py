"""What somebody types wrong into tools for series, boards and benches: one line that says what to do, and no file."""

import re
import sqlite3
import subprocess
import sys
import threading

import pytest
from cli_support import fleet, one_line

from cli import main
from cli.bench import command, running
from cli.bench.ingesters import MEASURED_S_MIN, too_short
from cli.settings_errors import warnings

PROC = "/proc/nope"
"""A folder in which not even root can make anything."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "boards", "--folder", PROC),
        ("bench", "bounds", "--folder", "/proc"),
        ("bench", "ingest", "--flame", "/proc/x.svg"),
        ("dashboards", "build", "--out", PROC),
        ("scale", "--page", PROC),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_place_that_cannot_be_written_is_one_sentence_before_anything_begins(arguments):
    result = fleet(*arguments)
    assert result.exit_code in {1, 2}
    line = one_line(result)
    assert arguments[-1] in line
    assert "Errno" not in line


def test_export_says_where_it_cannot_write(tmp_path):
    sqlite3.connect(tmp_path / "series.db").close()
    line = one_line(fleet("export", "--kind", "bike", "--out", "/proc/b.csv", "--data-directory", tmp_path))
    assert "name a place that can be written" in line


def test_a_board_that_could_not_be_written_whole_leaves_what_there_was(tmp_path):
    run = 'ulimit -f 4; exec "$0" -m cli.main dashboards build --application-url http://a.example --out "$1"'
    done = subprocess.run(
        ["bash", "-c", run, sys.executable, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "ulimit" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "nonsense"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("dashboards", "build", "--application-url"),
        ("dashboards", "check", "--run-queries", "--influxdb-url"),
        ("dashboards", "diff", "--url"),
        ("dashboards", "preview", "--influxdb-url"),
        ("dashboards", "publish", "--url"),
        ("influx", "backup", "folder", "--url"),
        ("influx", "init", "--url"),
        ("influx", "restore", "folder", "--url"),
        ("influx", "rollup", "--url"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_an_address_that_is_none_is_refused(arguments, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fleet(*arguments, url)
    assert result.exit_code == 2
    assert url in one_line(result)
    assert not list(tmp_path.iterdir())


def test_export_refuses_an_address_that_is_none(tmp_path):
    settings = {"FLEET_SERIES": "influxdb", "FLEET_INFLUXDB_URL": "nonsense"}
    result = fleet("export", "--kind", "bike", "--out", tmp_path / "a.csv", **settings)
    assert result.exit_code == 2
    assert "FLEET_INFLUXDB_URL" in one_line(result)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("bench", "ingesters", "--kills", "2", "--cpu-share", "10"), "--cpu-share"),
        (("bench", "ingesters", "--kills", "2", "--messages", "5000"), "--messages"),
        (("bench", "ingesters", "--seed", "2"), "--seed"),
        (("dashboards", "check", "--from", "now-1d"), "--from"),
        (("dashboards", "check", "--ms-max", "3"), "--ms-max"),
        (("dashboards", "check", "--variable", "a=b"), "--variable"),
    ],
)
def test_an_option_without_effect_is_refused(arguments, named):
    result = fleet(*arguments)
    assert result.exit_code == 2
    assert named in one_line(result)


def test_an_address_from_the_environment_is_no_option_without_effect():
    assert fleet("dashboards", "check", FLEET_INFLUXDB_URL="http://127.0.0.1:8086").exit_code == 0


@pytest.mark.parametrize(("held", "code"), [(False, 3), (True, 0)])
def test_ingesters_below_their_goal_are_unhealthy_and_too_few_messages_are_said(monkeypatch, held, code):
    seconds = MEASURED_S_MIN if held else 0.4
    found = {"goal_held": held, "goal": ">= 1.8", "ratio": 1.0, "one_seconds": seconds, "all_seconds": 9.0}
    monkeypatch.setattr(command, "run", lambda *_, **__: found)
    result = fleet("bench", "ingesters")
    assert result.exit_code == code
    assert bool(too_short(found)) == ("--messages" in result.stderr) == (not held)


def test_without_a_terminal_a_long_bench_gives_signs_of_life(monkeypatch):
    said, twice = [], threading.Event()

    def take(line, **_):
        said.append(line)
        if len(said) == 2:
            twice.set()

    monkeypatch.setattr(running.words, "print", take)
    with running.sign_of_life("measuring", every_s=0.01):
        assert twice.wait(20)
    assert re.fullmatch(r"measuring … \d+ s", said[0])
    assert not [one for one in threading.enumerate() if one.name == "sign of life"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device"), 1, "the disk is full"),
        (PermissionError(13, "Permission denied", "/nowhere/x"), 2, "/nowhere/x"),
        (sqlite3.OperationalError("disk I/O error"), 1, "disk I/O error"),
        (sqlite3.OperationalError("no such table: device"), 1, "start `fleet serve` once"),
    ],
    ids=["full disk", "no right", "SQLite", "no tables"],
)
def test_what_the_system_refuses_is_one_line_whatever_the_command(monkeypatch, capsys, error, code, words):
    def broken():
        raise error

    monkeypatch.setattr("cli.app.app", broken)
    monkeypatch.setattr(sys, "argv", ["fleet", "scale"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), sqlite3.ProgrammingError("ours")])
def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, error):
    def broken():
        raise error

    monkeypatch.setattr("cli.app.app", broken)
    monkeypatch.setattr(sys, "argv", ["fleet", "scale"])
    with pytest.raises(type(error)):
        main.run()


def test_a_far_guess_is_not_made(monkeypatch, tmp_path):
    monkeypatch.setenv("FLEET_BROKER_PROT", "1")
    monkeypatch.setenv("FLEET_COFFEE", "1")
    said = {line.partition(" ")[0]: line for line in warnings()}
    assert "did you mean FLEET_BROKER_PORT?" in said["FLEET_BROKER_PROT"]
    assert "did you mean" not in said["FLEET_COFFEE"]
    line = one_line(fleet("export", "--kind", "zzz", "--out", tmp_path / "a.csv", "--data-directory", tmp_path))
    assert "did you mean" not in line
    assert "nursing_room" in line


def test_a_made_up_day_in_a_missing_folder_says_that_it_makes_it(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from cli.sample import store

    def stop(*_, **__):
        raise store.SampleError("far enough")

    monkeypatch.setattr(store, "SampleStore", stop)
    result = fleet("dashboards", "preview", "--language", "en", "--sample", tmp_path / "day", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "it is made" in result.stderr
