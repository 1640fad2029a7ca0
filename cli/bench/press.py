"""Press → notification accepted by another process, from the button's edge, while telemetry floods the broker.

390 devices with their agents, journals and mutual TLS, as in production; presses come at random rooms; the
flood is a publisher of its own. The press is the simulator's log line (written before the driver sees the
bytes), the notification is the receiver's log line (written before its 2xx leaves).
"""

import time
from pathlib import Path
from typing import Any, Final

from cli.bench.load import DEVICES, bench_device
from cli.bench.rig import BenchError, Load, Rig
from cli.broker import free_port
from cli.clock import real_now_ms
from cli.demo import people, verdict
from cli.demo.stage import fleet_of
from cli.processes import Child, cpu_seconds
from cloud.device_commands.keys import public_key_of

CONNECT_S_MAX: Final = 60.0
SETTLE_S: Final = 10.0
PRESS_EVERY_S: Final = 0.25
TELEMETRY: Final = 'fleet_messages_total{lane="telemetry"}'


FLOOD_SHARE_MIN: Final = 0.9
"""Least part of the asked flood that must have come in; with less the figure is of another load."""


def measure(directory: Path, seconds: float, flood_per_second: float) -> dict[str, Any]:
    """Run it for `seconds` of presses; raises BenchError if what was measured is not what was asked for."""
    fleet = fleet_of({}, 1)
    devices = {bench_device(number): "bike" for number in range(DEVICES)}
    receiver_port = free_port()
    receiver = Child(
        "receiver", ["receiver", str(receiver_port), str(directory / "notified.jsonl")], directory / "r.log"
    )
    settings = {"FLEET_WEBHOOK_URL": f"http://127.0.0.1:{receiver_port}/notify", "FLEET_WEBHOOK_ALLOW_PRIVATE": "true"}
    at_ms = real_now_ms()
    enrolled = {**devices, **{name: kind for name, (kind, _) in fleet.items()}}
    with Rig(directory, enrolled, settings, tls=True, simulated=fleet) as rig:
        receiver.start()
        key_id, key_file = public_key_of(directory / "cloud" / "command.key", directory)
        sim = Child("sim", [
            "sim", "--broker-port", str(rig.broker.port), "--identities", str(rig.identities),
            "--authority", rig.load_identity[0], "--command-key", str(key_file),
            "--command-key-id", key_id, "--directory", str(directory / "sim"), "--press-every-s", str(PRESS_EVERY_S),
        ], directory / "sim.log")  # fmt: skip
        messages = round(flood_per_second * (seconds + 5)) // DEVICES * DEVICES
        load = (
            Load(rig.broker.services_port, 1, messages, at_ms, flood_per_second, rig.load_identity)
            if messages
            else None
        )
        sim.start()
        try:
            statistics = directory / "sim" / "statistics.json"
            rig.wait(lambda: _connected(statistics) >= len(fleet), CONNECT_S_MAX, "all devices to connect", every_s=0.5)
            telemetry_before = rig.metric(TELEMETRY)
            if load:
                load.go()
            started_s, cpu_before = time.monotonic(), cpu_seconds(rig.cloud.pid)
            while time.monotonic() - started_s < seconds:
                time.sleep(0.2)
            until_s = time.monotonic()
            flooded = (rig.metric(TELEMETRY) - telemetry_before) / (until_s - started_s)
            cloud_cores = (cpu_seconds(rig.cloud.pid) - cpu_before) / (until_s - started_s)
            time.sleep(SETTLE_S)
            lines, _ = people.new_lines(directory / "sim" / "truth.jsonl", 0)
            pressed = [line for line in lines if started_s <= line["real_s"] <= until_s]
            truths = verdict.truths_of(pressed, 1 << 62)
            notices, _ = people.new_lines(directory / "notified.jsonl", 0)
            latencies = verdict.notified_presses(truths, notices)
        finally:
            sim.stop()
            receiver.stop()
            if load:
                load.stop()
    check(len(truths.presses), len(latencies), flooded, flood_per_second)
    return {
        "presses": len(truths.presses),
        "notified": len(latencies),
        "press_to_notified_ms": verdict.percentiles(list(latencies.values())),
        "flood_messages_per_second": round(flooded),
        "devices": len(fleet),
        "cloud_cores": round(cloud_cores, 2),
    }


def check(presses: int, notified: int, flooded: float, flood_asked: float) -> None:
    """Raises BenchError unless somebody pressed, each press was notified, and the flood was as high as asked."""
    if not presses:
        raise BenchError("nobody pressed: nothing was measured")
    if notified < presses:
        raise BenchError(f"{presses - notified} of {presses} presses were not notified")
    if flooded < FLOOD_SHARE_MIN * flood_asked:
        raise BenchError(f"the flood reached {flooded:.0f} messages/s, {flood_asked:.0f} were asked for")


def _connected(path: Path) -> int:
    import json

    try:
        return int(json.loads(path.read_text())["connected"])
    except FileNotFoundError:
        return 0
