"""The edge: memory, start and CPU of one agent with TLS on a serial port, and of the whole fleet in one process.

The agent is the production command (`fleet edge`) with a certificate of its own, on a pseudo-terminal behind
which simulated hardware lives; the broker asks for client certificates and the cloud is `fleet serve`. The
fleet is `fleet sim` in its quiet scenario at real time, so agents and hardware together.
"""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import devices
from cli.bench.rig import BenchError, Rig
from cli.clock import SystemClock, real_now_ms
from cli.demo.stage import Stage, fleet_of, set_up
from cli.processes import Child, cpu_seconds, resident_mb, threads_cpu_seconds
from firmware_sim import live
from firmware_sim.pty import PseudoSerial
from firmware_sim.scenario import QUIET
from firmware_sim.world import World
from fleet.kind import Site

SEED: Final = 1
AGENT_KIND: Final = "nursing_room"
"""It reports every 15 s and is the one whose button must never wait."""
LOOK_EVERY_S: Final = 0.005
WELCOMED_S_MAX: Final = 30.0
FLEET_CONNECTED_S_MAX: Final = 120.0
SETTLE_S: Final = 5.0
"""After the start: imports, first readings and their acknowledgements are no steady state."""
TWIN_DELAY_S: Final = 1.0
"""Twins are written a moment after their messages."""


def measure(directory: Path, seconds: float) -> dict[str, Any]:
    """Run one agent on a pseudo-terminal, then the whole fleet, `seconds` each, at real time."""
    fleet = fleet_of({}, SEED)
    scene, rig = set_up_with_tls(directory, fleet)
    with rig:
        return asyncio.run(one_agent(rig, scene, seconds)) | _whole_fleet(rig, scene, len(fleet), seconds)


def set_up_with_tls(directory: Path, fleet: Mapping[str, tuple[str, Site]]) -> tuple[Stage, Rig]:
    """Keys and certificates of `fleet`, and a rig whose broker asks for them."""
    scene = set_up(directory, fleet, SEED, real_now_ms())
    rig = Rig(directory, {}, {
        "FLEET_BROKER_CA_FILE": str(scene.authority_file),
        "FLEET_BROKER_CERTIFICATE_FILE": str(scene.ingester_certificate),
        "FLEET_BROKER_KEY_FILE": str(scene.ingester_key),
        "FLEET_COMMAND_KEY_FILE": str(scene.command_key_file),
    }, broker_tls=scene.broker_tls)  # fmt: skip
    return scene, rig


# --- one agent -------------------------------------------------------------------------------------------------


async def one_agent(rig: Rig, scene: Stage, seconds: float) -> dict[str, float]:
    """Start it twice, so that its modules are compiled, and watch the second one; `seconds` 0 leaves the CPU out."""
    clock = SystemClock()
    world = World((AGENT_KIND,), {AGENT_KIND: 1}, SEED, clock.now_ms(), QUIET, clock=clock)
    (device_id,) = world.device_ids
    state = sqlite3.connect(f"file:{rig.state_file}?mode=ro", uri=True)
    async with PseudoSerial(world.line(device_id)) as port, asyncio.TaskGroup() as group:
        living = group.create_task(live.run(world, clock))
        try:
            compiling = _agent(rig, scene, device_id, port.path, "first")
            try:
                await _start_to_welcomed_s(state, compiling, device_id)
            finally:
                await asyncio.to_thread(compiling.stop)
            agent = _agent(rig, scene, device_id, port.path, "second")
            try:
                connected_s = await _start_to_welcomed_s(state, agent, device_id)
                figures = {"start_to_connected_s": round(connected_s, 2)}
                if seconds:
                    cpu_s = await _steady_cpu_s(state, agent, device_id, seconds)
                    figures["agent_cpu_percent"] = round(cpu_s / seconds * 100, 2)
                return {"agent_rss_mb": round(resident_mb(agent.pid), 1), **figures}
            finally:
                await asyncio.to_thread(agent.stop)
        finally:
            living.cancel()
            state.close()


def _agent(rig: Rig, scene: Stage, device_id: str, serial_port: str, name: str) -> Child:
    """The production command on a storage of its own."""
    config = rig.directory / f"{name}.toml"
    config.write_text(f"""\
device_id = "{device_id}"
kind = "{AGENT_KIND}"
transport = "serial:{serial_port}"
data_directory = "{name}"

[broker]
host = "127.0.0.1"
port = {rig.broker.port}
authority = "{scene.authority_file.resolve()}"
certificate = "{(scene.identities / f"{device_id}.pem").resolve()}"
private_key = "{(scene.identities / f"{device_id}.key").resolve()}"

[command_keys]
{scene.command_key_id} = "{scene.command_public_file.resolve()}"
""")
    return Child(f"{name} agent", ["edge", "--config", str(config)], rig.directory / f"{name}.log", _compiled(rig))


