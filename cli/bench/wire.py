"""Bytes on the wire of one bike's agent at production intervals, as a month's sum of measured parts.

The agent is the real one with TLS and a certificate of its own, the hardware a simulated bike, the cloud `fleet
serve` behind Mosquitto; between agent and broker sits a proxy that counts bytes and packets (see `counting_proxy`).
Each part is measured at real speed: a connection, an exchange of time, a keep-alive, a message of a parked bike, one
of a ridden bike, and everything around a ride (command, replies, opened, closed). How often each happens on a day
comes from the demand curve and from the simulator's own trips.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Final

import aiohttp

import devices
from cli.bench.counting_proxy import CountingProxy, Traffic
from cli.bench.edge import SEED, set_up_with_tls
from cli.bench.rig import BenchError, Rig
from cli.clock import SystemClock
from cli.demo.people import Client
from cli.demo.stage import Stage, fleet_of
from cli.sim import WorldLine
from devices.bike import city
from devices.bike.controller import PARKED_INTERVAL_MS, RIDING_INTERVAL_MS
from devices.bike.frames import FrameType
from edge.agent import EdgeAgent
from edge.host import EdgeHost
from edge.identity import Identity, load_tls_context, load_verifiers
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.settings import BrokerSettings
from edge.timing import Timing
from firmware_sim import live
from firmware_sim.demand import RIDES
from firmware_sim.scenario import QUIET, VIRTUAL
from firmware_sim.world import World
from fleet.envelope import Status
from fleet.framing import encode_frame

KIND: Final = "bike"
GOAL_MB_PER_MONTH: Final = 5.0
DAYS_PER_MONTH: Final = 30
SECONDS_PER_DAY: Final = 86_400
CONNECTIONS_PER_DAY: Final = 2
"""A mobile network gives a modem a new address now and then."""
REPEATS: Final = 5
QUIET_S: Final = 1.5
"""Nothing crossed for so long: what was going on is over, coalesced acknowledgements included."""
STEP_S_MAX: Final = 60.0
RECONNECT_S: Final = 0.5
"""Jitter of the agent here: waiting for its turn costs no bytes."""
PING_S: Final = 2
"""Keep-alive for the part that measures a keep-alive; the kind's own takes minutes."""
TRIPS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Day:
    """How often what happens on an average day of one bike."""

    rides: float
    ride_s: float
    readings_while_riding: float
    parked_messages: float

    def keep_alives(self, keep_alive_s: float) -> float:
        """Pings while parked: one for every interval that ends before the next message."""
        gap_s = (SECONDS_PER_DAY - self.rides * self.ride_s) / self.parked_messages
        return self.parked_messages * (math.ceil(gap_s / keep_alive_s) - 1)


def average_day() -> Day:
    """From the demand curve of an ordinary week and the trips of the simulator's riders."""
    hours = [RIDES.at(round((hour + 0.5) * 3_600_000)) for hour in range(7 * 24)]
    rides = VIRTUAL.peaks_per_hour["rides"] * sum(hours) / 7
    randomness = random.Random(SEED)
    sites = city.sites(1, randomness)
    position = (sites[0].latitude, sites[0].longitude)
    durations_s = []
    for trip in range(TRIPS):
        goal = city.parked_near(city.destination(position, (trip % 24) * 3_600_000, randomness), randomness)
        speed = min(6.5, max(2.5, randomness.gauss(4.2, 0.7)))  # as the simulator's riders
        durations_s.append(city.distance_metres(position, goal) / speed)
        position = goal
    ride_s = mean(durations_s)
    parked_s = SECONDS_PER_DAY - rides * ride_s
    return Day(rides, ride_s, rides * ride_s / (RIDING_INTERVAL_MS / 1000), parked_s / (PARKED_INTERVAL_MS / 1000))


def measure(directory: Path, repeats: int = REPEATS) -> dict[str, Any]:
    """Every part's bytes with headers, and their sum over a month."""
    scene, rig = set_up_with_tls(directory, fleet_of({name: int(name == KIND) for name in devices.kinds()}, SEED))
    with rig:
        parts = asyncio.run(_parts(rig, scene, repeats))
        if refused := rig.metric("fleet_quarantined_total"):
            raise BenchError(f"{refused:.0f} messages were refused: what was counted is not what is meant")
    return account(parts, average_day())


