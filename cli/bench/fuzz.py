"""Fuzzed payloads through a real Mosquitto into the real ingest: no crash, no blocked lane, flat memory.

Devices with certificates of their own publish nonsense on topics the broker lets them use; after every batch other
devices send one valid message on each lane and must get its application acknowledgement.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from mqtt5 import PublishPacket, QoS
from sqlalchemy import func, select

import devices
from cli.bench.fuzz_payloads import Fuzzer, Message, real_messages
from cli.bench.load import publish
from cli.bench.rig import BenchError, Rig
from cli.clock import real_now_ms
from cloud.tables import quarantine
from edge.identity import load_tls_context
from edge.mqtt_link import BrokerAddress, MqttLink
from fleet.envelope import VERSION, Acknowledgement, Envelope, Lane, Status, boot_epoch, decode_downlink, encode
from fleet.topics import DownChannel, UpChannel

BATCH_MESSAGES: Final = 2_000
ACKNOWLEDGED_S_MAX: Final = 30.0
REPEAT_S: Final = 3.0
WARM_UP_SHARE: Final = 0.2
"""Caches, pools and the quarantine's first pages fill in the first part; growth is counted after it."""
RSS_GROWTH_MB_MAX: Final = 20.0
SAFE: Final = {"canary-001": "bike", "canary-002": "nursing_room"}


def measure(directory: Path, messages: int, seed: int) -> dict[str, Any]:
    """Send `messages` fuzzed messages; fails if a valid one is not acknowledged or the cloud dies."""
    fuzzing = {name: f"fuzz-{number:03d}" for number, name in enumerate(sorted(devices.kinds()), 1)}
    kinds = {device_id: name for name, device_id in fuzzing.items()} | SAFE
    with Rig(directory, kinds, tls=True, simulated=sorted(kinds)) as rig:
        return asyncio.run(_fuzz(rig, fuzzing, messages, seed))


async def _fuzz(rig: Rig, fuzzing: Mapping[str, str], messages: int, seed: int) -> dict[str, Any]:
    samples = real_messages(fuzzing, seed)
    device_ids = sorted(fuzzing.values())
    fuzzer = Fuzzer(samples, [*device_ids, *SAFE], seed)
    canaries = Canaries(rig)
    await canaries.all_acknowledged()
    started_s = time.monotonic()
    sent, slowest_s, warm_mb = 0, 0.0, 0.0
    while sent < messages:
        batch = min(BATCH_MESSAGES, messages - sent)
        await _send(rig, fuzzer, device_ids, batch)
        sent += batch
        slowest_s = max(slowest_s, await canaries.all_acknowledged())
        if not warm_mb and sent >= messages * WARM_UP_SHARE:
            warm_mb = present_mb(rig.cloud.pid)
    final_mb = present_mb(rig.cloud.pid)
    took_s = time.monotonic() - started_s
    if not rig.cloud.running or rig.cloud.restarts:
        raise BenchError(f"the cloud died:\n{rig.cloud.last_words()}")
    if "Traceback" in (log := (rig.directory / "cloud.log").read_text(errors="replace")):
        raise BenchError(f"an exception nobody expected:\n{log[log.index('Traceback') :][:3000]}")
    if final_mb - warm_mb > RSS_GROWTH_MB_MAX:
        raise BenchError(f"the cloud grew from {warm_mb:.0f} to {final_mb:.0f} MB")
    kept = rig.read(lambda tx: tx.execute(select(func.count()).select_from(quarantine)).scalar_one())
    return {
        "seed": seed,
        "messages": sent,
        "seconds": round(took_s, 1),
        "samples": len(samples),
        "quarantined": round(rig.metric("fleet_quarantined_total")),
        "quarantine_rows": int(kept),
        "valid_acknowledged": canaries.acknowledged,
        "slowest_acknowledgement_s": round(slowest_s, 2),
        "rss_mb_after_warm_up": round(warm_mb, 1),
        "rss_mb_at_the_end": round(final_mb, 1),
        "crashes": rig.cloud.restarts,
    }


async def _send(rig: Rig, fuzzer: Fuzzer, device_ids: Sequence[str], count: int) -> None:
    """`count` messages, each device's share on a connection of its own with its own certificate."""
    for number, device_id in enumerate(device_ids):
        share = count // len(device_ids) + (number < count % len(device_ids))
        wire = [_packet(fuzzer.message(device_id), index % 60_000 + 1) for index in range(share)]
        await asyncio.to_thread(publish, rig.broker.port, [(1, packet) for packet in wire], 0.0, _files(rig, device_id))


