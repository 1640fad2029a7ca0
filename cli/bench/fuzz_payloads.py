"""Seeded nonsense for the wire: real messages bent in every way, and bytes that never were one."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

import devices
from cli.broker_configuration import PACKET_BYTES_MAX
from firmware_sim.scenario import QUIET
from firmware_sim.world import World
from fleet.envelope import MESSAGE_BYTES_MAX, VERSION, Envelope, Hello, Lane, Status, boot_epoch, encode
from fleet.kind import DriverOutput
from fleet.topics import ROOT, UpChannel, shard_of, up

STARTED_MS: Final = 1_800_000_000_000
SAMPLE_STEPS: Final = 400
_STORAGE: Final = "a" * 32
_WORDS: Final = (
    "\ud800", "\x00", "﻿", "' OR 1=1 --", "../../etc/passwd", "<script>", "%s%n", "中" * 50, "NaN", "-0", "é", "\\u0000",
)  # fmt: skip
_NUMBERS: Final = (
    "1e999",
    "-1e999",
    "1" + "0" * 400,
    str(2**63),
    str(-(2**63)),
    "0.1e-400",
    "9007199254740993",
    "-1",
    "0",
)
_NAMES: Final = ("nonsense", "event/deeper", "", "EVENT", "ack", "../down/ack", "中", "event ", "certificate")

PAYLOAD_BYTES_MAX: Final = PACKET_BYTES_MAX - 200
"""The broker hangs up on anything larger, so it never reaches the cloud."""

Message = tuple[str, bytes]
"""(topic, payload)."""


def real_messages(device_of: Mapping[str, str], seed: int) -> list[Message]:
    """What agents of these devices (kind → id) say: readings, events, hellos, statuses and replies."""
    found: list[Message] = []
    for kind, device_id in sorted(device_of.items()):
        seqs = dict.fromkeys(Lane, 0)
        for lane, at, payload in _said(kind, seed):
            seqs[lane] += 1
            body = Envelope(VERSION, kind, device_id, boot_epoch(1, 1), lane, seqs[lane], at, msgspec.Raw(payload))
            found.append((up(device_id, UpChannel(lane.value)), encode(body)))
        hello = {
            "version": VERSION, "kind": kind, "device_id": device_id, "storage_id": _STORAGE, "generation": 1,
            "boots": 1, "nonce": "1" * 32, "firmware": "1.0",
        }  # fmt: skip
        known = {field.name for field in msgspec.structs.fields(Hello)}
        hello |= {"boot_id": "2" * 32, "certificate": "", "command_keys": []}
        found.append((up(device_id, UpChannel.HELLO), _json({k: v for k, v in hello.items() if k in known})))
        found.append((up(device_id, UpChannel.STATUS), encode(Status(device_id, 1, 1, online=True))))
        reply = {"command_id": "3" * 32, "status": "succeeded", "reason": "", "at": STARTED_MS}
        found.append((up(device_id, UpChannel.REPLY), _json(reply)))
    return found


def _said(kind_name: str, seed: int) -> list[tuple[Lane, int, bytes]]:
    """(lane, at, payload) of one simulated device whose people do everything they can."""
    world = World((kind_name,), {kind_name: 1}, seed, STARTED_MS, QUIET)
    (device_id,) = world.device_ids
    driver = devices.role(kind_name, "driver").create(device_id)
    line = world.line(device_id)
    said: list[tuple[Lane, int, bytes]] = []

    def take(output: DriverOutput) -> None:
        said.extend(
            (Lane.TELEMETRY, reading.at, b'{"readings":[' + reading.model_dump_json().encode() + b"]}")
            for reading in output.readings
        )
        said.extend((event.lane, at, event.model_dump_json().encode()) for at, event in output.events)
        if output.to_hardware or output.after_commit:
            line.from_driver(output.to_hardware + output.after_commit)

    line.attach(lambda data: take(driver.on_bytes(data, world.now_ms)))
    take(driver.on_start(world.now_ms))
    randomness = random.Random(seed)
    actions = world.actions(device_id)
    for _ in range(SAMPLE_STEPS):
        world.advance(world.now_ms + 20_000)
        try:
            world.act(device_id, randomness.choice(actions))
        except (ValueError, TypeError):  # an action that wants arguments, or is not possible now
            continue
    line.detach()
    return said


class Fuzzer:
    """`message()` for ever; the same seed and samples give the same messages."""

    def __init__(self, samples: Sequence[Message], device_ids: Sequence[str], seed: int) -> None:
        self._samples = samples
        self._device_ids = device_ids
        self._randomness = random.Random(seed)
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._flip, self._cut, self._repeat, self._insert, self._number, self._bend, self._bend, self._bend,
            self._deep, self._latin, self._noise, self._untouched, self._huge, self._double_key,
        )  # fmt: skip

    def message(self, device_id: str) -> Message:
        """One message that `device_id` may publish as far as the broker's rules go."""
        topic, payload = self._randomness.choice(self._samples)
        payload = self._randomness.choice(self._ways)(payload)[:PAYLOAD_BYTES_MAX]
        chance = self._randomness.random()
        if chance < 0.8:
            channel = self._randomness.choice(tuple(UpChannel)) if chance < 0.3 else UpChannel(topic.rpartition("/")[2])
            return up(device_id, channel), payload
        shard = self._randomness.choice((shard_of(device_id), self._randomness.randrange(-1, 100)))
        return f"{ROOT}/{shard}/{device_id}/up/{self._randomness.choice(_NAMES)}", payload

    def _flip(self, payload: bytes) -> bytes:
        changed = bytearray(payload)
        for _ in range(self._randomness.randint(1, 8)):
            changed[self._randomness.randrange(len(changed))] = self._randomness.randrange(256)
        return bytes(changed)

    def _cut(self, payload: bytes) -> bytes:
        return payload[: self._randomness.randrange(len(payload))]

    def _repeat(self, payload: bytes) -> bytes:
        start = self._randomness.randrange(len(payload))
        return payload[:start] + payload[start : start + 40] * self._randomness.randint(1, 20) + payload[start:]

    def _insert(self, payload: bytes) -> bytes:
        at = self._randomness.randrange(len(payload))
        return payload[:at] + self._randomness.randbytes(self._randomness.randint(1, 50)) + payload[at:]

    def _number(self, payload: bytes) -> bytes:
        """A number in the text becomes one that few places can hold."""
        digits = [at for at, byte in enumerate(payload) if 48 <= byte <= 57]
        if not digits:
            return payload
        at = self._randomness.choice(digits)
        return payload[:at] + self._randomness.choice(_NUMBERS).encode() + payload[at + 1 :]

    def _bend(self, payload: bytes) -> bytes:
        """One value somewhere in the document becomes another, of another type, or is gone or new."""
        document = json.loads(payload)
        place: Any = document
        for _ in range(8):
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = self._randomness.choice(keys)
            if isinstance(place[key], dict | list) and self._randomness.random() < 0.8:
                place = place[key]
                continue
            if isinstance(place, dict) and self._randomness.random() < 0.2:
                del place[key]
            elif isinstance(place, dict) and self._randomness.random() < 0.2:
                place[self._randomness.choice(_WORDS)] = 1
            else:
                place[key] = self._value()
            break
        return json.dumps(document, ensure_ascii=self._randomness.random() < 0.5).encode("utf-8", "surrogatepass")

    def _value(self) -> Any:
        return self._randomness.choice((
            None, True, [], {}, "", -1, 0, 2**53, 2**53 + 1, 2**64, -(2**70), 1e308, float("nan"), float("inf"), 0.1,
            [[]], {"a": 1}, self._randomness.choice(_WORDS), self._randomness.choice(self._device_ids),
            self._randomness.randrange(2**40), "f" * 32, "x" * 5_000, self._randomness.choice(tuple(Lane)).value,
        ))  # fmt: skip

    def _deep(self, payload: bytes) -> bytes:
        depth = self._randomness.choice((10, 500, 5_000, 30_000))
        return b"[" * depth + payload + b"]" * depth if self._randomness.random() < 0.5 else b'{"payload":' * depth

    def _latin(self, payload: bytes) -> bytes:
        at = self._randomness.randrange(len(payload))
        return payload[:at] + self._randomness.choice((b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\x00")) + payload[at:]

    def _noise(self, _: bytes) -> bytes:
        return self._randomness.randbytes(self._randomness.choice((0, 1, 10, 1_000)))

    def _untouched(self, payload: bytes) -> bytes:
        return payload

    def _huge(self, payload: bytes) -> bytes:
        if self._randomness.random() < 0.95:  # few, or the broker does nothing else
            return payload + b" "
        return payload[:-1] + b" " * (MESSAGE_BYTES_MAX - self._randomness.randint(-2_000, 2_000)) + payload[-1:]

    def _double_key(self, payload: bytes) -> bytes:
        return payload[:-1] + b',"seq":1,"device_id":"' + self._randomness.choice(self._device_ids).encode() + b'"}'


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
