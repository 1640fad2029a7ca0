"""deploy/: the broker's configuration and start script on a real Mosquitto, with the certificates the script makes."""

import asyncio
import datetime as dt
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from secure_broker import Party, RefusedError

from cli.broker import find_mosquitto, free_port
from cloud.identity import pki
from cloud.identity.pki_folder import PkiFolder
from cloud.identity.revocation_list import WATCHED_S, RevocationList, WatchedReload, revoked_of
from edge.identity import load_tls_context
from fleet.topics import DownChannel, UpChannel, down, up
from scripts import tidy

pytestmark = pytest.mark.mosquitto
WAIT_S = 10


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(tidy.ROOT / "deploy/make_secrets.sh", folder)
    script = folder / "make_secrets.sh"
    environment = {**os.environ, "FLEET": f"{sys.executable} -m cli.main", "PYTHONPATH": str(tidy.ROOT)}

    def run(*devices):
        subprocess.run([script, "localhost", *devices], check=True, capture_output=True, env=environment)

    run("bike-001", "bike-002")
    kept = ("command_key", "pki/trust/devices.pem", "pki/issued/broker.key", "pki/issued/devices/bike-001.pem")
    before = [(folder / "secrets" / name).read_bytes() for name in kept]
    run("room-001")
    assert [(folder / "secrets" / name).read_bytes() for name in kept] == before, "a second run keeps what is there"
    assert (folder / "secrets/pki/issued/devices/room-001.pem").exists()
    return folder / "secrets"


class Deployed:
    """A broker that runs deploy/mosquitto, with paths and ports of this machine, by its own start script."""

    def __init__(self, secrets, folder):
        self.pki = PkiFolder(secrets / "pki")
        self.devices_port, self.services_port = free_port(), free_port()
        for name in ("acl", "openssl.cnf", "run.sh"):
            shutil.copy(tidy.ROOT / "deploy/mosquitto" / name, folder)
        text = (tidy.ROOT / "deploy/mosquitto/mosquitto.conf").read_text()
        for old, new in (
            (" /pki/", f" {secrets / 'pki'}/"),
            ("listener 8883", f"listener {self.devices_port} 127.0.0.1"),
            ("listener 8884", f"listener {self.services_port} 127.0.0.1"),
            ("log_dest stderr", f"log_dest stderr\nuser {'root' if os.geteuid() == 0 else 'mosquitto'}"),
            ("/mosquitto/config/acl", str(folder / "acl")),
            ("/run/secrets/broker_certificate", str(secrets / "pki/issued/broker.pem")),
            ("/run/secrets/broker_key", str(secrets / "pki/issued/broker.key")),
        ):
            assert old in text
            text = text.replace(old, new)
        (folder / "mosquitto.conf").write_text(text)
        environment = {**os.environ, "OPENSSL_CONF": str(folder / "openssl.cnf")}
        environment["PATH"] += os.pathsep + str(Path(find_mosquitto()).parent)
        self._log_file = folder / "log"
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", str(folder / "run.sh"), str(folder / "mosquitto.conf")],
                stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        deadline = time.monotonic() + WAIT_S
        while not (listens(self.devices_port) and listens(self.services_port)):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()

    def log(self):
        return self._log_file.read_text(errors="replace")

    def stop(self):
        self.process.terminate()
        return self.process.wait(WAIT_S)

    async def device(self, name):
        context = load_tls_context(self.pki.root_file("services"), *self.pki.issued_files(name))
        return await Party.connect(self.devices_port, context, name)

    async def ingester(self):
        context = load_tls_context(self.pki.root_file("services"), *self.pki.issued_files("fleet.ingester"))
        return await Party.connect(self.services_port, context, "fleet.ingester-1")


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def deployed(secrets, tmp_path):
    if find_mosquitto() is None:
        pytest.skip("Mosquitto is not installed; `make test` installs it when it is root")
    made = Deployed(secrets, tmp_path)
    yield made
    if made.process.poll() is None:
        made.stop()


async def test_devices_and_cloud_speak_through_the_deployed_broker(deployed):
    ingester, device, other = await asyncio.gather(
        deployed.ingester(), deployed.device("bike-001"), deployed.device("bike-002")
    )
    await ingester.subscribe("f/#")
    for party in (device, other):
        await party.subscribe("#", "f/+/+/down/#")
    forged = [up("bike-002", UpChannel.EVENT), down("bike-001", DownChannel.COMMAND), "other/topic"]
    await device.publish_all([(topic, b"forged") for topic in forged])
    await device.publish_all([(up("bike-001", UpChannel.EVENT), b"own")])
    await ingester.publish_all([(down("bike-001", DownChannel.COMMAND), b"for 1")])
    for party in (ingester, device, other):
        await party.settle()
    assert ingester.received == [(up("bike-001", UpChannel.EVENT), b"own")]
    assert set(device.received) == {(down("bike-001", DownChannel.COMMAND), b"for 1")}
    assert other.received == []
    for party in (ingester, device, other):
        await party.close()


async def test_the_start_script_has_the_broker_read_a_new_list_and_no_garbage(deployed):
    now = dt.datetime.now(dt.UTC)
    folder = deployed.pki
    folder.issue_device("bike-009", now, replace=True)
    certificate = pki.load_certificate(folder.issued_files("bike-009")[0].read_bytes())
    revocations = RevocationList(folder.device_authority, folder.revocation_file, WatchedReload())
    await (await deployed.device("bike-009")).close()
    state = await revocations.publish([revoked_of(certificate, now)], now)
    with pytest.raises(RefusedError):
        await deployed.device("bike-009")
    await (await deployed.device("bike-001")).close()
    folder.revocation_file.write_bytes(b"garbage")  # which Mosquitto would read as: nobody is revoked
    await asyncio.sleep(WATCHED_S)
    with pytest.raises(RefusedError):
        await deployed.device("bike-009")
    assert "is no revocation list" in deployed.log()
    await revocations.publish(state.revoked, now)
    with pytest.raises(RefusedError):
        await deployed.device("bike-009")
    await (await deployed.device("bike-001")).close()


def test_the_start_script_ends_with_its_broker_and_its_broker_with_it(deployed):
    assert deployed.stop() == 0
    assert not listens(deployed.devices_port)


def test_a_crashed_broker_ends_the_start_script_so_that_its_supervisor_starts_it_again(deployed):
    children = Path(f"/proc/{deployed.process.pid}/task/{deployed.process.pid}/children").read_text().split()
    brokers = [pid for pid in children if "mosquitto" in Path(f"/proc/{pid}/comm").read_text()]
    os.kill(int(brokers[0]), 9)
    assert deployed.process.wait(WAIT_S) != 0
