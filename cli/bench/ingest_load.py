"""A fleet's telemetry for the ingest bench, published by a process of its own (`python -m cli.bench.ingest_load`).

A few connections speak for all devices, each for a fixed part of them, so that every device's messages stay in order.
Messages are put together from parts that were encoded before: about 1 µs each, whatever their number, and nothing has
to be held in memory for a run of millions. What a device sends changes from message to message, as with sensors.

The process reads one JSON object a line: `{"go": {…Phase…}}` sends, `{"credit": n}` lets it go on to n messages.
"""

import json
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
from mqtt5 import ConnectPacket

from cli.bench.load import GENERATION, bench_device, reading
from fleet.envelope import Envelope, Lane, boot_epoch, encode
from fleet.topics import UpChannel, up

CONNECTIONS: Final = 4
CHUNK: Final = 100
TICK_S: Final = 0.002
"""With a rate, messages leave in steps of this length: they come evenly, not in heaps that are cheap to take."""
UNACKNOWLEDGED_MAX: Final = 4_000
"""Per connection, at the broker."""
VARIANTS_MIN: Final = 2
VARIANTS_MAX: Final = 20
_TEMPLATES_MAX: Final = 80_000
_PACKET_IDS: Final = [number.to_bytes(2) for number in range(1, 60_001)]
_SEQ: Final = 2**53 - 1
_AT: Final = 1_111_111_111_111
"""Stand for the two numbers that change in every message; ms since the epoch have 13 digits until the year 2286."""
_PUBACK: Final = 4


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who sends: devices 0 to `devices`-1, message `seq` of each being of the moment `at_ms + seq`."""

    devices: int
    at_ms: int
    qos: int = 1


@dataclass(frozen=True, slots=True)
class Phase:
    """What is sent: `rounds` messages of every device, beginning with `first_seq`.

    `rate`: messages per second; 0 = as fast as the broker and the receiver take them. `ahead`: messages that may be
    sent beyond the credit; 0 = no credit is asked for.
    """

    first_seq: int
    rounds: int
    rate: float = 0.0
    ahead: int = 0


def variants(devices: int) -> int:
    """How many different readings each device has."""
    return max(VARIANTS_MIN, min(VARIANTS_MAX, _TEMPLATES_MAX // devices))


def sent_reading(fleet: Fleet, number: int, seq: int) -> dict[str, Any]:
    """What device `number` reports in its message `seq`."""
    return reading(fleet.at_ms + seq, number, seq % variants(fleet.devices))


def sent_envelope(fleet: Fleet, number: int, seq: int) -> tuple[str, bytes]:
    """(topic, payload) of that message, encoded as a device does: the parts must come to the same bytes."""
    return _envelope(number, seq, fleet.at_ms + seq, sent_reading(fleet, number, seq))


def _envelope(number: int, seq: int, at_ms: int, made: dict[str, Any]) -> tuple[str, bytes]:
    device_id = bench_device(number)
    payload = msgspec.Raw(msgspec.json.encode({"readings": [made]}))
    envelope = Envelope(1, "bike", device_id, boot_epoch(GENERATION, 1), Lane.TELEMETRY, seq, at_ms, payload)
    return up(device_id, UpChannel.TELEMETRY), encode(envelope)


class Templates:
    """PUBLISH packets of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._variants = variants(fleet.devices)
        self._heads: list[bytes] = []  # property length and payload up to `seq`
        self._topics: list[bytes] = []
        self._tails: list[list[bytes]] = []  # per variant: behind the reading's time
        self._middle = self._before_at = b""
        for variant in range(self._variants):
            tails = []
            for number in range(fleet.devices):
                topic, payload = _envelope(number, _SEQ, _AT, reading(_AT, number, variant))
                head, rest = payload.split(str(_SEQ).encode())
                self._middle, self._before_at, tail = rest.split(str(_AT).encode())
                tails.append(tail)
                if not variant:
                    self._heads.append(b"\0" + head)
                    self._topics.append(len(topic).to_bytes(2) + topic.encode())
            self._tails.append(tails)
        self._leads: list[list[bytes]] = []
        self._digits = 0

    def packets(self, seq: int, first: int, end: int, packet_ids: Sequence[bytes]) -> bytes:
        """The message `seq` of devices `first` to `end`-1; `packet_ids` has one for each, unused at QoS 0."""
        at = str(self._fleet.at_ms + seq).encode()
        shared = b"".join((str(seq).encode(), self._middle, at, self._before_at, at))
        if len(str(seq)) != self._digits:
            self._digits = len(str(seq))
            self._leads = [self._lead(tails, len(shared)) for tails in self._tails]
        variant = seq % self._variants
        leads, heads, tails = self._leads[variant][first:end], self._heads[first:end], self._tails[variant][first:end]
        if self._fleet.qos:
            parts = zip(leads, packet_ids, heads, tails, strict=True)
            return b"".join([b"".join((lead, number, head, shared, tail)) for lead, number, head, tail in parts])
        return b"".join(
            [b"".join((lead, head, shared, tail)) for lead, head, tail in zip(leads, heads, tails, strict=True)]
        )

    def _lead(self, tails: Sequence[bytes], shared_bytes: int) -> list[bytes]:
        first = bytes([0x30 | self._fleet.qos << 1])
        fixed = shared_bytes + 2 * self._fleet.qos
        return [
            first + _varint(len(topic) + len(head) + fixed + len(tail)) + topic
            for topic, head, tail in zip(self._topics, self._heads, tails, strict=True)
        ]


def _varint(number: int) -> bytes:
    found = bytearray()
    while True:
        number, low = divmod(number, 128)
        found.append(low | (128 if number else 0))
        if not number:
            return bytes(found)


