"""Several ingesters as processes of their own on one real PostgreSQL and one real broker."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, func, select, text

from cli.bench.load import GENERATION
from cli.bench.rig import STORAGE_ID, BenchError
from cli.broker import Broker, free_port
from cli.chaos.postgresql import running_server
from cli.chaos.processes import ChaosError
from cli.clock import real_now_ms
from cli.processes import Child, cpu_seconds, guard
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import device, shard_lease
from fleet.topics import SHARD_COUNT

T = TypeVar("T")

START_S_MAX: Final = 60.0
FENCED: Final = re.compile(r"LeaseLostError")


@dataclass(slots=True)
class Ingester:
    """One process with a data directory of its own; the same directory is the same ingester."""

    name: str
    directory: Path
    child: Child
    log_file: Path
    http_port: int
    read_bytes: int = 0
    """How much of its log was looked at."""

    @property
    def owner(self) -> str:
        """What its leases are held by; empty before its first start."""
        try:
            return (self.directory / "ingester-id").read_text().strip()
        except FileNotFoundError:
            return ""

    def ready(self) -> bool:
        """Whether it works on its shards."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=1) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def metric(self, name: str) -> float:
        """One sample of `/metrics`, 0.0 before it exists."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rpartition(" ")[2])
        return 0.0

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process."""
        os.kill(self.child.pid, number)

    def was_fenced(self) -> bool:
        """Whether its log says, since the last question, that it ended because it had lost its leases."""
        with self.log_file.open("rb") as log:
            log.seek(self.read_bytes)
            new = log.read()
        self.read_bytes += len(new)
        return FENCED.search(new.decode(errors="replace")) is not None


