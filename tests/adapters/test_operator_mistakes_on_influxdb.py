"""What a first-time operator does wrong with InfluxDB: each mistake is one line that names the way out."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
import urllib.request

import pytest
from influx_fixture import free_port, require_programs, wait_for
from typer.testing import CliRunner

from cli.app import app
from cli.influx.backup import Manifest
from cloud.timeseries.levels import DATABASE

pytestmark = pytest.mark.influxdb
POINTS = b"bike,device_id=bike-001 battery_percent=50,message_seq=1i 1790000000000000000"
LONG = ["--raw-days", "36500", "--minute-days", "36500", "--hour-days", "36500"]


class Plain:
    """InfluxDB 1.6.7 as it is after installing it: it asks nobody who they are."""

    def __init__(self, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = os.environ | {
            "INFLUXDB_REPORTING_DISABLED": "true", "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{free_port()}", "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
            "INFLUXDB_META_DIR": str(folder / "meta"), "INFLUXDB_DATA_DIR": str(folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(folder / "wal"),
        }  # fmt: skip
        with (folder / "influxd.log").open("wb") as log:
            self.process = subprocess.Popen([shutil.which("influxd")], env=environment, stdout=log, stderr=log)
        wait_for(f"{self.url}/ping", self.process)

    def fleet(self, *arguments, **settings):
        environment = {name: None for name in os.environ if name.startswith("FLEET_")}
        environment |= {"FLEET_INFLUXDB_URL": self.url, "FLEET_SERIES": "influxdb", **settings}
        return CliRunner().invoke(app, [*map(str, arguments)], env=environment)

    def refused(self, code, *arguments, **settings):
        result = self.fleet(*arguments, **settings)
        assert result.exit_code == code, result.output
        (line,) = result.stderr.splitlines()
        return line

    def write(self, lines):
        urllib.request.urlopen(f"{self.url}/write?db={DATABASE}&rp=raw", data=lines, timeout=20).close()


class WebPage(http.server.SimpleHTTPRequestHandler):
    """A server of files that writes nothing into what the command says."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    require_programs()
    server = Plain(tmp_path_factory.mktemp("plain"))
    yield server
    server.process.terminate()
    server.process.wait(20)


@pytest.fixture(scope="module")
def ready(plain):
    assert plain.fleet("influx", "init", *LONG).exit_code == 0
    assert plain.fleet("influx", "init", *LONG, "--database", "empty").exit_code == 0
    plain.write(POINTS)
    return plain


def test_a_missing_database_or_level_names_those_that_there_are(ready, tmp_path):
    for command in (["backup", tmp_path / "a"], ["rollup"]):
        line = ready.refused(2, "influx", *command, "--database", "nope")
        assert "no database 'nope'" in line
        assert DATABASE in line
    line = ready.refused(2, "influx", "backup", tmp_path / "a", "--policy", "nope")
    assert all(word in line for word in ("nope", "raw", "minute", "hour"))
    assert not list(tmp_path.iterdir())


def test_a_backup_of_nothing_fails_and_leaves_nothing_that_looks_like_one(ready, tmp_path):
    assert "nothing was backed up" in ready.refused(1, "influx", "backup", tmp_path, "--database", "empty")
    assert not list(tmp_path.iterdir())
    assert ready.fleet("influx", "backup", tmp_path).exit_code == 0
    assert "it holds raw" in ready.refused(2, "influx", "restore", tmp_path, "--policy", "hour")
    assert "no database 'nope'" in ready.refused(2, "influx", "restore", tmp_path, "--database", "nope")


def test_restoring_a_backup_of_nothing_says_so(ready, tmp_path):
    manifest = Manifest(DATABASE, "1.6.7", 1, [], complete=True)
    (tmp_path / "manifest.json").write_text(
        json.dumps({name: getattr(manifest, name) for name in manifest.__struct_fields__})
    )
    assert "nothing was restored" in ready.refused(1, "influx", "restore", tmp_path)


def test_places_that_cannot_be_used_are_sentences(ready, tmp_path):
    (tmp_path / "file").write_text("x")
    for line in (
        ready.refused(2, "influx", "backup", tmp_path / "file"),
        ready.refused(2, "influx", "backup", "/proc/x"),
        ready.refused(2, "influx", "init", "--token-file", tmp_path / "nofile"),
    ):
        assert "Errno" not in line
        assert any(words in line for words in ("name a place", "correct the path"))


def test_boards_on_a_server_without_the_database_are_one_line(ready):
    arguments = ["dashboards", "check", "--run-queries", "--influxdb-url", ready.url, "--database", "nope"]
    assert "fleet influx init" in ready.refused(1, *arguments)


def test_export_names_the_times_and_devices_that_are_there_and_what_it_can_be_given(ready, tmp_path):
    out = tmp_path / "bikes.csv"
    asked = ["export", "--kind", "bike", "--out", out]
    line = ready.refused(1, *asked, "--from", "2020-01-01", "--until", "2020-01-02")
    assert "2026-09-21" in line
    assert "bike-999" in ready.refused(1, *asked, "--devices", "bike-999", "--from", "2026-09-20")
    assert not list(tmp_path.iterdir())
    assert ready.fleet(*asked, "--from", "2026-09-20", "--until", "2026-09-30").exit_code == 0
    assert out.read_text().startswith('"time"')


def test_a_refused_token_names_what_export_has(influx, ready, tmp_path):
    arguments = ["export", "--kind", "bike", "--out", tmp_path / "b.csv"]
    line = ready.refused(1, *arguments, FLEET_INFLUXDB_URL=influx.url, FLEET_INFLUXDB_TOKEN="wrong")
    assert "FLEET_INFLUXDB_TOKEN" in line
    assert "--token-file" not in line


def findings(result):
    return {one["check"]: one for one in json.loads(result.stdout)["findings"] if "InfluxDB" in one["check"]}


def test_the_doctor_goes_on_without_a_token_where_none_is_needed(ready, tmp_path):
    result = ready.fleet("doctor", "--json", "--data-directory", tmp_path)
    found = findings(result)
    assert found["InfluxDB's token"]["verdict"] == "ok"
    assert found["InfluxDB's levels"]["verdict"] == "ok"
    missing = findings(ready.fleet("doctor", "--json", "--data-directory", tmp_path, FLEET_INFLUXDB_BUCKET="nope"))
    assert "fleet influx init" in missing["InfluxDB's bucket"]["fix"]


def test_the_doctor_says_how_a_user_of_one_x_is_given(influx, ready, tmp_path):
    found = findings(ready.fleet("doctor", "--json", "--data-directory", tmp_path, FLEET_INFLUXDB_URL=influx.url))
    assert found["InfluxDB's token"]["verdict"] == "problem"
    assert "user:password" in found["InfluxDB's token"]["fix"]


def test_a_web_page_is_no_influxdb(plain, tmp_path):
    (tmp_path / "ping").write_text("<html>hello</html>")
    handler = functools.partial(WebPage, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        line = plain.refused(1, "influx", "init", "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "is no InfluxDB" in line
