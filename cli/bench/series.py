"""What a line costs on the way from the spool into InfluxDB, and how fast a backlog is caught up with.

The spool holds a simulated day: `lines` readings of the fleet's bikes, as the ingester appends them. Then the real
drain writes it into a real InfluxDB on this machine, while somebody still lives. InfluxDB's own limit is measured in
the same run: the bodies of the whole backlog, ready and compressed, written by a bare loop into a fresh server, with as
many connections as the drain has, without and with the one of live data. CPU is that of this process; the server's
stands beside it.
"""

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from isal import igzip

from cli.bench.load import DEVICES, bench_device, reading
from cli.bench.outage import resident_from_now_mb
from cli.bench.rig import BenchError
from cli.chaos.influx import BUCKET, TOKEN, InfluxServer
from cli.chaos.processes import ChaosError
from cli.clock import real_now_ms
from cli.processes import cpu_seconds, resident_mb
from cloud.adapters.influx_http import InfluxHttp
from cloud.model import Quarantined
from cloud.ports import SeriesError, SeriesPoint
from cloud.timeseries.drain import DrainOptions, SeriesDrain
from cloud.timeseries.lines import encode_lines
from cloud.timeseries.points import PointMaker
from cloud.timeseries.position import PositionFile
from cloud.timeseries.ready import LineMaker, Ready, body_of
from cloud.timeseries.segments import SpoolBatch
from cloud.timeseries.spool import Spool
from cloud.timeseries.touched import TouchedWindows
from fleet import envelope

APPEND_RECORDS: Final = 2_000
LIVE_BATCH_RECORDS: Final = 200
LIVE_EVERY_S: Final = 0.1
DAY_MS: Final = 86_400_000
SAMPLE_LINES: Final = 100_000
"""Of the measurement of the long way."""
REPEATS: Final = 3


