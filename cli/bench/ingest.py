"""What a telemetry message costs on the way that counts: receive, validate, twin, rules, spool fsync, commit, acks.

The cloud runs exactly as `fleet serve` does, apart from `series=off`: writing the series is a projection at its own
pace, and is measured on its own. Every figure stands beside its rate and beside what `mosquitto_sub` and the broker
take for the same load in the same run. Before a figure is given, twins, spool and alarms are compared with what was
sent.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select

from cli.bench import ingest_check, ingest_flame, ingest_press, ingest_rivals
from cli.bench.ingest_flow import (
    AHEAD_MAX,
    Flow,
    IngestLoad,
    Memory,
    SpoolProgress,
    resident_now_mb,
    wait_for,
)
from cli.bench.ingest_load import CONNECTIONS, Fleet, Phase
from cli.bench.load import bench_device
from cli.bench.rig import BenchError, Rig
from cli.clock import real_now_ms
from cli.processes import cpu_seconds, resident_mb
from cloud.tables import twin

ARRIVE_S_MAX: Final = 600.0
SETTLED_S_MAX: Final = 30.0
WARM_UP_MESSAGES: Final = 20_000
BURST_MESSAGES: Final = 100_000
SETTLE_S: Final = 1.0
IDLE_S: Final = 5.0
FLAME_S_MAX: Final = 10
WHERE_SHARE_MIN: Final = 0.005
RATE_SHARE_MIN: Final = 0.9
NAIVE: Final = "naive"
NONE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for. `rate` 0 = as fast as it goes; `vs` is `naive`, `none` or a command line."""

    messages: int
    rate: float = 0.0
    qos: int = 1
    devices: int = 400
    vs: str = NAIVE
    burst: bool = False
    presses: int = 0
    tls: bool = False
    flame: Path | None = None

    def check(self) -> None:
        """Raises ValueError for what cannot be meant."""
        if self.messages < self.devices:
            raise ValueError(
                f"--messages {self.messages}: {self.devices} devices send at least one each; raise it, or ask for "
                "fewer --devices"
            )
        if self.vs not in {NAIVE, NONE}:
            ingest_rivals.check_command(self.vs)
            if self.tls:
                raise ValueError("--vs COMMAND is measured on the listener without TLS: leave out --tls")
        if self.flame is not None and not self.flame.resolve().parent.is_dir():
            raise ValueError(f"--flame {self.flame}: there is no such folder")


