"""An ingester as a process of its own, to be killed. It is forked from a warm process, so that it is up at once."""

import asyncio
import multiprocessing
import os
from pathlib import Path

from cli.clock import SystemClock
from tests.adapters.pipeline_bench import Cloud

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.adapters.ingest_process"])


def serve(folder: str, port: int, environment: dict[str, str]) -> None:
    """Until somebody kills it. The environment names the identities; the forking server has that of its own start."""
    os.environ.update(environment)
    asyncio.run(Cloud(Path(folder), port, clock=SystemClock(), twin_flush_s=0.5).run())


def start(folder: Path, port: int) -> multiprocessing.Process:
    """A process that is about to serve."""
    process = FORKING.Process(target=serve, args=(str(folder), port, dict(os.environ)), daemon=True)
    process.start()
    return process
