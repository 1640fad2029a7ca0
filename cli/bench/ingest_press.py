"""Press → notified while telemetry saturates the way in: the load goes as fast as the ingester makes it durable.

The 390 devices of `fleet bench press` with their agents and mutual TLS, and beside them the ingest bench's load, which
is kept ahead of the ingester from before the first press that counts until after the last one was notified.
"""

import time
from pathlib import Path
from typing import Any, Final

from cli.bench import press
from cli.bench.ingest_flow import AHEAD_MAX, Flow, IngestLoad, SpoolProgress
from cli.bench.ingest_load import Fleet, Phase
from cli.bench.load import DEVICES
from cli.bench.rig import BenchError
from cli.clock import real_now_ms
from cli.demo import verdict
from cli.processes import cpu_seconds

GOAL_P99_MS: Final = 250.0
FULL_MESSAGES: Final = 40_000
"""So many must be through before a press counts: by then the queues before the ingester are as full as they get."""
FULL_S_MAX: Final = 120.0
_ROUNDS_ENDLESS: Final = 10**9


def measure(directory: Path, presses: int, qos: int) -> dict[str, Any]:
    """Run it for that many presses; raises BenchError if one of them was not notified."""
    with press.PressStage(directory, DEVICES) as stage:
        rig = stage.rig
        load = IngestLoad(Fleet(DEVICES, real_now_ms(), qos), rig.broker.services_port, rig.load_identity)
        try:
            progress = SpoolProgress(rig, rig.directory / "cloud" / "spool")
            phase = Phase(1, _ROUNDS_ENDLESS, 0.0, AHEAD_MAX)
            with Flow(load, phase, progress.messages, rig.cloud.pid):
                load.go(phase)
                rig.wait(
                    lambda: rig.metric(press.TELEMETRY) >= FULL_MESSAGES, FULL_S_MAX, "telemetry to saturate", every_s=1
                )
                return _pressed(stage, presses)
        finally:
            load.stop()


def _pressed(stage: press.PressStage, presses: int) -> dict[str, Any]:
    rig = stage.rig
    began_s, before = time.monotonic(), rig.metric(press.TELEMETRY)
    cloud, broker = cpu_seconds(rig.cloud.pid), cpu_seconds(rig.broker.pid)
    until_s = began_s
    limit_s = press.CONNECT_S_MAX + 4 * presses * press.PRESS_EVERY_S

    def enough() -> bool:
        nonlocal until_s
        until_s = time.monotonic()
        return stage.presses(began_s, until_s)[0] >= presses

    rig.wait(enough, limit_s, f"{presses} presses", every_s=0.5)
    seconds = until_s - began_s
    per_second = (rig.metric(press.TELEMETRY) - before) / seconds
    cloud, broker = cpu_seconds(rig.cloud.pid) - cloud, cpu_seconds(rig.broker.pid) - broker
    settled_s = time.monotonic() + press.SETTLE_S
    while True:
        pressed, latencies_ms = stage.presses(began_s, until_s)
        if len(latencies_ms) >= pressed or time.monotonic() > settled_s:
            break
        time.sleep(0.2)
    press.check(pressed, len(latencies_ms), 0.0, 0.0)
    if not per_second:
        raise BenchError("no telemetry came through while people pressed: nothing was saturated")
    found = verdict.percentiles(latencies_ms)
    return {
        "presses": pressed,
        "press_to_notified_ms": found,
        "goal_held": found["p99"] is not None and found["p99"] <= GOAL_P99_MS,
        "telemetry_messages_per_second": round(per_second),
        "listener": "mutual TLS",
        "devices": len(stage.fleet) + DEVICES,
        "cloud_cores": round(cloud / seconds, 2),
        "broker_cores": round(broker / seconds, 2),
    }
