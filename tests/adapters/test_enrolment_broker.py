"""A box's whole life through the doors: command line, HTTP, a real broker with client certificates."""

import datetime as dt
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from secure_broker import SecureBroker, now

from cli.broker import free_port
from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.identity import pki
from edge.identity import facts_of
from fleet.topics import INGESTER_NAME

pytestmark = pytest.mark.mosquitto

ROOT = Path(__file__).parents[2]
WAIT_S = 40.0
DEVICE = "room-007"


class Site:
    """`fleet serve` beside a broker; everything else is done with commands."""

    def __init__(self, folder, broker):
        self.folder = folder
        self.broker = broker
        self.port = free_port()
        own = broker.folder / "identities"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        self.environment = plain | {
            "FLEET_DATA_DIRECTORY": str(folder / "data"), "FLEET_HTTP_PORT": str(self.port),
            "FLEET_BROKER_HOST": "localhost", "FLEET_BROKER_PORT": str(broker.process.services_port),
            "FLEET_BROKER_CA_FILE": str(broker.pki.root_file("services")),
            "FLEET_BROKER_CERTIFICATE_FILE": str(own / f"{INGESTER_NAME}.pem"),
            "FLEET_BROKER_KEY_FILE": str(own / f"{INGESTER_NAME}.key"),
            "FLEET_BROKER_PID_FILE": str(broker.process.pid_file), "FLEET_PKI_DIRECTORY": str(broker.pki.directory),
            "FLEET_DEVICES_BROKER_HOST": "localhost", "FLEET_DEVICES_BROKER_PORT": str(broker.process.port),
            "FLEET_SERIES": "off", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def popen(self, *arguments, log):
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "cli.main", *map(str, arguments)], cwd=ROOT, env=self.environment, stdout=file,
                stderr=file,
            )  # fmt: skip

    @contextmanager
    def running(self, *arguments, log):
        process = self.popen(*arguments, log=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def said(self, log):
        return (self.folder / log).read_text(errors="replace")

    def fleet(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments), "--json"], cwd=ROOT, env=self.environment,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def rows(self, table):
        """Read beside the running cloud; a command for each look would take seconds."""
        database = SqlDatabase(f"sqlite:///{self.folder / 'data' / 'state.db'}")
        try:
            return database.read_here(lambda tx: list(tx.execute(table.select())))
        finally:
            database.close()

    def certificate(self, origin):
        return next((row for row in self.rows(tables.certificate) if row.origin == origin), None)


def eventually(condition, what, site=None, log=None):
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        if condition():
            return
        time.sleep(0.1)  # foreign processes have no event
    told = site.said(log)[-3000:] if site is not None else ""
    raise AssertionError(f"not within {WAIT_S} s: {what}\n{told}")


@pytest.fixture
def site(tmp_path):
    with SecureBroker(tmp_path / "broker_folder", []) as broker:
        made = Site(tmp_path, broker)
        with made.running("serve", log="serve.log"):
            eventually(made.ready, "the cloud is ready", made, "serve.log")
            yield made


def test_a_box_is_enrolled_renews_its_certificate_and_is_revoked_for_good(site):
    made = site.fleet("devices", "enrol", DEVICE, "--kind", "nursing_room", "--serial", "FB-0042")
    box = site.folder / "box"
    enrol = ("edge", "enrol", "--server", site.url, "--claim", made["claim"], "--serial", "fb-0042",
             "--directory", box, "--transport", "tcp://127.0.0.1:9")  # fmt: skip
    with site.running(*enrol, log="enrol.log") as enrolling:
        eventually(lambda: site.rows(tables.enrolment), "the box asks", site, "enrol.log")
        (waiting,) = site.rows(tables.enrolment)
        eventually(lambda: "Waiting" in site.said("enrol.log"), "the box says what it waits for", site, "enrol.log")
        assert waiting.fingerprint in re.sub(r"\s", "", site.said("enrol.log")), "installer and admin see the same"
        site.fleet("devices", "approve", DEVICE, "--fingerprint", waiting.fingerprint[:16])
        assert enrolling.wait(WAIT_S) == 0, site.said("enrol.log")
    identity = box / "data" / "identity" / "device.pem"
    assert identity.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in box.iterdir() if path.name.startswith("enrolment")] == []
    assert site.certificate("enrolment").fingerprint == waiting.fingerprint
    grow_old(site, identity)
    with site.running("edge", "run", "--config", box / "edge.toml", log="edge.log") as agent:
        renewed = lambda: (row := site.certificate("renewal")) is not None and row.proven_at is not None  # noqa: E731
        eventually(renewed, "the certificate is renewed and proven", site, "edge.log")
        serial = site.certificate("renewal").serial
        eventually(lambda: facts_of(identity).serial == serial, "it is in place on the box", site, "edge.log")
        assert [path.name for path in identity.parent.iterdir()] == ["device.pem"]
        site.fleet("devices", "revoke", DEVICE, "--reason", "the box was stolen")
        eventually(lambda: "was revoked" in site.said("edge.log"), "the box says that it is revoked", site, "edge.log")
        assert agent.poll() is None, "it waits for a person, and does not spin"
        assert site.said("edge.log").count("was revoked") == 1
    assert all(row.revoked_at is not None for row in site.rows(tables.certificate))


def grow_old(site, identity):
    """The same key with a certificate that was issued 61 days ago: two thirds of its life are over."""
    key = pki.load_key(identity.read_bytes())
    issued = site.broker.pki.device_authority().leaf(DEVICE, key.public_key(), now() - dt.timedelta(days=61))
    identity.write_bytes(pki.key_pem(key) + issued.chain)