class Connection:
    """One connection to the broker that speaks for many devices."""

    def __init__(self, port: int, name: str, identity: Sequence[str]) -> None:
        """`identity`: files of authority, certificate and key for mutual TLS; empty connects in plain."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if identity:
            context = ssl.create_default_context(cafile=identity[0])
            context.load_cert_chain(identity[1], identity[2])
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.socket.sendall(ConnectPacket(name, clean_start=True, keep_alive=0).write())
        self.socket.recv(1024)
        self.sent = self.acknowledged = 0
        self.last_reason = 0
        self._rest = b""

    def packet_ids(self, count: int) -> list[bytes]:
        """The next ones; they repeat after 60,000."""
        start = self.sent % len(_PACKET_IDS)
        found = _PACKET_IDS[start : start + count]
        return found if len(found) == count else found + _PACKET_IDS[: count - len(found)]

    def send(self, data: bytes, count: int) -> None:
        """Send `count` messages."""
        self.socket.sendall(data)
        self.sent += count

    def readable(self) -> bool:
        """Whether an acknowledgement waits."""
        pending = self.socket.pending() if isinstance(self.socket, ssl.SSLSocket) else 0
        return pending > 0 or bool(select.select([self.socket], [], [], 0)[0])

    def read(self) -> None:
        """Count PUBACKs, waiting for the first; they are 4 to 6 bytes each, told apart by their length byte."""
        more = self.socket.recv(1 << 16)
        if not more:
            raise ConnectionError("the broker ended the load's connection")
        data = self._rest + more
        count = len(data) // 4
        if data[::4] == b"\x40" * count and data[1::4] == b"\x02" * count:  # nothing but short ones, as nearly always
            self.acknowledged += count
            self.last_reason = 0
            self._rest = b""
            return
        position = 0
        while position + 2 <= len(data) and position + 2 + data[position + 1] <= len(data):
            if data[position] >> 4 == _PUBACK:
                self.acknowledged += 1
                self.last_reason = data[position + 4] if data[position + 1] > 2 else 0
            position += 2 + data[position + 1]
        self._rest = data[position:]


class Commands:
    """Lines from whoever started us, read without waiting."""

    def __init__(self) -> None:
        self._rest = b""
        self._phases: list[Phase] = []
        self.credit = 0

    def wait_s(self, limit_s: float | None) -> None:
        """Wait for a line."""
        if not select.select([0], [], [], limit_s)[0]:
            return
        data = os.read(0, 1 << 16)
        if not data:
            raise SystemExit(0)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "credit" in command:
                self.credit = command["credit"]
            else:
                self._phases.append(Phase(**command["go"]))

    def next_phase(self) -> Phase:
        """The next one to send."""
        while not self._phases:
            self.wait_s(None)
        self.credit = 0
        return self._phases.pop(0)


def _parts(fleet: Fleet, phase: Phase) -> Iterator[tuple[int, int, int, int]]:
    """(seq, connection, first device, end device) of every chunk, in the order of sending."""
    chunk = max(1, min(CHUNK, round(phase.rate * TICK_S))) if phase.rate else CHUNK
    borders = [fleet.devices * number // CONNECTIONS for number in range(CONNECTIONS + 1)]
    spans = [
        (connection, first, min(first + chunk, borders[connection + 1]))
        for connection in range(CONNECTIONS)
        for first in range(borders[connection], borders[connection + 1], chunk)
    ]
    for seq in range(phase.first_seq, phase.first_seq + phase.rounds):
        for span in spans:
            yield seq, *span


def send(
    fleet: Fleet, phase: Phase, templates: Templates, connections: Sequence[Connection], commands: Commands
) -> dict[str, float]:
    """Send one phase; returns messages and the seconds until the broker had all of them."""
    started_s, sent = time.monotonic(), 0
    for seq, number, first, end in _parts(fleet, phase):
        connection, count = connections[number], end - first
        if phase.rate:
            _until(started_s + sent / phase.rate, connections)
        while phase.ahead and sent + count > commands.credit + phase.ahead:
            commands.wait_s(1.0)  # acknowledgements wait meanwhile: looking at each as it comes costs more than sending
        if phase.ahead:
            commands.wait_s(0)
        connection.send(templates.packets(seq, first, end, connection.packet_ids(count)), count)
        sent += count
        if fleet.qos:
            while connection.sent - connection.acknowledged > UNACKNOWLEDGED_MAX or connection.readable():
                connection.read()
    for connection in connections if fleet.qos else ():
        while connection.acknowledged < connection.sent:
            connection.read()
    return {"messages": sent, "seconds": time.monotonic() - started_s}


def _until(moment_s: float, connections: Sequence[Connection]) -> None:
    wait_s = moment_s - time.monotonic()
    if wait_s > 0:
        time.sleep(wait_s)
    _drain(connections)


def _drain(connections: Sequence[Connection]) -> None:
    for connection in connections:
        while connection.readable():
            connection.read()


def main() -> None:
    """`python -m cli.bench.ingest_load FLEET PORT [CA CERT KEY]`: sends the phases it is told until stdin ends."""
    fleet = Fleet(**json.loads(sys.argv[1]))
    templates = Templates(fleet)
    connections = [Connection(int(sys.argv[2]), f"bench-load-{n}", sys.argv[3:6]) for n in range(CONNECTIONS)]
    commands = Commands()
    print("ready", flush=True)
    while True:
        phase = commands.next_phase()
        print(json.dumps(send(fleet, phase, templates, connections, commands)), flush=True)


def arguments(fleet: Fleet, port: int, identity: Sequence[str]) -> list[str]:
    """The command line of this process."""
    return [sys.executable, "-m", "cli.bench.ingest_load", json.dumps(asdict(fleet)), str(port), *identity]


if __name__ == "__main__":
    main()
