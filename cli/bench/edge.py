"""The edge: memory and CPU of one agent with TLS, start to welcomed, and 390 agents with simulators in one process."""

import datetime as dt
import sys
import time
from pathlib import Path
from typing import Any, Final

from cli.bench.rig import BenchError
from cli.broker import Broker, free_port
from cli.clock import real_now_ms
from cli.demo import stage
from cli.processes import Child, cpu_seconds, resident_mb

START_S_MAX: Final = 30.0


def measure(directory: Path, seconds: float) -> dict[str, Any]:
    """Run one agent on a pseudo-terminal, then the whole fleet, `seconds` each, at real time."""
    del dt, sys, Broker, free_port, real_now_ms, stage
    raise BenchError(f"not measured yet in {directory} for {seconds} s")
