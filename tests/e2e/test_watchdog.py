"""The watchdog against the real processes: each stage of the way of a call is broken in turn, and named in time.

Its seconds are scaled down: a synthetic call every 0.3 s with 1.5 s to come back instead of every 10 s with 10 s, so
that "announced within 30 s" reads "within 4.5 s" here.
"""

import json
import os
import signal
import sqlite3
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli.bench.rig import Rig
from cli.broker import free_port
from cli.processes import Child
from cloud.supervision.chain import DEADLINE_S, INTERVAL_S
from cloud.synthetic import PROBE_CHANNEL, ROOM
from cloud.tables import call, event, inbox, outbox

INTERVAL = 0.3
DEADLINE = 1.5
WITHIN_S = 30.0 * (INTERVAL + DEADLINE) / (INTERVAL_S + DEADLINE_S)
"""What 30 s are in this test's time."""
SLACK_S = 6.0
"""A process that shares its machine with a whole test run; asking what is broken takes up to 6 s besides."""


class Ear:
    """Stands for whom the watchdog tells, and for the dead man's switch."""

    def __init__(self):
        self.told, self.pings = [], []
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                ear.told.append((time.monotonic(), json.loads(body)))
                self._end()

            def do_GET(self):
                ear.pings.append(time.monotonic())
                self._end()

            def _end(self):
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def wait(self, stage, since_s, within_s):
        """Seconds from `since_s` until that stage (None: whole again) was told."""
        while time.monotonic() < since_s + within_s:
            for at_s, body in list(self.told):
                if at_s >= since_s and body["stage"] == stage:
                    return at_s - since_s
            time.sleep(0.02)
        raise AssertionError(f"{stage} was not told within {within_s} s: {self.told}")


class Scene:
    def __init__(self, folder):
        self.ear = Ear()
        self.port = free_port()
        settings = {"FLEET_PROBE_URL": f"http://127.0.0.1:{self.port}", "FLEET_SERIES": "off"}
        self.rig = Rig(folder, {}, settings)
        self.dog = Child(
            "watchdog", ["watchdog", "--interval-s", str(INTERVAL), "--deadline-s", str(DEADLINE)], folder / "dog.log",
            {
                **settings, "FLEET_DATA_DIRECTORY": str(folder / "cloud"), "FLEET_HTTP_PORT": str(self.rig.http_port),
                "FLEET_BROKER_PORT": str(self.rig.broker.services_port),
                "FLEET_WATCHDOG_URLS": json.dumps([f"{self.ear.url}/told"]),
                "FLEET_DEADMAN_URL": f"{self.ear.url}/alive",
            },
        )  # fmt: skip

    def __enter__(self):
        self.rig.__enter__()
        self.dog.start()
        self.rig.wait(lambda: len(self.ear.pings) >= 2, 20, "the first synthetic calls to come back")
        return self

    def __exit__(self, *_):
        self.dog.stop()
        self.rig.__exit__(None, None, None)
        self.ear.server.shutdown()

    def status(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
            return json.load(answer)

    def healed(self, since_s):
        """Whole again, and the dead man's switch is pinged again."""
        self.ear.wait(None, since_s, 20)
        assert self.status()["whole"]
        pings = len(self.ear.pings)
        self.rig.wait(lambda: len(self.ear.pings) > pings, 5, "a ping after the repair")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with Scene(tmp_path_factory.mktemp("watchdog")) as scene:
        yield scene


def test_a_quiet_time_announces_nothing_pings_the_switch_and_shows_no_person_anything(scene):
    told, pings = len(scene.ear.told), len(scene.ear.pings)
    scene.rig.wait(lambda: len(scene.ear.pings) >= pings + 8, 20, "eight whole rounds")
    assert scene.ear.told[told:] == []
    assert scene.status()["round_trip_s"] < DEADLINE
    rows = scene.rig.read(lambda tx: tx.execute(call.select()).all())
    assert len(rows) >= 8
    assert {row.device_id for row in rows} == {ROOM}
    assert {row.purpose for row in rows} == {"synthetic"}
    assert sum(row.state != "cleared" for row in rows) <= 1, "each round clears its call in its room"
    told = scene.rig.read(lambda tx: tx.execute(outbox.select().where(outbox.c.channel != PROBE_CHANNEL)).all())
    calls = {row.id for row in rows}
    assert [row for row in told if row.reference in calls or ROOM in row.notification] == []
    seen = scene.rig.read(lambda tx: tx.execute(inbox.select()).all())
    assert [row for row in seen if ROOM in row.notification] == []
    assert scene.rig.read(lambda tx: {row.device_id for row in tx.execute(event.select())}) == {ROOM}


def frozen(pid):
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def broken_broker(scene):
    return frozen(scene.rig.broker.pid)


def killed_broker(scene):
    scene.rig.broker.kill()
    return scene.rig.broker.start


def frozen_cloud(scene):
    return frozen(scene.rig.cloud.pid)


def killed_cloud(scene):
    scene.rig.cloud.kill()
    return scene.rig.cloud.start


def locked_database(scene):
    connection = sqlite3.connect(scene.rig.state_file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")

    def let_go():
        connection.execute("ROLLBACK")
        connection.close()

    return let_go


def idle_dispatch(scene):
    """The workers see no row of the probe's any more, as if nobody worked."""
    connection = sqlite3.connect(scene.rig.state_file, isolation_level=None, timeout=10)
    connection.execute(
        "CREATE TRIGGER stuck AFTER INSERT ON outbox BEGIN UPDATE outbox SET given_up_at = 1 WHERE id = NEW.id; END"
    )

    def mend():
        connection.execute("DROP TRIGGER stuck")
        connection.close()

    return mend


def dead_channel(scene):
    """The delivery leaves, and its receiver has forgotten how to hand it on."""
    connection = sqlite3.connect(scene.rig.state_file, isolation_level=None, timeout=10)
    connection.execute(
        "CREATE TRIGGER lost AFTER INSERT ON outbox BEGIN "
        "UPDATE outbox SET notification = replace(notification, '\"event_id\"', '\"lost_id\"') WHERE id = NEW.id; END"
    )

    def mend():
        connection.execute("DROP TRIGGER lost")
        connection.close()

    return mend


@pytest.mark.parametrize(
    ("break_it", "stage"),
    [
        (broken_broker, "broker"),
        (killed_broker, "broker"),
        (frozen_cloud, "ingest"),
        (killed_cloud, "ingest"),
        (locked_database, "sql"),
        (idle_dispatch, "dispatch"),
        (dead_channel, "channel"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_dead_stage_is_named_on_a_way_outside_of_dispatch_and_the_switch_is_not_pinged(scene, break_it, stage):
    assert scene.status()["whole"]
    began_s = time.monotonic()
    mend = break_it(scene)
    try:
        took_s = scene.ear.wait(stage, began_s, WITHIN_S + SLACK_S)
        pings = len(scene.ear.pings)
        assert scene.status()["stage"] == stage
        print(f"{break_it.__name__}: {stage} announced after {took_s:.2f} s")
        assert len(scene.ear.pings) == pings
    finally:
        healed_from_s = time.monotonic()
        mend()
    scene.healed(healed_from_s)