class _Run:
    """One fleet that sends phase after phase to one cloud."""

    def __init__(self, rig: Rig, plan: Plan) -> None:
        self.rig = rig
        self.plan = plan
        self.fleet = Fleet(plan.devices, real_now_ms(), plan.qos)
        self.load = IngestLoad(self.fleet, rig.broker.services_port, rig.load_identity)
        self.spool = rig.directory / "cloud" / "spool"
        self.progress = SpoolProgress(rig, self.spool)
        self.rounds = 0
        """Sent so far by each device."""

    @property
    def total(self) -> int:
        """Messages sent so far."""
        return self.rounds * self.fleet.devices

    def phase(self, messages: int, rate: float, ahead: int = AHEAD_MAX) -> Phase:
        """The next one: about `messages`, the same number from every device."""
        rounds = max(1, messages // self.fleet.devices)
        found = Phase(self.rounds + 1, rounds, rate, 0 if rate else ahead)
        self.rounds += rounds
        return found

    def send(self, phase: Phase) -> tuple[Memory, float, float]:
        """Send a phase and wait until it is committed.

        Returns:
            Memory meanwhile, seconds until the last message was durable, messages that the load sent per second.
        """
        started_s = time.monotonic()
        with Flow(self.load, phase, self.progress.messages, self.rig.cloud.pid) as flow:
            self.load.go(phase)
            durable_s = self.wait(phase)
        sent = self.load.result()
        return flow.memory, durable_s - started_s, sent["messages"] / sent["seconds"]

    def wait(self, phase: Phase) -> float:
        """Until everything sent is committed; returns the monotonic moment at which it was durable."""
        expected_s = phase.rounds * self.fleet.devices / phase.rate if phase.rate else 0.0
        return wait_for(self.rig, self.progress, self.total, ARRIVE_S_MAX + expected_s)


def measure(directory: Path, plan: Plan) -> dict[str, Any]:
    """Run it; raises BenchError if the cloud does not hold what was sent, or a tool is missing."""
    ingest_rivals.mosquitto_sub()
    if plan.flame is not None:
        ingest_flame.py_spy()
    devices = {bench_device(number): "bike" for number in range(plan.devices)}
    with Rig(directory, devices, {"FLEET_SERIES": "off"}, tls=plan.tls) as rig:
        run = _Run(rig, plan)
        try:
            result = _measured(run)
            if plan.flame is not None:
                result["where"] = _flame(run, plan.flame, result)
            if plan.burst:
                result["burst"] = _bursts(run)
            _compare(run)
            result["compared"] = {"messages": run.total, "lost": 0, "doubled": 0, "twins": plan.devices}
            _contest(run, result)
        finally:
            run.load.stop()
    if plan.presses:
        result["presses"] = ingest_press.measure(directory / "presses", plan.presses, plan.qos)
    return result


def _measured(run: _Run) -> dict[str, Any]:
    plan, rig = run.plan, run.rig
    run.send(run.phase(min(WARM_UP_MESSAGES, plan.messages), 0.0))
    idle_cores = _idle_cores(rig.cloud.pid) if plan.rate else 0.0
    phase = run.phase(plan.messages, plan.rate)
    messages = phase.rounds * plan.devices
    commits = rig.metric("fleet_commits_total")
    memory_mb = resident_now_mb(rig.cloud.pid)
    before = cpu_seconds(rig.cloud.pid), cpu_seconds(rig.broker.pid), cpu_seconds(run.load.pid)
    memory, seconds, sent_per_second = run.send(phase)
    after = cpu_seconds(rig.cloud.pid), cpu_seconds(rig.broker.pid), cpu_seconds(run.load.pid)
    own_us, broker_us, load_us = ((b - a) / messages * 1e6 for a, b in zip(before, after, strict=True))
    slope = memory.slope_mb_per_million()
    result: dict[str, Any] = {
        "messages": messages,
        "devices": plan.devices,
        "qos": plan.qos,
        "listener": "mutual TLS" if plan.tls else "plain loopback",
        "connections": CONNECTIONS,
        "cores": os.cpu_count(),
        "rate_asked_per_second": plan.rate or None,
        "messages_per_second": round(messages / seconds),
        "cpu_us_per_message": round(own_us, 2),
        "broker_cpu_us_per_message": round(broker_us, 2),
        "load_cpu_us_per_message": round(load_us, 2),
        "ratio_to_broker_cpu": round(own_us / broker_us, 2) if broker_us else None,
        "rss_mb_start": round(memory_mb, 1),
        "rss_mb_end": round(resident_now_mb(rig.cloud.pid), 1),
        "rss_mb_max": round(resident_mb(rig.cloud.pid), 1),
        "rss_mb_per_million_messages": None if slope is None else round(slope, 2),
        "commits_per_second": round((rig.metric("fleet_commits_total") - commits) / seconds, 2),
    }
    if sent_per_second < RATE_SHARE_MIN * plan.rate:
        raise BenchError(f"{sent_per_second:.0f} messages/s went through where {plan.rate:.0f} were asked for")
    if plan.rate:  # what the process takes without a message weighs on each of a few
        result["idle_cores"] = round(idle_cores, 4)
        result["cpu_us_per_message_above_idle"] = round(own_us - idle_cores * seconds / messages * 1e6, 2)
    sizes = ingest_check.batch_sizes(run.spool, range(phase.first_seq, phase.first_seq + phase.rounds))
    result["batch_messages"] = sizes
    if sizes is not None:
        syncs = messages / seconds / sizes["mean"]
        result["spool_syncs_per_second"] = round(syncs, 1)
        result["fsyncs_per_second"] = round(syncs + result["commits_per_second"], 1)
    return result


def _idle_cores(pid: int) -> float:
    time.sleep(SETTLE_S)
    before_s, began_s = cpu_seconds(pid), time.monotonic()
    time.sleep(IDLE_S)
    return (cpu_seconds(pid) - before_s) / (time.monotonic() - began_s)


def _flame(run: _Run, file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The same load again with the profiler: the picture, and CPU per message for each file of ours."""
    per_second = result["messages_per_second"]
    seconds = max(1, min(FLAME_S_MAX, round(result["messages"] / per_second)))
    # A second more, so that the load outlasts the profiler and nobody is watched while idle.
    phase = run.phase(per_second * (seconds + 1), run.plan.rate)
    with Flow(run.load, phase, run.progress.messages, run.rig.cloud.pid):
        run.load.go(phase)
        recording = ingest_flame.record(run.rig.cloud.pid, run.rig.directory / "stacks.txt", seconds)
        try:
            stacks = recording.finish(seconds + 60)
        finally:
            recording.stop()
        run.wait(phase)
    run.load.result()
    us = result["cpu_us_per_message"]
    file.write_text(ingest_flame.draw(stacks, f"fleet serve, {per_second:,} messages/s, {us} µs CPU per message"))
    return {name: {"percent": round(share * 100, 1), "us_per_message": round(share * us, 2)}
            for name, share in ingest_flame.shares(stacks).items() if share >= WHERE_SHARE_MIN}  # fmt: skip


def _bursts(run: _Run) -> dict[str, Any]:
    """All at once while the ingester is busy with them, then while it does not run at all."""
    found: dict[str, Any] = {}
    for name in ("busy", "stopped"):
        phase = run.phase(BURST_MESSAGES, 0.0, ahead=0)
        stopped = name == "stopped"
        if stopped:
            os.kill(run.rig.cloud.pid, signal.SIGSTOP)
        started_s = time.monotonic()
        try:
            run.load.go(phase)
            sent = run.load.result()
        finally:
            if stopped:
                os.kill(run.rig.cloud.pid, signal.SIGCONT)
        continued_s = time.monotonic()
        durable_s = run.wait(phase) - (continued_s if stopped else started_s)
        found[name] = {
            "messages": phase.rounds * run.fleet.devices,
            "sent_s": round(sent["seconds"], 2),
            "durable_s": round(durable_s, 2),
            "rss_mb_max": round(resident_mb(run.rig.cloud.pid), 1),
        }
    return found


def _compare(run: _Run) -> None:
    """Raises BenchError unless the cloud holds everything that was sent, once; the cloud ends here."""
    rig = run.rig
    rig.wait(lambda: rig.read(_committed) == run.total, SETTLED_S_MAX, "the twins to be committed")
    database = rig.read(ingest_check.held)
    rig.cloud.stop()
    ingest_check.compare_database(database, run.fleet, run.rounds)
    ingest_check.compare_spool(run.spool, run.fleet, run.rounds)


def _committed(tx: Connection) -> int:
    return int(tx.execute(select(func.coalesce(func.sum(twin.c.telemetry_seq), 0))).scalar_one())


def _contest(run: _Run, result: dict[str, Any]) -> None:
    plan, rig = run.plan, run.rig
    contest = ingest_rivals.Contest(
        run.load, rig.broker.services_port, rig.broker.pid, rig.load_identity, plan.rate, plan.messages
    )
    yardstick = ingest_rivals.against_mosquitto_sub(contest, rig.directory)
    result["mosquitto_sub"] = yardstick
    own_us = result["cpu_us_per_message"]
    result["ratio_to_mosquitto_sub_cpu"] = _ratio(own_us, yardstick["cpu_us_per_message"])
    result["ratio_to_mosquitto_sub_rate"] = _ratio(result["messages_per_second"], yardstick["messages_per_second"])
    if plan.vs == NONE:
        return
    if plan.vs == NAIVE:
        rival = ingest_rivals.against_naive(contest)
        result["naive_cpu_us_per_message"] = rival["cpu_us_per_message"]
        result["ratio_naive"] = _ratio(rival["cpu_us_per_message"], own_us)
    else:
        rival = ingest_rivals.against_command(contest, plan.vs, rig.directory)
    result["rival"] = rival
    result["ratio_rival"] = _ratio(rival["cpu_us_per_message"], own_us)


def _ratio(one: float, other: float) -> float | None:
    """None where the other took no measurable CPU."""
    return round(one / other, 2) if other else None
