"""A running deployment whose InfluxDB refuses it: nothing is lost, the doctor names the fault, its fix mends it."""

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections import defaultdict
from contextlib import contextmanager
from email.utils import formatdate
from urllib.parse import urlencode

import pytest
import urllib3
from installation import Installation
from sqlalchemy import select

from cli.clock import real_now_ms
from cloud.tables import quarantine
from tests.adapters.influx_fixture import TOKEN, InfluxBehindNginx, require_programs
from tests.adapters.postgres_fixture import postgresql_server, postgresql_url  # noqa: F401

pytestmark = [
    pytest.mark.e2e, pytest.mark.postgresql, pytest.mark.influxdb, pytest.mark.mosquitto, pytest.mark.timeout(280),
]  # fmt: skip
BUCKET = "mislaid"
AHEAD_S = 90 * 86_400
LIMIT_S = 90
EXPIRED = (
    "default_type application/json; return 400 "
    '\'{"code":"invalid","message":"partial write: points beyond retention policy dropped=1000000"}\';'
)
"""What an InfluxDB says whose clock stands later than all that it is given."""


@contextmanager
def with_clock_ahead(url):
    """The same InfluxDB, as one whose clock is wrong shows itself: only the Date of its answers differs."""
    pool = urllib3.PoolManager(retries=False)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def date_time_string(self, _timestamp=None):
            return formatdate(real_now_ms() / 1000 + AHEAD_S, usegmt=True)

        def pass_on(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {key: value for key, value in self.headers.items() if key.lower() not in {"host", "connection"}}
            answer = pool.request(self.command, url + self.path, body=body, headers=headers, decode_content=False)
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in {"date", "transfer-encoding", "connection", "content-length", "server"}:
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(answer.data)))
            self.end_headers()
            self.wfile.write(answer.data)

        do_GET = do_POST = pass_on  # noqa: N815  # names of the standard library

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Mislaid(Installation):
    """Its series is an InfluxDB; every restart of its cloud is a kill -9."""

    def restart(self, **settings):
        if "all" in self.children:
            self.children["all"].kill()
        self.environment |= {"FLEET_SERIES": "influxdb", "FLEET_INFLUXDB_ROLLUP": "false", **settings}
        self.serve("all", "all")
        self.wait("its devices", lambda: self.connected() and self.check("all"), LIMIT_S)

    def run(self, *arguments, code=0):
        own = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments)], capture_output=True, text=True, check=False,
            env={**own, **self.environment, "FLEET_DATA_DIRECTORY": str(self.folder / "data")},
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def doctor(self, check, words):
        """The finding, once it is one; it names a fix and no secret."""

        def finding():
            address = f"http://127.0.0.1:{self.ports['all']}"
            report = self.run("doctor", "--url", address, "--json", code=3)
            assert TOKEN not in json.dumps(report)
            problems = {one["check"]: one for one in report["findings"] if one["verdict"] == "problem"}
            return problems if words in problems.get(check, {}).get("found", "") else None

        problems = self.wait(f"{check}: {words}", finding, LIMIT_S)
        assert all(one["fix"] for one in problems.values())
        return problems

    def more_telemetry(self):
        """Some more of every room is committed: taken durably, wherever it is to go. Bikes that stand speak rarely."""
        before = self.marks()

        def moved():
            now = self.marks()
            return all(now.get(name, 0) > before.get(name, 0) for name in self.rooms())

        self.wait("telemetry of every room", moved, LIMIT_S)

    def rooms(self):
        return {name for name, (kind, _) in self.fleet.items() if kind == "nursing_room"}

    def drain_flows(self):
        metrics = f"http://127.0.0.1:{self.ports['all']}/metrics"
        with urllib.request.urlopen(metrics, timeout=5) as answer:
            return b"\nfleet_drain_flowing 1" in answer.read()

    def in_quarantine(self):
        """Message numbers of each device that the series refused, from their rows, and the reasons."""
        found, reasons = defaultdict(list), set()
        columns = (quarantine.c.device_id, quarantine.c.seq, quarantine.c.reason, quarantine.c.payload)
        for row in self.database.read_here(lambda tx: tx.execute(select(*columns)).all()):
            found[row.device_id].append(row.seq)
            reasons.add(row.reason)
            assert f"message_seq={row.seq}i".encode() in bytes(row.payload), "the whole point is kept"
        return found, reasons


