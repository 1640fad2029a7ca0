"""What benches share: a broker, the cloud as `fleet serve` runs it, devices in its database, and waiting."""

import datetime as dt
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Connection

from cli.broker import Broker, BrokerTls, free_port
from cli.clock import real_now_ms
from cli.demo.stage import make_identities, put_identity
from cli.processes import Child
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import device
from fleet import topics

T = TypeVar("T")

READY_S_MAX: Final = 60.0
LOAD: Final = "bench.load"
STORAGE_ID: Final = "b" * 32


class BenchError(RuntimeError):
    """What was measured is not what was meant: the figure would be worth nothing."""


class Rig:
    """`with Rig(folder, devices) as rig:` a broker without TLS on loopback and the cloud, ready."""

    def __init__(
        self,
        directory: Path,
        devices: Mapping[str, str],
        settings: Mapping[str, str] | None = None,
        *,
        tls: bool = False,
        simulated: Collection[str] = (),
        broker_tls: BrokerTls | None = None,
    ) -> None:
        """`devices`: id → kind, enrolled with a granted generation, so that messages can begin at once.

        `tls`: mutual TLS as in production, for the cloud, the load (`self.load_identity`) and the devices in
        `simulated` (`self.identities`). `broker_tls`: the same with a stage's certificates, named in `settings`.
        """
        self.directory = directory
        self.identities = directory / "identities"
        self.load_identity: list[str] = []
        if tls:
            broker_tls, own_settings, self.load_identity = _identities(directory, simulated)
            settings = {**(settings or {}), **own_settings}
        self.broker = Broker(directory / "broker", tls=broker_tls, publisher=LOAD)
        self.http_port = free_port()
        self.state_file = directory / "cloud" / "state.db"
        self._devices = devices
        self.cloud = Child("cloud", ["serve"], directory / "cloud.log", {
            "FLEET_DATA_DIRECTORY": str(directory / "cloud"), "FLEET_BROKER_PORT": str(self.broker.services_port),
            "FLEET_HTTP_PORT": str(self.http_port), "FLEET_LOG_LEVEL": "warning", **(settings or {}),
        })  # fmt: skip

    def __enter__(self) -> Self:
        (self.directory / "cloud").mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{self.state_file}"
        upgrade(url)
        database = SqlDatabase(url)
        rows = [
            {"device_id": device_id, "kind": kind, "name": device_id, "enrolled_at": real_now_ms(), "generation": 1,
             "storage_id": STORAGE_ID}
            for device_id, kind in self._devices.items()
        ]  # fmt: skip
        if rows:
            database.write_here(lambda tx: tx.execute(device.insert(), rows))
        database.close()
        self.broker.start()
        self.cloud.start()
        try:
            self.wait(self.ready, READY_S_MAX, "the cloud to be ready")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cloud.stop()
        self.broker.stop()

    def ready(self) -> bool:
        """Whether `/readyz` says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=2) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def metric(self, name: str) -> float:
        """One sample of `/metrics`, 0.0 before it exists."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=30) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rpartition(" ")[2])
        return 0.0

    def wait(self, holds: Callable[[], bool], limit_s: float, what: str, every_s: float = 0.05) -> None:
        """Poll until `holds`; raises BenchError after `limit_s`, or when the cloud died."""
        deadline = time.monotonic() + limit_s
        while not holds():
            if not self.cloud.running:
                raise BenchError(f"the cloud died while waiting for {what}:\n{self.cloud.last_words()}")
            if time.monotonic() > deadline:
                raise BenchError(f"waited {limit_s:.0f} s for {what} in vain:\n{self.cloud.last_words()}")
            time.sleep(every_s)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Look into the cloud's database."""
        database = SqlDatabase(f"sqlite:///{self.state_file}")
        try:
            return database.read_here(work)
        finally:
            database.close()


def _identities(directory: Path, simulated: Collection[str]) -> tuple[BrokerTls, dict[str, str], list[str]]:
    """Keys and certificates of broker, cloud (as its settings), load (authority, certificate, key) and devices."""
    now = dt.datetime.now(dt.UTC)
    folder, tls = make_identities(directory, [topics.INGESTER_NAME, LOAD], now)
    identities, authority = directory / "identities", folder.device_authority()
    for device_id in simulated:
        put_identity(identities, device_id, authority.issue_client(device_id, now))
    cloud = {
        "FLEET_BROKER_CA_FILE": str(tls.services_root),
        "FLEET_BROKER_CERTIFICATE_FILE": str(identities / f"{topics.INGESTER_NAME}.pem"),
        "FLEET_BROKER_KEY_FILE": str(identities / f"{topics.INGESTER_NAME}.key"),
    }
    load = [str(tls.services_root), str(identities / f"{LOAD}.pem"), str(identities / f"{LOAD}.key")]
    return tls, cloud, load


class Load:
    """The publisher process: encodes first, sends when told."""

    def __init__(
        self, port: int, first_seq: int, messages: int, at_ms: int, rate: float, identity: Sequence[str] = (), *,
        step_ms: int = 0,
    ) -> None:  # fmt: skip
        """As `cli.bench.load.chunks`; `rate` in messages per second, 0 = as fast as the broker takes it."""
        arguments = [str(port), str(first_seq), str(messages), str(at_ms), str(step_ms), str(rate), *identity]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli.bench.load", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def go(self) -> None:
        """Start sending."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, float]:
        """Wait for the end: messages and seconds."""
        assert self._process.stdout is not None
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        self._process.wait()
        return found

    def stop(self) -> None:
        """End it early."""
        self._process.kill()
        self._process.wait()
