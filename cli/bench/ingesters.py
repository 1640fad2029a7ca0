"""One ingester, then several, on one real PostgreSQL and one real broker: how throughput grows, and what limits it.

Each ingester is bounded to a share of one CPU that lies below what the broker uses, so that one machine can say what
several would: with bounds, a second ingester is more, not merely another user of the same processor. Everything that
was sent must have been taken exactly once, or there is no figure. Faults while they work are `ingester_faults`.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select, text

from cli.bench.cpu_share import CpuShare
from cli.bench.ingester_rig import IngesterRig, gaps_and_quarantined, ingester_rig
from cli.bench.load import DEVICES, bench_device
from cli.bench.rig import BenchError, Load
from cli.clock import real_now_ms
from cli.processes import cpu_seconds
from cloud.tables import twin

SETTLE_S_MAX: Final = 60.0
ARRIVE_S_MAX: Final = 600.0
WARM_UP_MESSAGES: Final = 8_000
GOAL: Final = 0.9
"""Of what as many ingesters would do if nothing stood between them: 1.8 for two."""
MEASURED_S_MIN: Final = 5.0
FULL: Final = 0.85
"""A processor, or a bound, used to this part counts as used up."""


def measure(directory: Path, ingesters: int, messages: int, cpu_share: float) -> dict[str, Any]:
    """One ingester alone, then `ingesters` of them, with the same messages. Raises BenchError."""
    per_device = messages // DEVICES
    one = _phase(directory / "one", 1, per_device, cpu_share)
    many = _phase(directory / "many", ingesters, per_device, cpu_share)
    ratio = many["messages_per_second"] / one["messages_per_second"]
    # What the same shares would carry, wherever the CPU came from: also on a machine that had other things to do.
    by_cpu = ingesters * one["ingester_cpu_us_per_message"] / many["ingester_cpu_us_per_message"]
    result: dict[str, Any] = {
        "ingesters": ingesters, "messages": per_device * DEVICES, "cpu_share_percent": cpu_share,
        "cpu_share_by": many.pop("cpu_share_by"),
        "ratio": round(ratio, 2), "ratio_by_cpu_per_message": round(by_cpu, 2),
        "goal": f">= {GOAL * ingesters:g}",
        "goal_held": ratio >= GOAL * ingesters, "lost": 0, "doubled": 0,
    }  # fmt: skip
    one.pop("cpu_share_by")
    result |= {f"one_{name}": value for name, value in one.items()}
    return result | {f"all_{name}": value for name, value in many.items()}


def too_short(result: dict[str, Any]) -> str:
    """What to say where so few messages were sent that their time is mostly begin and end; empty: enough were."""
    shortest_s = min(result["one_seconds"], result["all_seconds"])
    if shortest_s >= MEASURED_S_MIN:
        return ""
    return (
        f"the shorter part took {shortest_s} s, which measures begin and end more than work; "
        f"send more --messages, until both take {MEASURED_S_MIN:g} s"
    )


def _phase(directory: Path, ingesters: int, per_device: int, cpu_share: float) -> dict[str, Any]:
    devices = [bench_device(number) for number in range(DEVICES)]
    settings = {"FLEET_SERIES": "off", "FLEET_LEASE_S": "10"}
    with (
        ingester_rig(directory, devices, settings) as rig,
        CpuShare(cpu_share, f"ingesters-{ingesters}") as share,
    ):
        for _ in range(ingesters):
            rig.add()
        rig.wait(rig.settled, SETTLE_S_MAX, "the ingesters to share the devices")
        at_ms, warm_up = real_now_ms(), WARM_UP_MESSAGES // DEVICES
        _send(rig, 1, warm_up, at_ms)
        _wait_for(rig, warm_up * DEVICES)
        for one in rig.ingesters:
            share.bound(one.child.pid)
        used = _Used(rig)
        load = Load(rig.broker.services_port, warm_up + 1, per_device * DEVICES, at_ms, 0)
        used.begin()
        load.go()
        total = (warm_up + per_device) * DEVICES
        _wait_for(rig, total)
        figures = used.end(per_device * DEVICES, cpu_share)
        load.result()
        _compare(rig, warm_up + per_device)
        return {**figures, "cpu_share_by": share.how}


def _send(rig: IngesterRig, first_seq: int, per_device: int, at_ms: int) -> None:
    load = Load(rig.broker.services_port, first_seq, per_device * DEVICES, at_ms, 0)
    load.go()
    load.result()


def _committed(tx: Connection) -> int:
    return int(tx.execute(select(func.coalesce(func.sum(twin.c.telemetry_seq), 0))).scalar_one())


def _twins_written(tx: Connection) -> float:
    """Versions of rows of `twin` so far; the server counts a moment late."""
    query = text("SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'twin'")
    return float(tx.execute(query).scalar_one())


def _log_bytes(tx: Connection) -> float:
    return float(tx.execute(text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")).scalar_one())


def _wait_for(rig: IngesterRig, total: int) -> None:
    def arrived() -> bool:
        if len(rig.running) < len(rig.ingesters):
            raise BenchError("an ingester died: " + "\n".join(one.child.last_words(3) for one in rig.ingesters))
        return rig.read(_committed) >= total

    rig.wait(arrived, ARRIVE_S_MAX, f"{total} messages to be committed", every_s=0.2)


def _compare(rig: IngesterRig, per_device: int) -> None:
    """Marks of every device, and what the ingesters counted, against what was sent."""
    marks = rig.read(lambda tx: dict(tx.execute(select(twin.c.device_id, twin.c.telemetry_seq)).tuples().all()))
    wrong = {device_id: mark for device_id, mark in marks.items() if mark != per_device}
    if wrong or len(marks) != DEVICES:
        raise BenchError(f"{len(marks)} of {DEVICES} devices are known, and these stand elsewhere: {sorted(wrong)[:5]}")
    taken = sum(one.metric('fleet_messages_total{lane="telemetry"}') for one in rig.ingesters)
    if taken != per_device * DEVICES:
        raise BenchError(f"the ingesters took {taken:.0f} messages, {per_device * DEVICES} were sent")
    if any(rig.read(gaps_and_quarantined)):
        raise BenchError("messages were set aside or declared lost")


class _Used:
    """What processes used between `begin` and `end`, and what that says about the limit."""

    def __init__(self, rig: IngesterRig) -> None:
        self._rig = rig
        self._began_s = 0.0
        self._before: dict[str, float] = {}
        self._sql_before: dict[int, float] = {}

    def _now(self) -> dict[str, float]:
        ingesters = self._rig.ingesters
        return {
            "broker": cpu_seconds(self._rig.broker.pid),
            "commit": sum(one.metric("fleet_commit_seconds_total") for one in ingesters),
            "conflicts": sum(one.metric("fleet_sql_conflicts_total") for one in ingesters),
            "machine": _machine_busy_s(),
            "twins": self._rig.read(_twins_written),
            "log": self._rig.read(_log_bytes),
            **{one.name: cpu_seconds(one.child.pid) for one in ingesters},
        }

    def begin(self) -> None:
        self._before, self._sql_before = self._now(), self._rig.sql_cpu_seconds()
        self._began_s = time.monotonic()

    def end(self, messages: int, cpu_share: float) -> dict[str, Any]:
        seconds = time.monotonic() - self._began_s
        after, sql_after = self._now(), self._rig.sql_cpu_seconds()
        used = {name: after[name] - self._before[name] for name in after}
        sql_s = sum(value - self._sql_before.get(pid, 0.0) for pid, value in sql_after.items())
        names = [one.name for one in self._rig.ingesters]
        own_s = sum(used[name] for name in names)
        figures = {
            "seconds": round(seconds, 2),
            "messages_per_second": round(messages / seconds),
            "ingester_cpu_us_per_message": round(own_s / messages * 1e6, 2),
            "ingester_cpu_percent": [round(used[name] / seconds * 100, 1) for name in names],
            "broker_cpu_us_per_message": round(used["broker"] / messages * 1e6, 2),
            "broker_cpu_percent": round(used["broker"] / seconds * 100, 1),
            "sql_cpu_us_per_message": round(sql_s / messages * 1e6, 2),
            "twins_written_per_second": round(used["twins"] / seconds),
            "sql_cpu_us_per_twin": round(sql_s / max(1.0, used["twins"]) * 1e6, 1),
            "wal_bytes_per_twin": round(used["log"] / max(1.0, used["twins"])),
            "sql_conflicts": round(used["conflicts"]),
            "commit_wait_percent": round(used["commit"] / seconds / len(names) * 100, 1),
            "machine_busy_percent": round(used["machine"] / seconds / _cpus() * 100, 1),
        }
        return figures | {"limited_by": limit_of(figures, cpu_share)}


def limit_of(figures: dict[str, Any], cpu_share: float) -> str:
    """What was used up, the outermost first."""
    if figures["broker_cpu_percent"] >= FULL * 100:
        return "the broker's CPU"
    if max(figures["ingester_cpu_percent"]) >= FULL * cpu_share:
        return "the ingesters' CPU share, as meant"
    if figures["machine_busy_percent"] >= FULL * 100:
        return "the CPU of this machine, which everything here shares"
    if figures["commit_wait_percent"] >= FULL * 50:
        return "waiting for SQL commits"
    return "nothing of it: messages came no faster"


def _cpus() -> int:
    with Path("/proc/stat").open() as stat:
        return sum(line.startswith("cpu") and line[3].isdecimal() for line in stat)


def _machine_busy_s() -> float:
    with Path("/proc/stat").open() as stat:
        fields = [int(word) for word in stat.readline().split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
