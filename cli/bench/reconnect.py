"""The wave after a broker's death: every agent of the fleet, with mutual TLS, loses its broker in the same second.

The broker is killed with SIGKILL and started again on its port; agents and simulated hardware run in this
process, the cloud is `fleet serve`. A connect is counted when its connection was made (the broker has answered
the CONNECT), for every window of one second; a device is back when the cloud has welcomed it. One room has an open
emergency: somebody pressed while the broker was away. Times count from the moment the broker was started again.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import devices
from cli.bench.edge import set_up_with_tls
from cli.bench.rig import BenchError, Rig
from cli.clock import SystemClock
from cli.demo.stage import Stage, fleet_of
from cli.sim import WorldLine
from edge.agent import EdgeAgent
from edge.host import EdgeHost
from edge.identity import Identity, load_tls_context, load_verifiers
from edge.link import Session
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.timing import Timing
from firmware_sim import live
from firmware_sim.scenario import QUIET
from firmware_sim.world import World
from fleet.envelope import Status

SEED: Final = 1
FIRST_CONNECTS_PER_SECOND: Final = 32
CONNECTED_S_MAX: Final = 120.0
SETTLED_S: Final = 5.0
BACK_S_MAX: Final = 90.0
LOOK_EVERY_S: Final = 0.005

CONNECTS_PER_SECOND_MAX: Final = 50
WELCOMED_P99_S_MAX: Final = 20.0
EMERGENCY_S_MAX: Final = 2.0
"""What the product promises; a run that misses one of them says so and fails."""


class TimedLink:
    """A link that notes when its connections were made."""

    def __init__(self, link: MqttLink, made: list[tuple[float, str]], device_id: str) -> None:
        self._link = link
        self._made = made
        self._device_id = device_id

    def connect(self, will: Status, keep_alive_s: int) -> AbstractAsyncContextManager[Session]:
        """As the link does."""
        return self._connect(will, keep_alive_s)

    @asynccontextmanager
    async def _connect(self, will: Status, keep_alive_s: int) -> AsyncIterator[Session]:
        async with self._link.connect(will, keep_alive_s) as session:
            self._made.append((time.monotonic(), self._device_id))
            yield session


def measure(
    directory: Path, outage_s: float, counts: Mapping[str, int] | None = None, timing: Timing | None = None
) -> dict[str, Any]:
    """One wave after `outage_s` without a broker; raises BenchError if somebody stays away or a promise is missed.

    `counts`: devices by kind where not the whole fleet is wanted, a nursing room among them; `timing`: of the agents.
    """
    scene, rig = set_up_with_tls(directory, fleet_of(counts or {}, SEED))
    with rig:
        found = asyncio.run(_wave(rig, scene, outage_s, counts or {}, timing or Timing()))
    check(found)
    return found


def check(found: dict[str, Any]) -> None:
    """Raises BenchError with the figures that miss what the product promises."""
    missed = [
        text
        for holds, text in (
            (found["connects_per_second_max"] <= CONNECTS_PER_SECOND_MAX, "connects in one second"),
            (found["welcomed_s"]["p99"] <= WELCOMED_P99_S_MAX, "time until 99 % are welcomed"),
            (found["emergency"]["connected_s"] <= EMERGENCY_S_MAX, "time until the room with the emergency is back"),
        )
        if not holds
    ]
    if missed:
        raise BenchError(f"missed: {', '.join(missed)}; measured: {found}")


async def _wave(rig: Rig, scene: Stage, outage_s: float, counts: Mapping[str, int], timing: Timing) -> dict[str, Any]:
    clock = SystemClock()
    world = World(tuple(devices.kinds()), counts, SEED, clock.now_ms(), QUIET, clock=clock)
    made: list[tuple[float, str]] = []
    host = EdgeHost(
        clock, random.Random(), rig.directory / "journal.sqlite", timing=timing, firmware="bench-1",
        first_connect_within_s=len(world.device_ids) / FIRST_CONNECTS_PER_SECOND,
    )  # fmt: skip
    verifiers = load_verifiers({scene.command_key_id: scene.command_public_file})
    for device_id in world.device_ids:
        files = scene.identities / f"{device_id}.pem", scene.identities / f"{device_id}.key"
        link = MqttLink(
            device_id, BrokerAddress("127.0.0.1", rig.broker.port), load_tls_context(scene.authority_file, *files)
        )
        line, timed = WorldLine(world.line(device_id)), TimedLink(link, made, device_id)
        host.add(device_id, world.kind_of(device_id), line, timed, Identity(None, verifiers))
    async with asyncio.TaskGroup() as group:
        living = group.create_task(live.run(world, clock))
        running = group.create_task(host.run())
        try:
            await _until(lambda: _welcomed(host) == len(world.device_ids), CONNECTED_S_MAX, "all devices to connect")
            await asyncio.sleep(min(SETTLED_S, len(world.device_ids) / FIRST_CONNECTS_PER_SECOND))
            return await _kill_and_watch(rig, host, world, made, outage_s)
        finally:
            host.stop()
            living.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def _kill_and_watch(
    rig: Rig, host: EdgeHost, world: World, made: list[tuple[float, str]], outage_s: float
) -> dict[str, Any]:
    room = next(device_id for device_id in world.device_ids if "press" in world.actions(device_id))
    made.clear()
    await asyncio.to_thread(rig.broker.kill)
    await _until(lambda: not any(agent.connected for agent in host.agents.values()), BACK_S_MAX, "the loss to be seen")
    world.act(room, "press")
    uplink = host.agents[room].uplink
    assert uplink is not None
    await _until(uplink.emergency_waiting.is_set, BACK_S_MAX, "the press to be journalled")
    await asyncio.sleep(outage_s)
    started_s = time.monotonic()
    starting = asyncio.create_task(asyncio.to_thread(rig.broker.start))
    back: dict[str, float] = {}
    pressed_s = 0.0
    while len(back) < len(host.agents) or not pressed_s:
        now_s = time.monotonic()
        for device_id, agent in host.agents.items():
            if device_id not in back and agent.connected:
                back[device_id] = now_s - started_s
        if not pressed_s and not uplink.emergency_waiting.is_set():
            pressed_s = now_s - started_s
        if now_s - started_s > BACK_S_MAX:
            raise BenchError(f"only {len(back)} of {len(host.agents)} were welcomed in {BACK_S_MAX:.0f} s")
        await asyncio.sleep(LOOK_EVERY_S)
    await starting
    connects = sorted(at_s - started_s for at_s, _ in made)
    return {
        "devices": len(back),
        "outage_s": outage_s,
        "connects": len(connects),
        "connects_per_second_max": most_per_second(connects),
        "welcomed_s": quantiles(sorted(back.values())),
        "emergency": {
            "connected_s": round(next(at_s for at_s, device_id in made if device_id == room) - started_s, 3),
            "acknowledged_s": round(pressed_s, 3),
        },
    }


def _welcomed(host: EdgeHost) -> int:
    return sum(agent.connected for agent in _agents(host))


def _agents(host: EdgeHost) -> Sequence[EdgeAgent]:
    return tuple(host.agents.values())


async def _until(holds: Any, limit_s: float, what: str) -> None:
    deadline_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise BenchError(f"waited {limit_s:.0f} s for {what} in vain")
        await asyncio.sleep(LOOK_EVERY_S)


def most_per_second(moments_s: Sequence[float]) -> int:
    """Moments (sorted) in the fullest window of one second, wherever it begins."""
    first = most = 0
    for index, at_s in enumerate(moments_s):
        while at_s - moments_s[first] >= 1.0:
            first += 1
        most = max(most, index - first + 1)
    return most


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest of sorted values."""
    count = len(values)
    return {
        "p50": round(values[count // 2], 2),
        "p99": round(values[min(count - 1, -(-99 * count // 100) - 1)], 2),
        "max": round(values[-1], 2),
    }