def account(parts: dict[str, float], day: Day) -> dict[str, Any]:
    """The month from its parts; pure."""
    kind = devices.kind_named(KIND)
    timing = Timing()
    per_message = riding_readings_per_message()
    daily = {
        "connections": CONNECTIONS_PER_DAY * parts["connection"],
        "time": SECONDS_PER_DAY / timing.hello_renew_s * parts["time"],
        "keep_alives": day.keep_alives(kind.keep_alive_s) * parts["keep_alive"],
        "parked": day.parked_messages * parts["parked_message"],
        "riding": day.readings_while_riding / per_message * parts["riding_message"],
        "ride_begin_and_end": day.rides * parts["ride_begin_and_end"],
    }
    total = sum(daily.values())
    month_mb = total * DAYS_PER_MONTH / 1e6
    return {
        **{f"{name}_bytes": round(size) for name, size in parts.items()},
        "rides_per_day": round(day.rides, 2),
        "ride_minutes": round(day.ride_s / 60, 1),
        "keep_alive_s": kind.keep_alive_s,
        "readings_per_message_riding": per_message,
        "bytes_per_day": {name: round(size) for name, size in daily.items()},
        "bytes_per_day_total": round(total),
        "mb_per_month": round(month_mb, 2),
        "goal_mb_per_month": GOAL_MB_PER_MONTH,
        "within_goal": month_mb <= GOAL_MB_PER_MONTH,
    }


class _Bench:
    """One agent behind the proxy, with its simulated bike."""

    def __init__(self, rig: Rig, scene: Stage, proxy: CountingProxy) -> None:
        self.rig, self.scene, self.proxy = rig, scene, proxy
        self.clock = SystemClock()
        self.world = World((KIND,), {KIND: 1}, SEED, self.clock.now_ms(), QUIET, clock=self.clock)
        (self.device_id,) = self.world.device_ids
        self._compact = BrokerSettings(host="127.0.0.1", plain=True).compact  # as an installed agent

    @property
    def identity(self) -> Identity:
        folder, scene = self.scene.identities, self.scene
        tls = load_tls_context(scene.authority_file, folder / f"{self.device_id}.pem", folder / f"{self.device_id}.key")
        return Identity(tls, load_verifiers({scene.command_key_id: scene.command_public_file}))

    @property
    def link(self) -> MqttLink:
        return MqttLink(
            self.device_id, BrokerAddress("127.0.0.1", self.proxy.port), self.identity.tls, compact=self._compact
        )

    @asynccontextmanager
    async def agent(self, timing: Timing) -> AsyncIterator[EdgeHost]:
        """Run it; connected and quiet when the block begins."""
        journal = self.rig.directory / "wire" / "journal.sqlite"
        host = EdgeHost(self.clock, random.Random(SEED), journal, timing=timing)
        host.add(self.device_id, KIND, WorldLine(self.world.line(self.device_id)), self.link, self.identity)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(host.run())
            try:
                await self.until(lambda: bool(host.agents) and host.agents[self.device_id].connected, "a welcome")
                yield host
            finally:
                host.stop()
                await running

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(STEP_S_MAX):
                while not holds():  # noqa: ASYNC110  # counted by others, who tell nobody
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise BenchError(f"waited {STEP_S_MAX:.0f} s for {what}:\n{self.rig.cloud.last_words()}") from error

    async def quiet(self) -> None:
        """Return when nothing has crossed for a while."""
        async with asyncio.timeout(STEP_S_MAX):
            while True:
                before = self.proxy.traffic.writes
                await asyncio.sleep(QUIET_S)
                if self.proxy.traffic.writes == before:
                    return

    def poll(self, times: int) -> None:
        """Ask the hardware for readings, as the driver does."""
        for _ in range(times):
            self.world.line(self.device_id).from_driver(encode_frame(FrameType.POLL))


