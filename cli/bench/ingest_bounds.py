"""What this machine allows at best, so that a figure of ours can be read: nothing of ours runs here but the load.

Broker: its CPU per message when `mosquitto_sub` takes everything. Memory: copying. Disk: a forced write of an empty
record and of a whole batch. Compression: one line of line protocol at level 1. SQL: the smallest durable commit.
"""

import os
import sqlite3
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from isal import igzip, isal_zlib

from cli.bench import ingest_rivals
from cli.bench.ingest_flow import IngestLoad
from cli.bench.ingest_load import Fleet, sent_envelope
from cli.broker import Broker
from cli.clock import real_now_ms
from cli.demo.verdict import percentiles
from cloud.timeseries.lines import encode_lines
from cloud.timeseries.points import PointMaker

DEVICES: Final = 400
BATCH_MESSAGES: Final = 2_000
COPY_BYTES: Final = 64 << 20
BODY_LINES: Final = 5_000
REPEATS_MIN: Final = 5


def measure(directory: Path, disk: Path, seconds: float, messages: int) -> dict[str, Any]:
    """`seconds` for each part; `disk` is the folder whose disk is measured. Raises BenchError or BrokerError."""
    ingest_rivals.mosquitto_sub()
    fleet = Fleet(DEVICES, real_now_ms())
    payloads = [sent_envelope(fleet, number % DEVICES, 1 + number // DEVICES)[1] for number in range(BODY_LINES)]
    batch = b"".join(payloads[:BATCH_MESSAGES])
    copied_s = min(_times(_copy_of(bytearray(COPY_BYTES)), seconds))
    return {
        "cores": os.cpu_count(),
        "message_bytes": round(sum(map(len, payloads)) / len(payloads)),
        "broker": _broker(directory, fleet, messages),
        "memcpy_gb_per_second": round(COPY_BYTES / copied_s / 1e9, 1),
        "memcpy_us_per_message": round(copied_s / COPY_BYTES * len(payloads[0]) * 1e6, 4),
        "file_system": _file_system(disk),
        "fdatasync_4_kb_ms": _forced(disk / "forced", bytes(4096), seconds),
        "fdatasync_batch_ms": _forced(disk / "forced", batch, seconds),
        "fdatasync_batch_kb": round(len(batch) / 1000),
        "sqlite_full_commit_ms": _commits(disk / "commits.db", seconds),
        "json_decode_us_per_message": _per(_decoder(payloads), BODY_LINES, seconds),
        "gzip_1_us_per_line": _compression(payloads, seconds),
    }


def _broker(directory: Path, fleet: Fleet, messages: int) -> dict[str, Any]:
    broker = Broker(directory / "broker")
    broker.start()
    try:
        load = IngestLoad(fleet, broker.services_port)
        try:
            contest = ingest_rivals.Contest(load, broker.services_port, broker.pid, (), 0.0, messages)
            return ingest_rivals.against_mosquitto_sub(contest, directory)
        finally:
            load.stop()
    finally:
        broker.stop()


def _times(work: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds that each call took, for so long and at least a few times."""
    found: list[float] = []
    until_s = time.perf_counter() + seconds
    while len(found) < REPEATS_MIN or time.perf_counter() < until_s:
        began_s = time.perf_counter()
        work()
        found.append(time.perf_counter() - began_s)
    return found


def _copy_of(source: bytearray) -> Callable[[], None]:
    target = bytearray(len(source))

    def copy() -> None:
        target[:] = source

    copy()  # the pages must be there
    return copy


def _decoder(payloads: list[bytes]) -> Callable[[], None]:
    decode = msgspec.json.Decoder().decode

    def work() -> None:
        for raw in payloads:
            decode(raw)

    return work


def _per(work: Callable[[], Any], count: int, seconds: float) -> float:
    return round(min(_times(work, seconds)) / count * 1e6, 3)


def _forced(path: Path, data: bytes, seconds: float) -> dict[str, float | None]:
    """Milliseconds of appending `data` and forcing it to disk, as the spool does with a batch."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def work() -> None:
        os.write(file, data)
        os.fdatasync(file)

    try:
        return _ms(_times(work, seconds))
    finally:
        os.close(file)
        path.unlink()


def _commits(path: Path, seconds: float) -> dict[str, float | None]:
    """Milliseconds of changing one row, durably (WAL, `synchronous=FULL`), as the state is kept on one machine."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE mark (id INTEGER PRIMARY KEY, seq INTEGER) STRICT")
        database.execute("INSERT INTO mark VALUES (1, 0)")
        return _ms(_times(lambda: database.execute("UPDATE mark SET seq = seq + 1"), seconds))
    finally:
        database.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


def _ms(times_s: list[float]) -> dict[str, float | None]:
    found = percentiles([value * 1000 for value in times_s])
    return {**found, "p50": round(sorted(times_s)[len(times_s) // 2] * 1000, 3)}


def _compression(payloads: list[bytes], seconds: float) -> dict[str, Any]:
    """CPU µs per line of a body, and how much smaller it gets."""
    maker = PointMaker()
    lines = encode_lines([point for raw in payloads for point in maker.points(raw)])
    count = lines.count(b"\n") + 1
    small = igzip.compress(lines, 1)
    return {
        "isal": _per(lambda: igzip.compress(lines, 1), count, seconds),
        "zlib": _per(lambda: zlib.compress(lines, 1), count, seconds),
        "crc32": _per(lambda: isal_zlib.crc32(lines), count, seconds),
        "line_bytes": round(len(lines) / count),
        "ratio": round(len(lines) / len(small), 1),
    }


def _file_system(folder: Path) -> str:
    """Type of the file system a folder lies on; empty where /proc does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    path = str(folder.resolve())
    above = [(len(place), kind) for _, place, kind, *_ in mounts if path.startswith(place.rstrip("/") + "/")]
    return max(above)[1] if above else ""
