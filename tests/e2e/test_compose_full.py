"""Both profiles without containers: their services as docker-compose.yml describes them, as plain processes.

What is read from the file: environment, secrets, commands, health checks and the order of the start. What stands in for
it: PostgreSQL 15, InfluxDB 1.6.7 behind nginx, Debian's Mosquitto; no Grafana.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import yaml

from cli.broker import Broker, free_port
from cli.broker_configuration import BrokerTls
from cli.processes import Child, guard
from cloud.identity.pki_folder import PkiFolder
from scripts import tidy
from tests.adapters.influx_fixture import TOKEN, influx  # noqa: F401
from tests.adapters.postgres_fixture import postgresql_server, postgresql_url  # noqa: F401

pytestmark = [pytest.mark.e2e, pytest.mark.mosquitto, pytest.mark.timeout(280)]
ROOT = tidy.ROOT
HEALTHY_S_MAX = 90
FULL = ["ingest", "dispatch", "api", "watchdog"]
CORE = ["cloud", "watchdog-core"]
"""In an order that the dependencies allow."""
WATCHED = {"watchdog": "ingest", "watchdog-core": "cloud"}
NOT_HERE = {"PostgreSQL's durability", "InfluxDB's reader", "Grafana"}
"""The test's server runs without fsync, its InfluxDB knows one token only, and there is no Grafana."""


