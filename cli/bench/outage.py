"""A day of telemetry while InfluxDB is away, in every way it can be, and whether all of it is there afterwards.

The cloud runs as `fleet serve` does, with a real InfluxDB. The day's messages go through the broker while the
server is killed, and answers 401, 400 and 503, a share of the day each; then it works again and the spool is
drained. Every point is read back and compared with what was sent, by device, moment and values.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, func, select

from cli.bench.load import DEVICES, bench_device, reading
from cli.bench.rig import BenchError, Load, Rig
from cli.chaos.influx import BUCKET, TOKEN, InfluxServer
from cli.chaos.processes import ChaosError
from cli.clock import real_now_ms
from cli.processes import cpu_seconds, resident_mb
from cloud.adapters.influx_http import InfluxHttp
from cloud.tables import quarantine

T = TypeVar("T")

DAY_MS: Final = 86_400_000
FAULTS: Final = (0, 401, 400, 503)
"""0: killed with SIGKILL."""
FAULT_NAMES: Final = {0: "down", 401: "401", 400: "400", 503: "503"}
QUIET_S_MAX: Final = 120.0
"""Without any message committed, or any byte drained, it is broken; the whole may take as long as it takes."""
COMPARED: Final = ("battery_percent", "latitude", "temperature_celsius", "signal_dbm")


class _Influx:
    """The server on an event loop of its own, for a bench that blocks."""

    def __init__(self, directory: Path) -> None:
        self.server = InfluxServer(directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="influx", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there; raises BenchError for what the server can't do."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except ChaosError as error:
            raise BenchError(str(error)) from error

    def close(self) -> None:
        """End server and loop."""
        self.do(self.server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def measure(directory: Path, messages: int) -> dict[str, Any]:
    """Run it; raises BenchError unless InfluxDB holds exactly what was sent."""
    per_fault = max(1, messages // DEVICES // len(FAULTS))
    per_device = per_fault * len(FAULTS)
    step_ms = DAY_MS // per_device
    began_ms = real_now_ms() - DAY_MS
    influx = _Influx(directory / "influxdb")
    try:
        influx.do(influx.server.start())
        _make_database(influx.server.direct_url)
        influx.do(influx.server.fault(FAULTS[0]))
        devices = {bench_device(number): "bike" for number in range(DEVICES)}
        with Rig(directory, devices, influx.server.settings()) as rig:
            memory_before_mb = resident_from_now_mb(rig.cloud.pid)
            memory_mb = _outage(rig, influx, per_fault, began_ms, step_ms)
            backlog_bytes = rig.metric("fleet_drain_lag_bytes")
            if influx.do(_count(influx.server)):
                raise BenchError("InfluxDB holds points although it was away: the outage was none")
            cpu_before, healed_s = cpu_seconds(rig.cloud.pid), time.monotonic()
            influx.do(influx.server.heal())
            _wait_for(rig, "fleet_drain_lag_bytes", lambda lag: lag == 0, "the spool to be drained")
            drained_s, cpu_s = time.monotonic() - healed_s, cpu_seconds(rig.cloud.pid) - cpu_before
            set_aside = rig.read(_set_aside)
        lost, surplus = _compare(influx, per_device, began_ms, step_ms)
    finally:
        influx.close()
    total = per_device * DEVICES
    return {
        "messages": total,
        "simulated_hours": 24,
        "faults": [FAULT_NAMES[fault] for fault in FAULTS],
        "lost": lost,
        "surplus": surplus,
        "quarantined": set_aside,
        "backlog_mb": round(backlog_bytes / 1e6, 1),
        "drained_s": round(drained_s, 1),
        "drained_points_per_second": round(total / drained_s),
        "drain_cpu_us_per_point": round(cpu_s / total * 1e6, 2),
        "rss_mb_before": round(memory_before_mb, 1),
        "rss_mb_in_outage": round(memory_mb, 1),
        "rss_mb_grown_in_outage": round(memory_mb - memory_before_mb, 1),
    }


def resident_from_now_mb(pid: int) -> float:
    """Resident memory now, MB; from now on `resident_mb` says the peak since then. Raises BenchError."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # forgets the peak of the start
    except OSError as error:
        raise BenchError(f"the peak of memory cannot be measured: {error}") from error
    return resident_mb(pid)


def _outage(rig: Rig, influx: _Influx, per_fault: int, began_ms: int, step_ms: int) -> float:
    """Send the day, a share in each kind of outage; returns the most memory that was seen, MB."""
    most_mb = 0.0
    for turn, fault in enumerate(FAULTS):
        if turn:
            influx.do(influx.server.heal_into(fault))
        load = Load(rig.broker.services_port, 1 + turn * per_fault, per_fault * DEVICES, began_ms, 0, step_ms=step_ms)
        load.go()
        total = (turn + 1) * per_fault * DEVICES
        try:
            seen_mb = _wait_for(
                rig, 'fleet_messages_total{lane="telemetry"}', lambda count, total=total: count >= total,  # type: ignore[misc]
                f"{total} messages to be committed",
            )  # fmt: skip
        finally:
            load.stop()  # all of it has arrived, or never will
        most_mb = max(most_mb, seen_mb)
    return most_mb


def _wait_for(rig: Rig, name: str, is_done: Callable[[float], bool], what: str) -> float:
    """Wait as long as the metric `name` moves; returns the most memory that the cloud had meanwhile, MB."""
    most_mb, value = 0.0, rig.metric(name)
    while not is_done(value):
        before = value
        rig.wait(lambda: rig.metric(name) != before, QUIET_S_MAX, f"{what} ({name} stood still at {before:.0f})", 0.5)  # noqa: B023
        value = rig.metric(name)
        most_mb = max(most_mb, resident_mb(rig.cloud.pid))
    return max(most_mb, resident_mb(rig.cloud.pid))


def _make_database(url: str) -> None:
    """For certain: InfluxDB answers 200 before it carries a statement out, so the end of the answer is waited for."""
    http = InfluxHttp(url, TOKEN)
    try:
        http.query(f"CREATE DATABASE {BUCKET}", post=True)
    finally:
        http.close()


async def _count(server: InfluxServer) -> int:
    """Points that InfluxDB holds."""
    return await server.count("bike", "seq")


def _set_aside(tx: Connection) -> int:
    return int(tx.execute(select(func.count()).select_from(quarantine)).scalar_one())


def _compare(influx: _Influx, per_device: int, began_ms: int, step_ms: int) -> tuple[int, int]:
    """(points that were sent and are not there, points that are there and were not sent or stand there twice)."""
    lost = surplus = 0
    for number in range(DEVICES):
        sent = Counter(
            (at, *(made[name] for name in COMPARED))
            for seq in range(1, per_device + 1)
            for at in [began_ms + seq * step_ms]
            for made in [reading(at, number, seq)]
        )
        found: Counter[tuple[Any, ...]] = Counter()
        points = influx.do(influx.server.readings("bike", bench_device(number)))
        for at, rows in points.get(bench_device(number), {}).items():
            found.update((at, *(row.get(name) for name in COMPARED)) for row in rows)
        lost += (sent - found).total()
        surplus += (found - sent).total()
    return lost, surplus
