"""Forged commands against the real receiving side: codec and checks in memory, then a real broker, agent and lock."""

import asyncio
import datetime as dt
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiomqtt

import devices
from cli.bench.forgeries import DEVICE, GENERATION, KEY_ID, Thief
from cli.bench.rig import BenchError
from cli.clock import SystemClock
from edge.command_keys import TrustedKeys
from edge.downlink import Downlink
from edge.host import EdgeHost
from edge.journal import Journal
from edge.timing import Timing
from edge.trusted_time import TrustedTime
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.envelope import Acknowledgement, Hello, Welcome, decode_hello, encode
from fleet.messages import FINAL_REPLIES, Reply
from fleet.signing import sign_welcome, verify_command
from fleet.topics import DownChannel, UpChannel, down, parse_up

LEGITIMATE_EVERY: Final = 5_000
LEGITIMATE_EVERY_MQTT: Final = 200
BURST: Final = 100
"""Fewer than the agent's link holds at once, so that every single one is judged."""
WAIT_S_MAX: Final = 30.0
BEGAN_MS: Final = 1_800_000_000_000
ATTEMPTS_PER_MS: Final = 5
_JUDGED: Final = ("ignored_", "refused_", "accepted", "replayed")


class _CountingClock:
    """Time goes on by the attempt, so that the same seed gives the same answers however fast the machine is."""

    speed = 1.0

    def __init__(self) -> None:
        self.attempts = 0

    def now_ms(self) -> int:
        return BEGAN_MS + self.attempts // ATTEMPTS_PER_MS

    def monotonic_s(self) -> float:
        return self.attempts / ATTEMPTS_PER_MS / MILLISECONDS_PER_SECOND


def measure(directory: Path, codec: int, mqtt: int, seed: int) -> dict[str, Any]:
    """Both parts; raises BenchError if anything was accepted that should not be, or a legitimate one was not."""
    result: dict[str, Any] = {"seed": seed}
    result |= asyncio.run(_through_codec(directory, codec, seed))
    if mqtt:
        result |= asyncio.run(_through_broker(directory, mqtt, seed))
    return result


def judged(counts: Counter[str]) -> int:
    """How many messages the receiving side has come to a conclusion about."""
    return sum(count for name, count in counts.items() if name.startswith(_JUDGED))


# --- in memory ---------------------------------------------------------------------------------------------------


async def _through_codec(directory: Path, count: int, seed: int) -> dict[str, Any]:
    clock = _CountingClock()
    thief = Thief(seed, clock.now_ms)
    journal = Journal(directory / "codec.sqlite")
    verifiers = {KEY_ID: thief.key.public_key()}
    trusted_time = TrustedTime(clock)
    trusted_time.set(BEGAN_MS, 0.0)
    downlink = Downlink(
        DEVICE, devices.kind_named("bike"), journal, clock, timing=Timing(), keys=TrustedKeys(verifiers),
        trusted_time=trusted_time, generation=lambda: GENERATION,
    )  # fmt: skip
    by_class: dict[str, Counter[str]] = {name: Counter() for name in thief.makers}
    due: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(journal.run())
        try:
            for index, name in enumerate(thief.attempts(count)):
                clock.attempts = index
                if index % LEGITIMATE_EVERY == 0:
                    command_id, data = thief.legitimate()
                    due[command_id] += 1
                    thief.delivered.append(data)
                    await _offer(downlink, data, moved)
                by_class[name]["offered"] += 1
                by_class[name]["accepted"] += await _offer(downlink, thief.make(name), moved)
        finally:
            journal.close()
        took_s = time.monotonic() - began_s
        await running
    journal.shut()
    accepted = sum(counts["accepted"] for counts in by_class.values())
    if accepted or moved != due:
        raise BenchError(f"{accepted} forged commands accepted, {len(due)} due, {moved.total()} carried out")
    return {
        "codec": count,
        "codec_accepted": accepted,
        "codec_legitimate": len(due),
        "codec_actuations": moved.total(),
        "codec_by_class": {name: counts["offered"] for name, counts in by_class.items()},
        "codec_answers": dict(sorted(downlink.counts.items())),
        "codec_s": round(took_s, 1),
        "codec_per_s": round(count / took_s),
        "verify_us": _verify_us(thief),
    }


async def _offer(downlink: Downlink, data: bytes, moved: Counter[str]) -> int:
    """1 if the command was to be carried out; it then succeeds at once."""
    taken = await downlink.on_order(data)
    if taken is None:
        return 0
    moved[taken[0]] += 1
    await downlink.on_progress(_succeeded(taken[0]))
    return 1


def _succeeded(command_id: str) -> Any:
    from fleet.kind import Progress
    from fleet.messages import ReplyStatus

    return Progress(command_id, ReplyStatus.SUCCEEDED)


def _verify_us(thief: Thief) -> float:
    """Decoding and checking one good command."""
    verifiers = {KEY_ID: thief.key.public_key()}
    data = [thief.legitimate()[1] for _ in range(500)]
    began_s = time.perf_counter()
    for one in data:
        verify_command(one, verifiers)
    return round((time.perf_counter() - began_s) / len(data) * 1e6, 1)


# --- through a broker ----------------------------------------------------------------------------------------------


