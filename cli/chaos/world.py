"""The hardware of a chaos run in a process that nobody kills: its lines are connections to one Unix socket.

An agent host that is killed leaves the hardware as a real box does: it repeats what was not acknowledged, and what it
measured while nobody listened is gone. The truth log is written before the bytes leave.
"""

import asyncio
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import devices
from cli.clock import SystemClock
from firmware_sim import live
from firmware_sim.line import MemoryLine
from firmware_sim.scenario import Happening, Scenario
from firmware_sim.truth import TruthFile
from firmware_sim.world import World

QUEUED_BYTES_MAX: Final = 64 * 1024
SETTLE_S_MAX: Final = 600.0
REPORT_EVERY_S: Final = 0.5
_READ_BYTES: Final = 4_096
_NEVER: Final = {
    "presses_per_day": 0.0, "mishap_factor": 0.0, "falls_per_day": 0.0, "thefts_per_day": 0.0, "jam_probability": 0.0,
    "line_fault_probability": 0.0, "forgets_to_lock_probability": 0.0,
}  # fmt: skip


def scenario_of(press_every_s: float) -> Scenario:
    """People press all the time, and somebody comes and clears soon; business seconds."""
    facts = {**_NEVER, "crew_travel_s": (200.0, 600.0), "bystander_after_s": (300.0, 900.0), "at_scene_s": (5.0, 20.0)}
    pressing = Happening(action="press", every_s=press_every_s, first_s=press_every_s)
    troubles = (
        Happening(action="cut_mains", every_s=90.0, first_s=20.0, remedy="restore_mains", remedy_after_s=(20.0, 60.0)),
        Happening(action="remove_cord", every_s=90.0, first_s=30.0, remedy="replace_cord", remedy_after_s=(20.0, 60.0)),
    )
    return Scenario(
        name="chaos", description="Presses all the time, clean lines.", facts=facts, happenings=(pressing, *troubles)
    )


class Lines:
    """Serves each device's line to whoever connects last and names it in a first line."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._writers: dict[str, asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        device_id = (await reader.readline()).decode().strip()
        if device_id not in self._world.device_ids:
            writer.close()
            return
        line = self._world.line(device_id)
        if line.attached:  # the killed predecessor's connection was not seen to end yet
            self._writers.pop(device_id).close()
            line.detach()
        self._writers[device_id] = writer
        line.attach(lambda data: self._send(writer, data))
        try:
            while data := await reader.read(_READ_BYTES):
                line.from_driver(data)
        except OSError:
            pass
        finally:
            self._end(device_id, line, writer)

    @staticmethod
    def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
        transport = writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() + len(data) <= QUEUED_BYTES_MAX:
            writer.write(data)

    def _end(self, device_id: str, line: MemoryLine, writer: asyncio.StreamWriter) -> None:
        if self._writers.get(device_id) is writer:
            del self._writers[device_id]
            line.detach()
        with suppress(OSError):
            writer.close()


async def serve(settings: dict[str, Any]) -> None:
    """Run until SIGTERM; SIGUSR1 ends the script, and the hardware then only repeats what it still keeps."""
    clock = SystemClock(speed=settings["speed"], origin_ms=settings["origin_ms"], shift_ms=settings["shift_ms"])
    counts: dict[str, int] = settings["counts"]
    with TruthFile(Path(settings["truth_file"])) as truth:
        world = World(
            tuple(devices.kinds()), {name: counts.get(name, 0) for name in devices.kinds()}, settings["seed"],
            clock.now_ms(), scenario_of(settings["press_every_s"]), truth=truth, clock=clock,
        )  # fmt: skip
        server = await asyncio.start_unix_server(Lines(world).serve, settings["socket"])
        stopped, standing_still, settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, standing_still.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_live(world, clock, standing_still, settled)),
                group.create_task(_report(world, settled, Path(settings["statistics_file"]))),
            ]
            await stopped.wait()
            for task in tasks:
                task.cancel()
        server.close()


async def _live(world: World, clock: SystemClock, standing_still: asyncio.Event, settled: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(live.run(world, clock))
        await standing_still.wait()
        running.cancel()
    await live.settle(world, clock, within_s=SETTLE_S_MAX)
    settled.set()


async def _report(world: World, settled: asyncio.Event, path: Path) -> None:
    while True:
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"settled": settled.is_set(), "unacknowledged": world.unacknowledged_events}))
        fresh.replace(path)
        await asyncio.sleep(REPORT_EVERY_S)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text())))