def stored_in(influx, kinds):
    """Message numbers of each device that stand in InfluxDB."""
    found = defaultdict(list)
    for kind in kinds:
        for one in influxql(influx, f'SELECT message_seq FROM "{kind}" GROUP BY device_id'):
            found[one["tags"]["device_id"]] += [row[1] for row in one["values"]]
    return found


def influxql(influx, statement):
    headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"db": BUCKET, "q": statement, "epoch": "ms"})
    answer = urllib3.request("POST", f"{influx.url}/query", body=body, headers=headers)
    (result,) = answer.json()["results"]
    assert "error" not in result, result
    return result.get("series", [])


@pytest.fixture
def influx(tmp_path_factory):
    require_programs()
    server = InfluxBehindNginx(tmp_path_factory.mktemp("influx"))
    yield server
    server.close()


def test_each_fault_leaves_the_data_safe_is_found_and_is_mended_by_its_fix(influx, postgresql_url, tmp_path):  # noqa: F811
    with Mislaid(tmp_path, postgresql_url) as it, with_clock_ahead(influx.url) as skewed:
        kinds = sorted({kind for kind, _ in it.fleet.values()})
        it.simulate()

        it.restart(FLEET_INFLUXDB_URL=influx.url, FLEET_INFLUXDB_TOKEN="mistyped", FLEET_INFLUXDB_BUCKET=BUCKET)
        it.more_telemetry()
        problems = it.doctor("InfluxDB's token", "not known")
        assert "FLEET_INFLUXDB_TOKEN" in problems["InfluxDB's token"]["fix"]
        assert "Cloud: drain" in problems

        it.restart(FLEET_INFLUXDB_TOKEN=TOKEN)
        it.more_telemetry()
        problems = it.doctor("InfluxDB's bucket", "is missing")
        assert problems["InfluxDB's bucket"]["fix"].startswith("fleet influx init")
        assert "Cloud: drain" in problems
        assert it.in_quarantine()[0] == {}, "while the store refuses everything, nothing is known about the points"

        # Its clock is wrong, so it takes everything for too old; and a field stands there with another type.
        influx.fault(EXPIRED)
        it.restart(FLEET_INFLUXDB_URL=skewed)
        it.run("influx", "init", "--json")
        it.more_telemetry()
        problems = it.doctor("InfluxDB's clock", "ahead of")
        assert "timedatectl" in problems["InfluxDB's clock"]["fix"]
        assert it.in_quarantine()[0] == {}
        assert stored_in(influx, kinds) == {}
        influx.fault("")
        for day in (0, 1):  # of the shards that this may run in
            at_ns = (real_now_ms() + day * 86_400_000) * 1_000_000
            line = f'nursing_room,device_id=somebody air_celsius="warm" {at_ns}'.encode()
            answer = urllib3.request(
                "POST", f"{influx.url}/api/v2/write?bucket={BUCKET}&precision=ns", body=line,
                headers={"Authorization": f"Token {TOKEN}"},
            )  # fmt: skip
            assert answer.status == 204, answer.data

        it.restart(FLEET_INFLUXDB_URL=influx.url)
        it.wait("the drain to flow", it.drain_flows, LIMIT_S)
        it.wait("refused points to be set aside", lambda: set(it.in_quarantine()[0]) == it.rooms(), LIMIT_S)
        problems = it.doctor("InfluxDB's field types", "air_celsius is string there")
        assert "Series refuses points" in problems
        assert "drop the measurement" in problems["InfluxDB's field types"]["fix"]
        influxql(influx, 'DROP MEASUREMENT "nursing_room"')
        it.more_telemetry()
        it.stand_still()

        def each_point_is_in_one_place():
            stored, (aside, _), marks = stored_in(influx, kinds), it.in_quarantine(), it.marks()
            return all(
                sorted({*stored[name], *aside[name]}) == list(range(1, mark + 1)) and set(stored[name])
                for name, mark in marks.items()
            )

        it.wait("every committed message in the series or in the quarantine", each_point_is_in_one_place, LIMIT_S)
        stored, (aside, reasons) = stored_in(influx, kinds), it.in_quarantine()
        assert set(aside) == it.rooms(), "of all other kinds nothing was refused"
        assert all(not set(stored[name]) & set(aside[name]) for name in it.rooms())
        assert all("field type conflict" in reason for reason in reasons)
        assert set(stored) >= set(it.fleet)