class _Influx:
    """The server, on an event loop of its own thread."""

    def __init__(self, directory: Path) -> None:
        self.server = InfluxServer(directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="influx", daemon=True)
        self._thread.start()
        self._do(self.server.start())

    @property
    def url(self) -> str:
        """The server itself, without the proxy that gives others the write path of 2.x."""
        return self.server.direct_url

    def close(self) -> None:
        self._do(self.server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except ChaosError as error:
            raise BenchError(str(error)) from error


class _Costs:
    """CPU seconds of this process by step, as the threads that did them say."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        began = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + time.thread_time() - began


class _TimedSpool(Spool):
    """The spool; what reading it costs is noted."""

    costs: _Costs

    def read(self, position: int, bytes_max: int = APPEND_RECORDS * 500) -> SpoolBatch:
        with self.costs.of("read_spool"):
            return super().read(position, bytes_max)


class _TimedLines(LineMaker):
    """The same for making lines."""

    costs: _Costs

    def ready(self, records: Sequence[bytes], received_at_ms: Sequence[int]) -> Ready:
        with self.costs.of("lines"):
            return super().ready(records, received_at_ms)


class _TimedDrain(SeriesDrain):
    """The real drain with those."""

    def time(self, costs: _Costs) -> None:
        self._lines = _TimedLines(self._maker)
        self._lines.costs = costs


class _Lines:
    """`cloud.ports.SeriesSink` on `/write`: 1.x has no `/api/v2/write`; the rest is what `InfluxSeries` does."""

    takes_lines = True

    def __init__(self, url: str, database: str, touched: TouchedWindows, costs: _Costs) -> None:
        self._http = InfluxHttp(url, TOKEN, timeout_s=60)
        self._touched = touched
        self._database = database
        self._costs = costs
        self.live_delays_s: list[float] = []

    async def write(self, points: Sequence[SeriesPoint]) -> None:
        await asyncio.to_thread(self._write, points)
        with self._costs.of("roll_up_marks"):
            await self._touched.mark(points)
        if points[0].device_id == LIVE_DEVICE:  # live data comes in batches of its own
            now_s = time.monotonic()
            self.live_delays_s += [now_s - point.fields["odometer_metres"] for point in (points[0], points[-1])]

    def count(self) -> int:
        return _held(self._http, self._database)

    def close(self) -> None:
        self._http.close()

    def _write(self, points: Sequence[SeriesPoint]) -> None:
        with self._costs.of("gzip"):
            body = igzip.compress(body_of(points), 1)
        with self._costs.of("http"):
            self._http.write_compressed(body, database=self._database, policy="")


LIVE_DEVICE: Final = "bench-live"


def measure(directory: Path, lines: int) -> dict[str, Any]:
    """Run it; raises BenchError unless the server then holds every line, once."""
    began_ms = real_now_ms() - DAY_MS
    spool = _filled(directory / "spool", lines, began_ms)
    end = spool.synced_position
    influx = _Influx(directory / "influxdb")
    try:
        result: dict[str, Any] = {"lines": lines} | asyncio.run(_catch_up(influx, spool, directory, lines))
    finally:
        influx.close()
    # Afterwards, so that what it holds in memory does not hide what the drain takes.
    records = [_record(number % DEVICES, 1 + number // DEVICES, began_ms, lines) for number in range(SAMPLE_LINES)]
    result["long_way"] = _long_way(records)
    bodies = list(_bodies(spool, end))
    spool.close()
    at_once = DrainOptions().bodies_at_once
    limits = {
        writers: _limit(directory / f"limit-{writers}", bodies, lines, writers) for writers in (at_once, at_once + 1)
    }
    limit = max(limits.values())
    result["influxdb_limit_lines_per_second"] = limit
    result["influxdb_limit_by_connections"] = limits
    result["ratio_to_limit"] = round(result["lines_per_second"] / limit, 2)
    return result


def _record(device: int, seq: int, began_ms: int, lines: int) -> bytes:
    at_ms = began_ms + seq * (DAY_MS // (1 + lines // DEVICES))
    made = reading(at_ms, device, seq)
    return _envelope(bench_device(device), seq, at_ms, made)


def _envelope(device_id: str, seq: int, at_ms: int, made: dict[str, Any]) -> bytes:
    payload = msgspec.Raw(msgspec.json.encode({"readings": [made]}))
    boot_epoch = envelope.boot_epoch(1, 1)
    return envelope.encode(
        envelope.Envelope(1, "bike", device_id, boot_epoch, envelope.Lane.TELEMETRY, seq, at_ms, payload)
    )


def _filled(folder: Path, lines: int, began_ms: int) -> _TimedSpool:
    spool = _TimedSpool(folder, consumers=["series", "limit"], bytes_max=lines * 1_000 + (1 << 30))
    for start in range(0, lines, APPEND_RECORDS):
        batch = [
            _record(number % DEVICES, 1 + number // DEVICES, began_ms, lines)
            for number in range(start, min(lines, start + APPEND_RECORDS))
        ]
        spool.append(batch, [began_ms] * len(batch))
    spool.sync()
    return spool


def _long_way(records: Sequence[bytes]) -> dict[str, float]:
    """CPU µs per line of what does not fit the short way: decoded to a point, and formatted."""
    maker = PointMaker()
    points, decode_us = _timed(lambda: [point for raw in records for point in maker.points(raw)], len(records))
    _, lines_us = _timed(lambda: encode_lines(points), len(points))
    return {"decode_us_per_line": decode_us, "encode_us_per_line": lines_us}


def _timed(work: Callable[[], Any], count: int) -> tuple[Any, float]:
    best, result = math.inf, None
    for _ in range(REPEATS):
        began = time.thread_time()
        result = work()
        best = min(best, time.thread_time() - began)
    return result, round(best / count * 1e6, 3)


def _bodies(spool: Spool, end: int) -> Iterator[bytes]:
    """The backlog, as the drain cuts and compresses it."""
    maker, position, bytes_max = LineMaker(PointMaker()), 0, DrainOptions().batch_bytes_max
    while position < end:
        batch = spool.read(position, min(bytes_max, end - position))
        yield igzip.compress(body_of(maker.ready(batch.envelopes, batch.received_at_ms).points), 1)
        position = batch.next_position


def _limit(directory: Path, bodies: Sequence[bytes], lines: int, writers: int) -> int:
    """Lines per second of ready bodies, into a server of their own; raises BenchError unless it holds them all."""
    influx = _Influx(directory)
    http = InfluxHttp(influx.url, TOKEN, timeout_s=60)
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(partial(_write_ready, http, BUCKET), bodies))
        seconds = time.monotonic() - began
        held = _held(http, BUCKET)
    finally:
        http.close()
        influx.close()
    if held != lines:
        raise BenchError(f"InfluxDB holds {held} points of {lines} that were written by a bare loop")
    return round(lines / seconds)


def _held(http: InfluxHttp, database: str) -> int:
    series = http.query('SELECT count("message_seq") FROM "bike"', database=database)
    return int(series[0]["values"][0][1]) if series else 0


def _write_ready(http: InfluxHttp, database: str, body: bytes) -> None:
    """Until it is taken: a server that is overrun says so, and its limit is what it takes in spite of that."""
    while True:
        try:
            http.write_compressed(body, database=database, policy="")
        except SeriesError as error:
            if error.retry_after_s is None:
                raise BenchError(str(error)) from error
            time.sleep(error.retry_after_s)
        else:
            return


async def _catch_up(influx: _Influx, spool: _TimedSpool, directory: Path, lines: int) -> dict[str, Any]:
    costs = spool.costs = _Costs()
    store = _Lines(influx.url, BUCKET, TouchedWindows(directory / "windows.json"), costs)
    refused: list[Quarantined] = []

    async def quarantine(items: Sequence[Quarantined]) -> None:
        refused.extend(items)

    drain = _TimedDrain(
        spool, store, positions=PositionFile(directory / "position"), quarantine=quarantine,
        randomness=random.Random(1), options=DrainOptions(),
    )  # fmt: skip
    drain.time(costs)
    memory_mb, own, server = resident_from_now_mb(os.getpid()), time.process_time(), cpu_seconds(influx.server.pid)
    began, goal = time.monotonic(), spool.synced_position
    async with asyncio.TaskGroup() as group:  # somebody still lives while the backlog drains
        living = group.create_task(_live_on(spool, drain, goal, costs))
        while drain.backlog_position < goal:
            await drain.step()
    live_seq, most_mb = living.result()
    seconds, own_s = time.monotonic() - began, time.process_time() - own
    server_s = cpu_seconds(influx.server.pid) - server
    await drain.catch_up()
    held = store.count()
    store.close()
    if held != lines + live_seq or refused:
        raise BenchError(f"InfluxDB holds {held} points of {lines + live_seq}, {len(refused)} were refused")
    delays = sorted(store.live_delays_s) or [0.0]
    total = lines + live_seq
    steps = costs.seconds
    own_s -= steps.pop("live", 0.0)  # making it is the devices' work
    steps["rest"] = own_s - sum(steps.values())
    return {
        "live_lines_beside": live_seq, "seconds": round(seconds, 2), "lines_per_second": round(total / seconds),
        "cpu_us_per_line": round(own_s / total * 1e6, 3),
        "cpu_us_per_line_by_step": {step: round(one_s / total * 1e6, 3) for step, one_s in steps.items()},
        "influxdb_cpu_us_per_line": round(server_s / total * 1e6, 3),
        "live_delay_ms_p50": round(delays[len(delays) // 2] * 1000), "live_delay_ms_max": round(delays[-1] * 1000),
        "rss_mb_grown": round(most_mb - memory_mb, 1),
    }  # fmt: skip


async def _live_on(spool: Spool, drain: SeriesDrain, goal: int, costs: _Costs) -> tuple[int, float]:
    """Live readings until the backlog is written: how many there were, and the most memory seen, MB."""
    seq, most_mb = 0, 0.0

    def append() -> None:
        with costs.of("live"):
            batch = [_live(seq + number) for number in range(1, LIVE_BATCH_RECORDS + 1)]
            spool.append(batch, [real_now_ms()] * len(batch))
            spool.sync()

    while drain.backlog_position < goal:
        await asyncio.sleep(LIVE_EVERY_S)  # first of all: not before the backlog was found
        await asyncio.to_thread(append)
        seq += LIVE_BATCH_RECORDS
        most_mb = max(most_mb, resident_mb(os.getpid()))
    return seq, most_mb


def _live(seq: int) -> bytes:
    """A live reading; its odometer is the moment at which it was made, so that its delay can be told."""
    at_ms = real_now_ms()
    made = reading(at_ms, 0, seq) | {"odometer_metres": time.monotonic()}
    return _envelope(LIVE_DEVICE, seq, at_ms, made)