class _Cloud:
    """The least that an agent needs: welcomes and acknowledged replies."""

    def __init__(self, client: aiomqtt.Client, thief: Thief, clock: SystemClock) -> None:
        self.finals: dict[str, str] = {}
        self._client = client
        self._thief = thief
        self._clock = clock

    async def run(self) -> None:
        await self._client.subscribe("f/+/+/up/#", qos=1)
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            channel = parse_up(message.topic.value).channel
            if channel is UpChannel.HELLO:
                await self._welcome(decode_hello(message.payload))
            elif channel is UpChannel.REPLY:
                reply = Reply.model_validate_json(message.payload)
                if reply.status in FINAL_REPLIES:
                    self.finals[reply.command_id] = reply.status.value
                    await self._tell(Acknowledgement(GENERATION, {}, replies=(reply.command_id,)))

    async def _welcome(self, hello: Hello) -> None:
        welcome = Welcome(hello.nonce, self._clock.now_ms(), GENERATION, {})
        await self._tell(sign_welcome(welcome, DEVICE, KEY_ID, self._thief.key))

    async def _tell(self, message: Welcome | Acknowledgement) -> None:
        await self._client.publish(down(DEVICE, DownChannel.ACK), encode(message), qos=1)


async def _through_broker(directory: Path, count: int, seed: int) -> dict[str, Any]:
    from cli.broker import Broker
    from cli.demo.stage import INGESTER, make_identities, put_identity
    from cli.sim import WorldLine
    from edge.identity import Identity, load_tls_context
    from edge.mqtt_link import BrokerAddress, MqttLink
    from firmware_sim import live
    from firmware_sim.scenario import QUIET
    from firmware_sim.truth import TruthMemory
    from firmware_sim.world import World

    clock = SystemClock()
    thief = Thief(seed + 1, clock.now_ms)
    now = dt.datetime.now(dt.UTC)
    folder, tls = make_identities(directory, [INGESTER], now)
    identities = directory / "identities"
    put_identity(identities, DEVICE, folder.device_authority().issue_client(DEVICE, now))
    broker = Broker(directory / "broker", tls=tls)
    broker.start()
    truth = TruthMemory()
    world = World(tuple(devices.kinds()), {"bike": 1}, seed, clock.now_ms(), QUIET, truth=truth, clock=clock)
    host = EdgeHost(clock, random.Random(seed), directory / "agent.sqlite")

    def context(name: str) -> Any:
        return load_tls_context(tls.services_root, identities / f"{name}.pem", identities / f"{name}.key")

    device_tls = context(DEVICE)
    link = MqttLink(DEVICE, BrokerAddress("127.0.0.1", broker.port), device_tls)
    line = WorldLine(world.line(DEVICE))
    host.add(DEVICE, "bike", line, link, Identity(device_tls, {KEY_ID: thief.key.public_key()}))
    try:
        client = aiomqtt.Client(
            "127.0.0.1",
            broker.services_port,
            identifier="bench-forge",
            protocol=aiomqtt.ProtocolVersion.V5,
            tls_context=context(INGESTER),
        )
        async with client, asyncio.TaskGroup() as group:
            cloud = _Cloud(client, thief, clock)
            side = [group.create_task(cloud.run()), group.create_task(live.run(world, clock))]
            running = group.create_task(host.run())
            due, took_s = await _attack(host, client, cloud, thief, count)
            answers = host.agents[DEVICE].downlink.counts if host.agents[DEVICE].downlink else Counter()
            host.stop()
            await running
            for task in side:
                task.cancel()
    finally:
        broker.stop()
    actuations = Counter(
        line.facts["command_id"] for line in truth.lines() if line.what == "command" and line.device_id == DEVICE
    )
    if set(actuations) != due or any(times > 1 for times in actuations.values()):
        raise BenchError(f"{len(due)} commands were due, the lock was told {dict(actuations)}")
    return {
        "mqtt": count,
        "mqtt_legitimate": len(due),
        "mqtt_actuations": actuations.total(),
        "mqtt_actuations_per_id_max": max(actuations.values(), default=0),
        "mqtt_answers": dict(sorted(answers.items())),
        "mqtt_s": round(took_s, 1),
        "mqtt_per_s": round(count / took_s),
    }


async def _attack(
    host: EdgeHost, client: aiomqtt.Client, cloud: _Cloud, thief: Thief, count: int
) -> tuple[set[str], float]:
    """Send everything, every legitimate command twice; (ids that had to be carried out, seconds)."""
    await _until(lambda: DEVICE in host.agents and host.agents[DEVICE].connected, "the agent to be welcomed")
    topic = down(DEVICE, DownChannel.COMMAND)
    due: set[str] = set()
    sent = 0
    began_s = time.monotonic()
    attempts = thief.attempts(count)

    def answered() -> int:
        downlink = host.agents[DEVICE].downlink
        return 0 if downlink is None else judged(downlink.counts)

    for start in range(0, len(attempts), BURST):
        messages = [thief.make(name) for name in attempts[start : start + BURST]]
        if start % LEGITIMATE_EVERY_MQTT == 0:
            command_id, data = thief.legitimate()
            due.add(command_id)
            thief.delivered.append(data)
            messages += [data, data]
        for data in messages:
            await client.publish(topic, data, qos=1)
        sent += len(messages)
        await _until(lambda expected=sent: answered() >= expected, "the agent to judge all of them")
    took_s = time.monotonic() - began_s
    await _until(lambda: due <= set(cloud.finals), "the legitimate commands to end")
    if answered() != sent:
        raise BenchError(f"{sent} messages were sent, {answered()} judged")
    return due, took_s


async def _until(holds: Any, what: str) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S_MAX):
            while not holds():  # noqa: ASYNC110  # counters of the agent's have no event
                await asyncio.sleep(0.002)
    if not holds():
        raise BenchError(f"waited {WAIT_S_MAX:.0f} s for {what}")