@dataclass(slots=True)
class IngesterRig:
    """What a run has; made by `ingester_rig`."""

    directory: Path
    url: str
    database: SqlDatabase
    broker: Broker
    settings: dict[str, str]
    postmaster: int
    ingesters: list[Ingester] = field(default_factory=list)

    def add(self) -> Ingester:
        """Start one more."""
        name = f"ingester-{len(self.ingesters) + 1}"
        directory, http_port = self.directory / name, free_port()
        directory.mkdir()
        log_file = self.directory / f"{name}.log"
        child = Child(name, ["serve", "--role", "ingest"], log_file, {
            "FLEET_DATA_DIRECTORY": str(directory), "FLEET_HTTP_PORT": str(http_port), "FLEET_SHARDS": "share",
            "FLEET_DATABASE_URL": self.url, "FLEET_BROKER_PORT": str(self.broker.port), "FLEET_LOG_LEVEL": "warning",
            "FLEET_COMMAND_KEY_FILE": str(self.directory / "command.key"), **self.settings,
        })  # fmt: skip
        one = Ingester(name, directory, child, log_file, http_port)
        self.ingesters.append(one)
        child.start()
        return one

    @property
    def running(self) -> list[Ingester]:
        """Those whose process lives."""
        return [one for one in self.ingesters if one.child.running]

    def read(self, work: Callable[[Connection], T]) -> T:
        """Look into the database."""
        return self.database.read_here(work)

    def holders(self) -> Counter[str]:
        """Shards by the name of the ingester that holds them now; those whose lease has run out are nobody's."""
        names = {one.owner: one.name for one in self.ingesters}
        rows = self.read(
            lambda tx: tx.scalars(
                select(shard_lease.c.owner).where(
                    shard_lease.c.shard < SHARD_COUNT, shard_lease.c.lease_until >= real_now_ms()
                )
            ).all()
        )
        return Counter(names.get(owner, "") for owner in rows)

    def settled(self) -> bool:
        """Whether all that run are ready and share all shards evenly."""
        running = self.running
        held = self.holders()
        if set(held) != {one.name for one in running} or sum(held.values()) != SHARD_COUNT:
            return False
        return max(held.values()) - min(held.values()) <= 1 and all(one.ready() for one in running)

    def wait(self, holds: Callable[[], bool], limit_s: float, what: str, every_s: float = 0.1) -> float:
        """Poll until `holds`, starting again what died; returns how long that took. Raises BenchError."""
        began_s = time.monotonic()
        while not holds():
            if time.monotonic() - began_s > limit_s:
                words = "\n".join(f"{one.name}: {one.child.last_words(3)}" for one in self.ingesters)
                raise BenchError(f"waited {limit_s:.0f} s for {what} in vain ({dict(self.holders())}):\n{words}")
            time.sleep(every_s)
        return time.monotonic() - began_s

    def sql_cpu_seconds(self) -> dict[int, float]:
        """CPU time of each process of the database server that lives now."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and _parent_of(folder) == self.postmaster:
                found[int(folder.name)] = cpu_seconds(int(folder.name))
        return found

    def series(self) -> dict[str, dict[int, list[str]]]:
        """What the series of all ingesters together say: device → message number → fields, one entry per point."""
        found: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for one in self.ingesters:
            connection = sqlite3.connect(f"file:{one.directory / 'series.db'}?mode=ro", uri=True, timeout=10)
            rows = connection.execute(
                "SELECT device_id, json_extract(fields, '$.message_seq'), at_ns, fields FROM point "
                "JOIN series ON id = series_id WHERE json_extract(fields, '$.message_seq') IS NOT NULL"
            )
            for device_id, seq, at_ns, fields in rows:
                found[device_id][seq].append(f"{at_ns} {fields}")
            connection.close()
        return found


def _parent_of(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


@contextmanager
def ingester_rig(directory: Path, devices: list[str], settings: dict[str, str]) -> Iterator[IngesterRig]:
    """A database and a broker on loopback, `devices` (bikes) enrolled with a granted generation; no ingester yet.

    Raises:
        BenchError: PostgreSQL is missing or did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    broker = Broker(directory / "broker", persist=False)
    try:
        with running_server(directory / "postgresql") as url:
            upgrade(url)
            database = SqlDatabase(url)
            rows = [
                {"device_id": device_id, "kind": "bike", "name": device_id, "enrolled_at": real_now_ms(),
                 "generation": GENERATION, "storage_id": STORAGE_ID}
                for device_id in devices
            ]  # fmt: skip
            database.write_here(lambda tx: tx.execute(device.insert(), rows))
            postmaster = int((directory / "postgresql/data/postmaster.pid").read_text().splitlines()[0])
            broker.start()
            rig = IngesterRig(directory, url, database, broker, settings, postmaster)
            try:
                yield rig
            finally:
                for one in rig.running:
                    one.signal(signal.SIGCONT)
                    one.child.kill()
                for one in rig.ingesters:
                    one.child.stop()
                broker.stop()
                database.close()
    except ChaosError as error:
        raise BenchError(str(error)) from error


class Journals:
    """The process of `cli.bench.journals`."""

    def __init__(self, port: int, devices: int, rate: float, log_file: Path) -> None:
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.bench.journals", str(port), str(devices), str(rate), str(real_now_ms())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        guard.watch(self._process)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""
        self._last: dict[str, Any] = {"made": 0, "acknowledged": 0}

    def now(self) -> dict[str, Any]:
        """The last thing it said. Raises BenchError when it died."""
        assert self._process.stdout is not None
        data = self._process.stdout.read() or b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._last = json.loads(lines[-1])
        if self._process.poll() not in {None, 0}:
            raise BenchError(f"the journals' process ended with {self._process.returncode}")
        return self._last

    def end(self) -> None:
        """No more new messages; the rest is sent until it is acknowledged."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"end\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def gaps_and_quarantined(tx: Connection) -> tuple[int, int]:
    """Ranges that devices had to declare lost, and messages set aside: both are 0 when nothing went wrong."""
    return tuple(int(tx.scalar(select(func.count()).select_from(text(name))) or 0) for name in ("gap", "quarantine"))  # type: ignore[return-value]
