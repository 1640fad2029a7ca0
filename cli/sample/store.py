"""A real InfluxDB of our own that holds a sample fleet, in a folder that may be kept and gone on with."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

from cli.bars import bar
from cli.broker import free_port
from cli.processes import guard
from cli.sample.fleet import DAY_MS, HOUR_MS, SampleFleet
from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.influx_rollup import InfluxRollup
from cloud.ports import SeriesError
from cloud.timeseries.levels import DATABASE, HOUR, LEVELS, ROLLED, Level
from cloud.timeseries.lines import encode_lines

BODY_LINES: Final = 10_000
START_S_MAX: Final = 120.0
REQUEST_S_MAX: Final = 300.0
STATE: Final = "sample.json"
MINUTES_MS: Final = 8 * DAY_MS
"""Boards show minutes for up to a week."""
ROLLED_AT_ONCE: Final = 2
VERSION: Final = 2
"""Of what the made-up fleet does: a folder that an older one filled is not gone on with."""


class SampleError(Exception):
    """One line for people."""


class SampleStore:
    """InfluxDB 1.x on loopback with its data in `folder`; a context that ends the server."""

    def __init__(self, folder: Path, *, days: float, devices: int, seed: int, end_ms: int) -> None:
        """`end_ms` counts for a new folder alone: one that is there keeps its own.

        Raises:
            SampleError: no server is installed, or the folder holds another fleet.
        """
        if shutil.which("influxd") is None:
            raise SampleError("influxd is not installed (Debian: apt-get install influxdb)")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        wanted: dict[str, Any] = {"days": days, "devices": devices, "seed": seed, "version": VERSION}
        path = folder / STATE
        self._state: dict[str, Any] = (
            json.loads(path.read_text())
            if path.exists()
            else wanted | {"end_ms": end_ms // HOUR_MS * HOUR_MS, "hours_written": 0, "rolled": 0}
        )
        if {name: self._state.get(name) for name in wanted} != wanted:
            raise SampleError(f"{folder} holds another fleet ({path.name}); choose an empty folder")
        self.fleet = SampleFleet(seed, devices)
        self.end_ms: int = self._state["end_ms"]
        self.start_ms = self.end_ms - max(1, round(days * (DAY_MS // HOUR_MS))) * HOUR_MS
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        environment = os.environ | {
            "INFLUXDB_REPORTING_DISABLED": "true", "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{free_port()}", "INFLUXDB_HTTP_LOG_ENABLED": "false",
            "INFLUXDB_HTTP_BIND_ADDRESS": self.url.removeprefix("http://"),
            "INFLUXDB_META_DIR": str(self._folder / "meta"), "INFLUXDB_DATA_DIR": str(self._folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(self._folder / "wal"), "INFLUXDB_HTTP_MAX_ROW_LIMIT": "0",
            "INFLUXDB_DATA_CACHE_MAX_MEMORY_SIZE": "2g",
        }  # fmt: skip
        with (self._folder / "influxd.log").open("ab") as log:
            self._process = subprocess.Popen(["influxd"], env=environment, stdout=log, stderr=log, process_group=0)
        guard.watch(self._process, self._folder)
        self._await_server()
        self._http = InfluxHttp(self.url, "", timeout_s=REQUEST_S_MAX)
        self._make()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait()

    def fill(self, levels: tuple[Level, ...] = ROLLED) -> None:
        """Write what is missing, hour by hour, and roll it up as the service does. Raises SampleError."""
        hours = range(self.start_ms, self.end_ms, HOUR_MS)
        try:
            with bar("writing hours", len(hours)) as advance:
                advance(self._state["hours_written"])
                for start_ms in hours[self._state["hours_written"] :]:
                    self._write(start_ms)
                    self._keep(hours_written=self._state["hours_written"] + 1)
                    advance(1)
            self._roll_up(levels)
        except SeriesError as error:
            raise SampleError(f"{error}; run it again, it goes on here") from error

    def _write(self, start_ms: int) -> None:
        points = self.fleet.hour(start_ms)
        while batch := list(islice(points, BODY_LINES)):
            self._http.write(encode_lines(batch), database=DATABASE, policy="raw")

    def _roll_up(self, levels: tuple[Level, ...]) -> None:
        """Minutes by the hour, hours by the day: what is read at once stays small."""
        rollup = InfluxRollup(self._http, DATABASE)
        names = rollup.measurements()
        work = [
            [(level, name, start_ms, start_ms + stretch_ms) for name in names]
            for level in levels
            for stretch_ms in [DAY_MS if level is HOUR else HOUR_MS]
            for start_ms in range(
                self.start_ms if level is HOUR else max(self.start_ms, self.end_ms - MINUTES_MS),
                self.end_ms,
                stretch_ms,
            )
        ]
        with bar("rolling up", len(work)) as advance, ThreadPoolExecutor(ROLLED_AT_ONCE) as pool:
            advance(self._state["rolled"])
            for stretch in work[self._state["rolled"] :]:
                list(pool.map(lambda one: rollup.roll_here(*one), stretch))
                self._keep(rolled=self._state["rolled"] + 1)
                advance(1)

    def _keep(self, **changes: int) -> None:
        self._state |= changes
        temporary = self._folder / f"{STATE}.new"
        temporary.write_text(json.dumps(self._state))
        temporary.replace(self._folder / STATE)

    def _make(self) -> None:
        raw, *others = LEVELS
        statements = [
            f"CREATE DATABASE {DATABASE} WITH DURATION INF SHARD DURATION {raw.shard_days}d NAME {raw.policy}"
        ]
        statements += [
            f"CREATE RETENTION POLICY {one.policy} ON {DATABASE} DURATION INF REPLICATION 1 "
            f"SHARD DURATION {one.shard_days}d"
            for one in others
        ]
        for statement in statements:
            self._http.query(statement, post=True)

    def _await_server(self) -> None:
        until_s = time.monotonic() + START_S_MAX
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/ping", timeout=5).close()
            except urllib.error.HTTPError:
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > until_s:
                    raise SampleError(f"InfluxDB did not start; see {self._folder / 'influxd.log'}") from error
                time.sleep(0.1)
            else:
                return
