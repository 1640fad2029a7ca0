"""All emergency buttons pressed within one second: press → notification accepted by another process.

Every room of the fleet with its agent, journal and mutual TLS, as in production; the machines and bikes are there,
too. The presses are spread evenly over the second, in a shuffled order. The press is the simulator's log line, written
before the driver sees the bytes; the notification is the receiver's log line, written before its 2xx leaves.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from cli.bench.rig import BenchError, Rig
from cli.broker import free_port
from cli.demo import people, verdict
from cli.demo.stage import fleet_of
from cli.processes import Child, cpu_seconds
from cloud.device_commands.keys import public_key_of
from cloud.tables import call

CONNECT_S_MAX: Final = 90.0
SETTLE_S_MAX: Final = 30.0
QUIET_S: Final = 3.0
P999_MS_MAX: Final = 2_000.0
MAX_MS: Final = 5_000.0
BETWEEN_S: Final = 4.0
LATE_SHARE_MAX: Final = 1.5
"""The simulators share the machine; if it cannot press in time, the figure would be of something else."""


def measure(directory: Path, storms: int, within_s: float) -> dict[str, Any]:
    """Run `storms` of them; raises BenchError if a press was lost, or what was measured is not what was meant."""
    fleet = fleet_of({}, 1)
    rooms = sorted(name for name, (kind, _) in fleet.items() if kind == "nursing_room")
    receiver_port = free_port()
    receiver = Child(
        "receiver", ["receiver", str(receiver_port), str(directory / "notified.jsonl")], directory / "r.log"
    )
    settings = {"FLEET_WEBHOOK_URL": f"http://127.0.0.1:{receiver_port}/notify", "FLEET_WEBHOOK_ALLOW_PRIVATE": "true"}
    with Rig(directory, {name: kind for name, (kind, _) in fleet.items()}, settings, tls=True, simulated=fleet) as rig:
        receiver.start()
        key_id, key_file = public_key_of(directory / "cloud" / "command.key", directory)
        sim = Child("sim", [
            "sim", "--broker-port", str(rig.broker.port), "--identities", str(rig.identities),
            "--authority", rig.load_identity[0], "--command-key", str(key_file),
            "--command-key-id", key_id, "--directory", str(directory / "sim"), "--storms", str(storms),
            "--storm-within-s", str(within_s), "--storm-every-s", str(within_s + BETWEEN_S),
        ], directory / "sim.log")  # fmt: skip
        sim.start()
        try:
            statistics = directory / "sim" / "statistics.json"
            rig.wait(
                lambda: _statistic(statistics, "connected") >= len(fleet), CONNECT_S_MAX, "all devices to connect",
                every_s=0.5,
            )  # fmt: skip
            (directory / "sim" / "storm").touch()  # now
            cpu_before = cpu_seconds(rig.cloud.pid)
            expected = storms * len(rooms)
            deadline_s = time.monotonic() + storms * (within_s + BETWEEN_S) + SETTLE_S_MAX
            presses, latencies = _look(directory)
            while (len(latencies) < len(presses) or len(presses) < expected) and time.monotonic() < deadline_s:
                if not sim.running:
                    raise BenchError(f"the simulators died:\n{sim.last_words()}")
                time.sleep(0.5)
                presses, latencies = _look(directory)
            cpu_s = cpu_seconds(rig.cloud.pid) - cpu_before
            calls = rig.read(lambda tx: tx.scalar(select(func.count()).select_from(call)) or 0)
        finally:
            sim.stop()
            receiver.stop()
    figures = _figures(presses, latencies, storms, rooms=len(rooms), calls=calls, cpu_s=cpu_s)
    if figures["pressed_within_s"] > LATE_SHARE_MAX * within_s:
        raise BenchError(f"the presses took {figures['pressed_within_s']} s: this machine is too busy for the figure")
    return figures


def _figures(
    presses: Mapping[str, dict[str, Any]], latencies: Mapping[str, float], storms: int, *, rooms: int, calls: int,
    cpu_s: float,
) -> dict[str, Any]:  # fmt: skip
    lost = len(presses) - len(latencies)
    if len(presses) < storms * rooms:
        raise BenchError(f"{len(presses)} presses, {storms * rooms} were meant: nothing was measured")
    if lost:
        raise BenchError(f"{lost} of {len(presses)} presses were not notified")
    if calls < rooms:
        raise BenchError(f"{calls} calls of {rooms} rooms are in the database")
    moments = sorted(line["real_s"] for line in presses.values())
    windows = [moments[number * rooms + rooms - 1] - moments[number * rooms] for number in range(storms)]
    ordered = sorted(latencies.values())
    p999 = ordered[max(0, math.ceil(0.999 * len(ordered)) - 1)]
    return {
        "storms": storms,
        "presses": len(presses),
        "pressed_within_s": round(max(windows), 2),
        "notified": len(latencies),
        "press_to_notified_ms": {**verdict.percentiles(ordered), "p99.9": round(p999, 1)},
        "goal_held": p999 <= P999_MS_MAX and ordered[-1] <= MAX_MS,
        "cloud_cpu_s": round(cpu_s, 2),
    }


def _look(directory: Path) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    lines, _ = people.new_lines(directory / "sim" / "truth.jsonl", 0)
    notices, _ = people.new_lines(directory / "notified.jsonl", 0)
    truths = verdict.truths_of(lines, 1 << 62)
    return truths.presses, verdict.notified_presses(truths, notices)


def _statistic(path: Path, name: str) -> int:
    import json

    try:
        return int(json.loads(path.read_text())[name])
    except FileNotFoundError:
        return 0