def _packet(message: Message, packet_id: int) -> bytes:
    topic, payload = message
    return PublishPacket(topic, payload, qos=QoS.AT_LEAST_ONCE, packet_id=packet_id).write()


def _files(rig: Rig, device_id: str) -> list[str]:
    return [rig.load_identity[0], *(str(rig.identities / f"{device_id}.{end}") for end in ("pem", "key"))]


def present_mb(pid: int) -> float:
    """Resident memory of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Canaries:
    """Devices that say one valid thing on each lane and want it acknowledged."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._seqs = dict.fromkeys(SAFE, 0)
        self.acknowledged = 0

    async def all_acknowledged(self) -> float:
        """Seconds until the last one was; raises BenchError if one is not in time."""
        started_s = time.monotonic()
        for device_id, kind in SAFE.items():
            self._seqs[device_id] += 1
            try:
                async with asyncio.timeout(ACKNOWLEDGED_S_MAX):
                    await self._say(device_id, kind, self._seqs[device_id])
            except TimeoutError as error:
                raise BenchError(
                    f"a valid message of {device_id} was not acknowledged in {ACKNOWLEDGED_S_MAX:.0f} s:\n"
                    f"{self._rig.cloud.last_words()}"
                ) from error
        return time.monotonic() - started_s

    async def _say(self, device_id: str, kind: str, seq: int) -> None:
        authority, *own = map(Path, _files(self._rig, device_id))
        link = MqttLink(
            device_id, BrokerAddress("127.0.0.1", self._rig.broker.port), load_tls_context(authority, own[0], own[1])
        )
        waiting = set(_PAYLOADS[kind])
        async with link.connect(Status(device_id, 1, seq, online=False), 60) as session:
            hearing = session.received()
            while waiting:
                for lane in sorted(waiting):
                    await session.publish(UpChannel(lane.value), _valid(device_id, kind, lane, seq))
                try:
                    async with asyncio.timeout(REPEAT_S):  # as an agent does; what was under way when it fell is lost
                        await _marked(hearing, waiting, seq)
                except TimeoutError:
                    hearing = session.received()
        self.acknowledged += len(_PAYLOADS[kind])


async def _marked(hearing: AsyncIterator[tuple[DownChannel, bytes]], waiting: set[Lane], seq: int) -> None:
    """Take the lanes from `waiting` whose message is acknowledged, until none is left."""
    async for channel, data in hearing:
        if channel is not DownChannel.ACK:
            continue
        message = decode_downlink(data)
        if isinstance(message, Acknowledgement):
            if message.refused:
                raise BenchError(f"a valid message was refused: {message.refused}")
            waiting -= {lane for lane in waiting if message.marks.get(lane, 0) >= seq}
            if not waiting:
                return


def _valid(device_id: str, kind: str, lane: Lane, seq: int) -> bytes:
    at = real_now_ms()
    payload = {
        "event_id": hashlib.sha256(f"{device_id}/{lane}/{seq}".encode()).hexdigest()[:32],
        **_PAYLOADS[kind][lane],
    }
    if lane is Lane.TELEMETRY:
        payload = {"readings": [{"at": at, **_PAYLOADS[kind][lane]}]}
    if payload.get("type") == "pressed":
        payload["press_id"] = payload["event_id"]
    raw = msgspec.Raw(msgspec.json.encode(payload))
    return encode(Envelope(VERSION, kind, device_id, boot_epoch(1, 1), lane, seq, at, raw))


_PLACE: Final = {"latitude": 38.86, "longitude": 121.52, "accuracy_metres": 5.0}
_PAYLOADS: Final[Mapping[str, Mapping[Lane, Mapping[str, Any]]]] = {
    "bike": {
        Lane.EVENT: {"type": "lock_closed", **_PLACE, "command_id": None},
        Lane.TELEMETRY: {
            **_PLACE, "battery_percent": 80.0, "speed_metres_per_second": 0.0, "lock_state": "locked",
            "tilt_degrees": 7.0, "signal_dbm": -80.0, "odometer_metres": 100.0, "temperature_celsius": 20.0,
        },
    },
    "nursing_room": {Lane.EMERGENCY: {"type": "pressed"}},
}  # fmt: skip