class Composed:
    """Services of the file by name, with hosts, ports and paths of this machine in place of the containers'."""

    def __init__(self, folder, database_url, influx_url):
        self.folder = folder
        self.services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self.secrets = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["secrets"]
        self._make_secrets(database_url)
        pki = PkiFolder(folder / "deploy/secrets/pki")
        tls = BrokerTls(
            pki.root_file("devices"), pki.root_file("services"), *pki.issued_files("broker"), pki.revocation_file
        )
        self.broker = Broker(folder / "broker", tls=tls)
        self.ports = {name: free_port() for name in (*FULL, *CORE)}
        watchdog = "watchdog" if database_url else "watchdog-core"
        self.hosts = {
            "influxdb:8086": influx_url.removeprefix("http://"), "grafana:3000": "127.0.0.1:1",
            "watchdog:8090": f"127.0.0.1:{self.ports[watchdog]}",
            **{f"{name}:8000": f"127.0.0.1:{self.ports[name]}" for name in ("ingest", "dispatch", "api", "cloud")},
        }  # fmt: skip
        for name in ("tokens", "reader", "backups", "bin"):
            (folder / name).mkdir()
        fleet = folder / "bin/fleet"
        fleet.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli.main "$@"\n')
        fleet.chmod(0o755)
        self.children = {}

    def _make_secrets(self, database_url):
        deploy = self.folder / "deploy"
        deploy.mkdir()
        shutil.copy(ROOT / "deploy/make_secrets.sh", deploy)
        environment = {**os.environ, "FLEET": f"{sys.executable} -m cli.main", "PYTHONPATH": str(ROOT)}
        subprocess.run([deploy / "make_secrets.sh", "localhost"], check=True, capture_output=True, env=environment)
        (deploy / "secrets/influxdb_admin_token").chmod(0o600)
        (deploy / "secrets/influxdb_admin_token").write_text(TOKEN)
        (deploy / "secrets/database_url").chmod(0o600)
        (deploy / "secrets/database_url").write_text(database_url)

    def run_folder(self, name):
        """What stands below /run/secrets in the container."""
        place = self.folder / "run" / name
        if not place.exists():
            place.mkdir(parents=True)
            for one in self.services[name].get("secrets", []):
                source, target = (one, one) if isinstance(one, str) else (one["source"], one["target"])
                (place / target).symlink_to(self.folder / self.secrets[source]["file"].removeprefix("./"))
        return place

    def here(self, name, text):
        """A text of the file with what it names replaced by what that is on this machine."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))
        for old, new in self.hosts.items():
            text = text.replace(f"http://{old}", f"http://{new}")
        for old, new in (
            ("/run/secrets", self.run_folder(name)), ("/run/tokens", self.folder / "tokens"),
            ("/run/reader", self.folder / "reader"), ("/backups", self.folder / "backups"),
        ):  # fmt: skip
            text = text.replace(old, str(new))
        return text

    def environment(self, name):
        """As compose, the image and its entrypoint make it together."""
        given = {key: self.here(name, value) for key, value in self.services[name]["environment"].items()}
        volume = next((one.split(":")[0] for one in self.services[name]["volumes"] if ":/data" in one), name)
        given["FLEET_DATA_DIRECTORY"] = str(self.folder / "volumes" / volume)
        given["FLEET_HTTP_PORT"] = str(self.ports.get(WATCHED.get(name, name), 1))
        given["FLEET_HTTP_HOST"] = "127.0.0.1"
        if "FLEET_PKI_DIRECTORY" in given:
            given["FLEET_PKI_DIRECTORY"] = str(self.folder / "deploy/secrets/pki")
        given |= {"FLEET_BROKER_HOST": "localhost", "FLEET_BROKER_PORT": str(self.broker.services_port)}
        if "FLEET_DEVICES_BROKER_HOST" in given:
            given |= {"FLEET_DEVICES_BROKER_HOST": "localhost", "FLEET_DEVICES_BROKER_PORT": str(self.broker.port)}
        shown = subprocess.run(
            ["sh", "-c", self.here(name, (ROOT / "deploy/entrypoint.sh").read_text()), "sh", "env"],
            env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return dict(line.split("=", 1) for line in shown.stdout.splitlines() if line.startswith("FLEET_"))

    def command(self, name):
        words = [self.here(name, word) for word in self.services[name]["command"]]
        assert words[0] == "fleet"
        return words[1:]

    def start(self, name):
        assert {other for other in self.services[name].get("depends_on", {}) if other in self.ports} <= set(
            self.children
        )
        child = Child(name, self.command(name), self.folder / f"{name}.log", self.environment(name))
        self.children[name] = child
        child.start()

    def wait_until_healthy(self, name):
        """By the command of its health check."""
        test = [self.here(name, word) for word in self.services[name]["healthcheck"]["test"]]
        assert test[:3] == ["CMD", "python", "/usr/local/bin/fleet-healthcheck"]
        environment = {"FLEET_HTTP_PORT": str(self.ports[name]), "PATH": os.environ["PATH"]}
        deadline = time.monotonic() + HEALTHY_S_MAX
        while True:
            done = subprocess.run(
                [sys.executable, "-S", str(ROOT / "deploy/healthcheck.py"), *test[3:]], env=environment, check=False,
                capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{name}: {done.stderr} {self.children[name].last_words(5)}"

    def run(self, name, *more, code=0):
        """A service that ends: its standard output as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *self.command(name), *more], capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment(name)}, cwd=ROOT,
        )  # fmt: skip
        assert code is None or done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def prepare_influxdb(self):
        """The start script of `influxdb-setup`; InfluxDB 1.6.7 has no tokens to give, so they lie there already."""
        for path in ("tokens/fleet_influxdb_token", "reader/fleet_influxdb_reader_token"):
            (self.folder / path).write_text(TOKEN)
        given = self.services["influxdb-setup"]["environment"]
        environment = {key: self.here("influxdb-setup", value) for key, value in given.items()}
        places = [
            self.folder / "tokens",
            self.folder / "reader",
            self.run_folder("influxdb-setup") / "influxdb_admin_token",
        ]
        subprocess.run(
            ["/bin/sh", str(ROOT / "deploy/prepare_influxdb.sh"), *map(str, places)], check=True, cwd=ROOT,
            env={**environment, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
        )  # fmt: skip

    def close(self):
        for child in self.children.values():
            child.kill()
            child.stop()
        self.broker.stop()


@contextmanager
def composed_in(folder, database_url, influx_url):
    made = Composed(folder, database_url, influx_url)
    made.broker.start()
    guard.watch(made.broker._process, folder)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def composed(tmp_path, postgresql_url, influx):  # noqa: F811
    with composed_in(tmp_path, postgresql_url, influx.url) as made:
        yield made


def test_the_profile_core_starts_in_its_order_is_healthy_calls_for_help_and_backs_itself_up(tmp_path):
    with composed_in(tmp_path, "", "http://127.0.0.1:1") as it:
        for name in CORE:
            it.start(name)
            it.wait_until_healthy(name)
        assert it.run("backup-core", "--once", "--json")["rows"] > 0
        deadline = time.monotonic() + HEALTHY_S_MAX
        while not (report := it.run("doctor-core", "--json", code=None))["healthy"]:
            assert time.monotonic() < deadline, report
        found = {one["check"]: one["verdict"] for one in report["findings"]}
        for check in ("Synthetic call", "Broker's access list", "Schema", "Backups", "Cloud", "Revocation list"):
            assert found[check] == "ok", check


@pytest.mark.postgresql
@pytest.mark.influxdb
def test_the_profile_full_starts_in_its_order_is_healthy_calls_for_help_and_backs_itself_up(composed):
    composed.prepare_influxdb()
    for name in FULL:
        composed.start(name)
        composed.wait_until_healthy(name)
    made = composed.run("backup", "--once", "--json")
    assert made["rows"] > 0
    deadline = time.monotonic() + HEALTHY_S_MAX
    while True:
        report = composed.run("doctor", "--json", code=3)
        problems = {one["check"]: one for one in report["findings"] if one["verdict"] == "problem"}
        if set(problems) == NOT_HERE:
            break
        assert time.monotonic() < deadline, problems
    found = {one["check"]: one for one in report["findings"]}
    for check in (
        "Synthetic call",
        "Broker's access list",
        "InfluxDB's levels",
        "Schema",
        "Backups",
        "Revocation list",
    ):
        assert found[check]["verdict"] == "ok", found[check]
    assert {check for check in found if check.startswith("Cloud ")} >= {
        f"Cloud 127.0.0.1:{composed.ports[name]}" for name in ("api", "ingest", "dispatch")
    }
