"""CPU per telemetry message on the way that counts: receive, validate, twin, rules, spool fsync, commit, acks.

The cloud runs exactly as `fleet serve` does, apart from `series=off`: writing the series is a projection
at its own pace, and is measured on its own. Before a figure is given, twins, spool and alarms are compared
with what was sent. The naive way runs on the same broker with the same messages, right after.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from cli.bench.load import DEVICES, LOW_BATTERY_DEVICES, bench_device
from cli.bench.rig import BenchError, Load, Rig
from cli.broker import free_port
from cli.clock import real_now_ms
from cli.processes import cpu_seconds, resident_mb
from cloud.tables import alarm, twin
from cloud.timeseries.spool import Spool

ARRIVE_S_MAX: Final = 600.0
NAIVE_MESSAGES_MAX: Final = 100_000
"""The naive way is slower than the publisher; more than this would overrun the broker's queue and be dropped."""
WARM_UP_MESSAGES: Final = 20_000


def measure(directory: Path, messages: int, rate: float, *, naive: bool, tls: bool) -> dict[str, Any]:
    """Run it; raises BenchError if the cloud does not hold what was sent."""
    devices = {bench_device(number): "bike" for number in range(DEVICES)}
    per_device = messages // DEVICES
    messages = per_device * DEVICES
    at_ms = real_now_ms()
    with Rig(directory, devices, {"FLEET_SERIES": "off"}, tls=tls) as rig:
        warm_up = WARM_UP_MESSAGES // DEVICES
        _send(rig, 1, warm_up * DEVICES, 0, at_ms, total=warm_up * DEVICES)
        load = Load(rig.broker.services_port, warm_up + 1, messages, at_ms, rate, rig.load_identity)
        cloud_before, broker_before = cpu_seconds(rig.cloud.pid), cpu_seconds(rig.broker.pid)
        started = time.monotonic()
        load.go()
        total = warm_up * DEVICES + messages
        _wait_for(rig, total)
        seconds = time.monotonic() - started
        cloud_cpu = cpu_seconds(rig.cloud.pid) - cloud_before
        broker_cpu = cpu_seconds(rig.broker.pid) - broker_before
        load.result()
        memory_mb = resident_mb(rig.cloud.pid)
        rig.wait(lambda: rig.read(_committed) == total, 10, "the twins to be committed")
        alarms = rig.read(_alarmed_devices)
        rig.cloud.stop()
        _compare(directory, total, alarms)
        result: dict[str, Any] = {
            "messages": messages,
            "listener": "mutual TLS" if tls else "plain loopback",
            "rate_asked_per_second": rate or None,
            "messages_per_second": round(messages / seconds),
            "cpu_us_per_message": round(cloud_cpu / messages * 1e6, 2),
            "broker_cpu_us_per_message": round(broker_cpu / messages * 1e6, 2),
            "rss_mb_max": round(memory_mb, 1),
        }
        if naive and not tls:
            naive_us = _naive(rig.broker.port, min(messages, NAIVE_MESSAGES_MAX), rate, at_ms)
            result["naive_cpu_us_per_message"] = round(naive_us, 2)
            result["ratio_naive"] = round(naive_us / result["cpu_us_per_message"], 2)
    return result


def _send(rig: Rig, first_seq: int, messages: int, rate: float, at_ms: int, *, total: int) -> None:
    load = Load(rig.broker.services_port, first_seq, messages, at_ms, rate, rig.load_identity)
    load.go()
    _wait_for(rig, total)
    load.result()


def _wait_for(rig: Rig, total: int) -> None:
    name = 'fleet_messages_total{lane="telemetry"}'
    rig.wait(lambda: rig.metric(name) >= total, ARRIVE_S_MAX, f"{total} messages to be committed", every_s=0.5)


def _committed(tx: Connection) -> int:
    return int(tx.execute(select(func.coalesce(func.sum(twin.c.telemetry_seq), 0))).scalar_one())


def _alarmed_devices(tx: Connection) -> set[str]:
    return set(tx.execute(select(alarm.c.device_id).where(alarm.c.key != "silent")).scalars())


def _compare(directory: Path, total: int, alarms: set[str]) -> None:
    expected = {bench_device(number) for number in range(LOW_BATTERY_DEVICES)}
    if alarms != expected:
        raise BenchError(
            f"alarms for {sorted(alarms ^ expected)[:5]} are not what the messages ask for: are the rules on?"
        )
    # Without a series the spool lets go of what the twins hold; what is left of each device must lead up to its mark.
    found: defaultdict[str, list[int]] = defaultdict(list)
    header = msgspec.json.Decoder(_Header)
    spool = Spool(directory / "cloud" / "spool")
    position = spool.first_position
    while (batch := spool.read(position)).envelopes:
        for raw in batch.envelopes:
            record = header.decode(raw)
            found[record.device_id].append(record.seq)
        position = batch.next_position
    released = spool.first_position > 0
    spool.close()
    for number in range(DEVICES):
        seqs = found[bench_device(number)]
        first = seqs[0] if released and seqs else 1
        if seqs != list(range(first, total // DEVICES + 1)):
            raise BenchError(f"the spool does not hold what {bench_device(number)} sent: {len(seqs)} messages")


class _Header(msgspec.Struct):
    device_id: str
    seq: int


def _naive(port: int, messages: int, rate: float, at_ms: int) -> float:
    sink_port = free_port()
    module = [sys.executable, "-m", "cli.bench.naive"]
    sink = subprocess.Popen([*module, "sink", str(sink_port)])
    receiver = subprocess.Popen(
        [*module, "receive", str(port), str(sink_port), str(messages)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        load = Load(port, 1, messages, at_ms, rate)
        load.go()
        found = json.loads(receiver.stdout.readline())
        load.result()
        return float(found["cpu_us_per_message"])
    finally:
        for process in (receiver, sink):
            process.kill()
            process.wait()
