"""Press → notification accepted by another process, from the button's edge, while telemetry floods the broker.

390 devices with their agents, journals and mutual TLS, as in production; presses come at random rooms; the
flood is a publisher of its own. The press is the simulator's log line (written before the driver sees the
bytes), the notification is the receiver's log line (written before its 2xx leaves).
"""

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

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
COUNTS: Final[dict[str, int]] = {}
"""Devices of each kind that are connected; a kind that is not named has as many as in the demo, 390 in all."""

FLOOD_SHARE_MIN: Final = 0.9
"""Least part of the asked flood that must have come in; with less the figure is of another load."""


class PressStage:
    """`with PressStage(folder, flooding) as stage:` the cloud, all devices connected, and rooms that press."""

    def __init__(self, directory: Path, flooding: int = DEVICES) -> None:
        """`flooding`: how many further devices are enrolled, for a load that speaks for them."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.fleet = fleet_of(COUNTS, 1)
        self._notified = directory / "notified.jsonl"
        port = free_port()
        self._receiver = Child("receiver", ["receiver", str(port), str(self._notified)], directory / "r.log")
        settings = {"FLEET_WEBHOOK_URL": f"http://127.0.0.1:{port}/notify", "FLEET_WEBHOOK_ALLOW_PRIVATE": "true"}
        enrolled = {bench_device(number): "bike" for number in range(flooding)}
        enrolled |= {name: kind for name, (kind, _) in self.fleet.items()}
        self.rig = Rig(directory, enrolled, settings, tls=True, simulated=self.fleet)
        self._sim: Child | None = None

    def __enter__(self) -> Self:
        self.rig.__enter__()
        try:
            self._receiver.start()
            self._sim = self._started_sim()
            statistics = self.directory / "sim" / "statistics.json"
            self.rig.wait(
                lambda: _connected(statistics) >= len(self.fleet), CONNECT_S_MAX, "all devices to connect", every_s=0.5
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sim is not None:
            self._sim.stop()
        self._receiver.stop()
        self.rig.__exit__(kind, error, trace)

    def _started_sim(self) -> Child:
        key_id, key_file = public_key_of(self.directory / "cloud" / "command.key", self.directory)
        sim = Child("sim", [
            "sim", "--broker-port", str(self.rig.broker.port), "--identities", str(self.rig.identities),
            "--authority", self.rig.load_identity[0], "--command-key", str(key_file),
            "--command-key-id", key_id, "--directory", str(self.directory / "sim"),
            "--press-every-s", str(PRESS_EVERY_S),
            *(word for kind, count in COUNTS.items() for word in ("--count", f"{kind}={count}")),
        ], self.directory / "sim.log")  # fmt: skip
        sim.start()
        return sim

    def presses(self, from_s: float, until_s: float) -> tuple[int, list[float]]:
        """(presses between two monotonic moments, ms from press to notified of those that were notified)."""
        lines, _ = people.new_lines(self.directory / "sim" / "truth.jsonl", 0)
        truths = verdict.truths_of([line for line in lines if from_s <= line["real_s"] <= until_s], 1 << 62)
        notices, _ = people.new_lines(self._notified, 0)
        return len(truths.presses), list(verdict.notified_presses(truths, notices).values())


def measure(directory: Path, seconds: float, flood_per_second: float) -> dict[str, Any]:
    """Run it for `seconds` of presses; raises BenchError if what was measured is not what was asked for."""
    at_ms = real_now_ms()
    with PressStage(directory) as stage:
        rig = stage.rig
        messages = round(flood_per_second * (seconds + 5)) // DEVICES * DEVICES
        load = (
            Load(rig.broker.services_port, 1, messages, at_ms, flood_per_second, rig.load_identity)
            if messages
            else None
        )
        try:
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
            presses, latencies_ms = stage.presses(started_s, until_s)
        finally:
            if load:
                load.stop()
    check(presses, len(latencies_ms), flooded, flood_per_second)
    return {
        "presses": presses,
        "notified": len(latencies_ms),
        "press_to_notified_ms": verdict.percentiles(latencies_ms),
        "flood_messages_per_second": round(flooded),
        "devices": len(stage.fleet),
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