def _compiled(rig: Rig) -> dict[str, str]:
    """Compiled modules are kept: an installation has them, a development tree may not, and compiling costs 7 MB."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(rig.directory.resolve() / "compiled")}


async def _start_to_welcomed_s(state: sqlite3.Connection, agent: Child, device_id: str) -> float:
    known = _storage_id(state, device_id)
    started_s = time.monotonic()
    agent.start()
    while _storage_id(state, device_id) == known:
        if not agent.running:
            raise BenchError(f"the {agent.name} died:\n{agent.last_words()}")
        if time.monotonic() - started_s > WELCOMED_S_MAX:
            raise BenchError(f"the {agent.name} was not welcomed in {WELCOMED_S_MAX:.0f} s:\n{agent.last_words()}")
        await asyncio.sleep(LOOK_EVERY_S)
    return time.monotonic() - started_s


def _storage_id(state: sqlite3.Connection, device_id: str) -> str | None:
    """The storage whose hello the cloud answered last; every new storage has an id of its own."""
    (found,) = state.execute("SELECT storage_id FROM device WHERE device_id = ?", (device_id,)).fetchone()
    return None if found is None else str(found)


async def _steady_cpu_s(state: sqlite3.Connection, agent: Child, device_id: str, seconds: float) -> float:
    """CPU of `seconds` at production intervals; fails unless the messages that were due arrived."""
    await asyncio.sleep(SETTLE_S)
    before_s, heard = threads_cpu_seconds(agent.pid), _telemetry_mark(state, device_id)
    await asyncio.sleep(seconds)
    used_s = threads_cpu_seconds(agent.pid) - before_s
    found, expected = _telemetry_mark(state, device_id) - heard, _messages_expected({AGENT_KIND: 1}, seconds)
    if not agent.running:
        raise BenchError(f"the {agent.name} died:\n{agent.last_words()}")
    _check_messages(found, expected, seconds)
    return used_s


# --- the fleet -------------------------------------------------------------------------------------------------


def _whole_fleet(rig: Rig, scene: Stage, fleet_devices: int, seconds: float) -> dict[str, float]:
    directory = rig.directory / "fleet"
    directory.mkdir()
    simulators = Child("simulators", [
        "sim", "--broker-port", str(rig.broker.port), "--identities", str(scene.identities),
        "--authority", str(scene.authority_file), "--command-key", str(scene.command_public_file),
        "--command-key-id", scene.command_key_id, "--directory", str(directory), "--scenario", QUIET.name,
    ], rig.directory / "fleet.log", _compiled(rig))  # fmt: skip
    simulators.start()
    try:
        rig.wait(lambda: _alive(simulators) and _connected(directory) >= fleet_devices, FLEET_CONNECTED_S_MAX,
                 f"{fleet_devices} devices to connect", every_s=0.2)  # fmt: skip
        time.sleep(SETTLE_S)
        with contextlib.closing(sqlite3.connect(f"file:{rig.state_file}?mode=ro", uri=True)) as state:
            before_s, heard = cpu_seconds(simulators.pid), _telemetry_mark(state)
            time.sleep(seconds)
            used_s = cpu_seconds(simulators.pid) - before_s
            found = _telemetry_mark(state) - heard
        if not _alive(simulators) or _connected(directory) < fleet_devices:
            raise BenchError(f"only {_connected(directory)} of {fleet_devices} devices were connected at the end")
        counts = {name: kind.demo_count for name, kind in devices.kinds().items()}
        _check_messages(found, _messages_expected(counts, seconds), seconds)
        return {
            "fleet_devices": fleet_devices,
            "fleet_cpu_cores": round(used_s / seconds, 3),
            "fleet_rss_mb": round(resident_mb(simulators.pid), 1),
        }
    finally:
        simulators.stop()


def _alive(simulators: Child) -> bool:
    if not simulators.running:
        raise BenchError(f"the simulators died:\n{simulators.last_words()}")
    return True


def _connected(directory: Path) -> int:
    try:
        return int(json.loads((directory / "statistics.json").read_text())["connected"])
    except FileNotFoundError:
        return 0


# --- what must have arrived ------------------------------------------------------------------------------------


def _telemetry_mark(state: sqlite3.Connection, device_id: str = "") -> int:
    """Telemetry messages the cloud has in its twins, of one device or of all."""
    query = "SELECT coalesce(sum(telemetry_seq), 0) FROM twin WHERE ? IN ('', device_id)"
    return int(state.execute(query, (device_id,)).fetchone()[0])


def _messages_expected(counts: Mapping[str, int], seconds: float) -> int:
    """Least number of messages of quiet devices in so many seconds."""
    return sum(
        count * int((seconds - TWIN_DELAY_S) // (kind.reading_interval_s * kind.readings_per_message))
        for kind, count in ((devices.kind_named(name), count) for name, count in counts.items())
    )


def _check_messages(found: int, expected: int, seconds: float) -> None:
    if found < expected or not expected:
        raise BenchError(f"{found} telemetry messages in {seconds:.0f} s, {expected} were due: nothing was measured")