async def _parts(rig: Rig, scene: Stage, repeats: int) -> dict[str, float]:
    per_message = riding_readings_per_message()
    async with CountingProxy(rig.broker.port) as proxy, asyncio.TaskGroup() as group:
        bench = _Bench(rig, scene, proxy)
        living = group.create_task(live.run(bench.world, bench.clock))
        try:
            parts: dict[str, float] = {}
            async with bench.agent(Timing(telemetry_age_business_s_max=0.3, reconnect_jitter_s=RECONNECT_S)) as host:
                await bench.quiet()
                parts["first_start"] = proxy.traffic.wire_bytes
                parts["parked_message"] = await _messages(bench, host, 1, repeats)
                parts["riding_message"] = await _messages(bench, host, per_message, repeats)
                parts["ride_begin_and_end"] = await _ride(bench, host)
            before = proxy.traffic
            async with bench.agent(Timing(reconnect_jitter_s=RECONNECT_S)):
                await bench.quiet()
            parts["connection"] = _cost(proxy, before)
            parts["time"] = await _time(bench, repeats)
            parts["keep_alive"] = await _keep_alive(bench, repeats)
            return parts
        finally:
            living.cancel()


def riding_readings_per_message() -> int:
    """Readings that share a message while riding: as many as the kind allows and as are due before the age limit."""
    due = math.ceil(Timing().telemetry_age_business_s_max * 1000 / RIDING_INTERVAL_MS)
    return min(devices.kind_named(KIND).readings_per_message, due)


def _cost(proxy: CountingProxy, before: Traffic) -> float:
    return float(proxy.traffic.since(before).wire_bytes)


async def _messages(bench: _Bench, host: EdgeHost, readings: int, repeats: int) -> float:
    """One telemetry message of so many readings, with its acknowledgements by broker and cloud."""
    agent = host.agents[bench.device_id]
    before, had = bench.proxy.traffic, agent.counts["readings"]
    for _ in range(repeats):
        heard = agent.counts["readings"]
        bench.poll(readings)
        await bench.until(partial(_has_read, agent, heard + readings), "a telemetry message")
        await bench.quiet()
    if agent.counts["readings"] - had != repeats * readings:
        raise BenchError(f"{agent.counts['readings'] - had} readings instead of {repeats * readings}")
    return _cost(bench.proxy, before) / repeats


def _has_read(agent: EdgeAgent, readings: int) -> bool:
    return agent.counts["readings"] >= readings


async def _ride(bench: _Bench, host: EdgeHost) -> float:
    """Unlock by the product, then the rider locks up: command, replies, both events and their readings."""
    agent = host.agents[bench.device_id]
    before, events = bench.proxy.traffic, agent.counts["events"]
    async with aiohttp.ClientSession() as session:
        rider = Client(session, f"http://127.0.0.1:{bench.rig.http_port}", bench.scene.extras[0])
        found = await rider.call("POST", "/api/v1/rides", {"device_id": bench.device_id})
        async with asyncio.timeout(STEP_S_MAX):
            while found["state"] == "unlocking":
                found = await rider.call("GET", f"/api/v1/rides/{found['id']}?wait_s=5&seen=unlocking")
        if found["state"] != "riding":
            raise BenchError(f"the bike was not unlocked: {found['state']}")
    await bench.quiet()
    bench.world.act(bench.device_id, "close_lock")
    await bench.until(lambda: agent.counts["events"] >= events + 2, "the lock to be closed")
    await bench.quiet()
    return _cost(bench.proxy, before)


async def _time(bench: _Bench, repeats: int) -> float:
    """One exchange of hello and welcome on a connection that stays."""
    renew_s = 2 * QUIET_S
    async with bench.agent(Timing(hello_renew_s=renew_s, reconnect_jitter_s=RECONNECT_S)):
        await bench.quiet()
        before = bench.proxy.traffic
        await asyncio.sleep(repeats * renew_s)
        found = bench.proxy.traffic.since(before)
    return found.wire_bytes / repeats


async def _keep_alive(bench: _Bench, repeats: int) -> float:
    """One ping of MQTT and its answer."""
    will = Status(bench.device_id, 0, 0, online=False)
    async with bench.link.connect(will, PING_S) as session:
        del session
        await asyncio.sleep(PING_S / 2)
        before = bench.proxy.traffic
        await asyncio.sleep(PING_S * (repeats + 0.5))
        found = bench.proxy.traffic.since(before)
    if found.writes < 2:
        raise BenchError("no keep-alive was seen")
    return found.wire_bytes / (found.writes / 2)
