"""Pre-encoded telemetry for benches, published by a process of its own (`python -m cli.bench.load …`).

Messages are made before the clock starts, so that the publisher costs little and disturbs nobody. Each
message is the next one of its device's lane, as a real device would send it.
"""

import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from mqtt5 import ConnectPacket, PublishPacket, QoS

from fleet.envelope import Envelope, Lane, boot_epoch, encode
from fleet.topics import UpChannel, up

DEVICES: Final = 400
CHUNK: Final = 250
AHEAD_MAX: Final = 8_000
"""Unacknowledged messages at the broker: enough to keep it busy, small against its queue."""
GENERATION: Final = 1
LOW_BATTERY_DEVICES: Final = 5
"""The first devices report an empty battery, so that the rules have something to find."""


def bench_device(number: int) -> str:
    """Id of the bench's device `number`, from 0."""
    return f"bike-{number + 1:04d}"


def reading(at_ms: int, number: int, seq: int) -> dict[str, Any]:
    """A parked bike's reading; what sensors measure changes from message to message, as noise does."""
    return {
        "at": at_ms,
        "battery_percent": 4.0 if number < LOW_BATTERY_DEVICES else 40 + (number * 7 + seq) % 600 / 10,
        "latitude": 38.8601 + number / 100_000 + seq % 10 / 1_000_000,
        "longitude": 121.5101 + number / 100_000 + seq % 7 / 1_000_000,
        "accuracy_metres": 3.5 + seq % 20 / 10,
        "speed_metres_per_second": 0.0,
        "lock_state": "locked",
        "tilt_degrees": 2.0 + seq % 9 / 10,
        "signal_dbm": -70 - seq % 20,
        "odometer_metres": 1234.5,
        "temperature_celsius": 20.0 + seq % 30 / 10,
    }


def telemetry(number: int, seq: int, at_ms: int, kind: str = "bike") -> tuple[str, bytes]:
    """(topic, payload) of one message of device `number`."""
    device_id = bench_device(number)
    payload = msgspec.Raw(msgspec.json.encode({"readings": [reading(at_ms, number, seq)]}))
    envelope = Envelope(1, kind, device_id, boot_epoch(GENERATION, 1), Lane.TELEMETRY, seq, at_ms, payload)
    return up(device_id, UpChannel.TELEMETRY), encode(envelope)


def chunks(first_seq: int, messages: int, at_ms: int, step_ms: int = 0) -> list[tuple[int, bytes]]:
    """(messages, bytes) ready for the wire, round robin over the devices; packet ids repeat after 60,000.

    A device's message `seq` is of the moment `at_ms + seq * step_ms`.
    """
    made: list[tuple[int, bytes]] = []
    buffer: list[bytes] = []
    for index in range(messages):
        seq = first_seq + index // DEVICES
        topic, payload = telemetry(index % DEVICES, seq, at_ms + seq * step_ms)
        packet = PublishPacket(topic, payload, qos=QoS.AT_LEAST_ONCE, packet_id=index % 60_000 + 1)
        buffer.append(packet.write())
        if len(buffer) == CHUNK:
            made.append((CHUNK, b"".join(buffer)))
            buffer = []
    if buffer:
        made.append((len(buffer), b"".join(buffer)))
    return made


def _counted(connection: socket.socket) -> Iterator[int]:
    """PUBACKs per read; they are 4 to 6 bytes each, told apart by their length byte."""
    rest = b""
    while True:
        received = connection.recv(1 << 16)
        if not received:
            raise ConnectionError("the broker closed the connection of the load")
        data = rest + received
        position = count = 0
        while position + 2 <= len(data) and position + 2 + data[position + 1] <= len(data):
            count += data[position] >> 4 == 4
            position += 2 + data[position + 1]
        rest = data[position:]
        yield count


def _readable(connection: socket.socket) -> bool:
    pending = connection.pending() if isinstance(connection, ssl.SSLSocket) else 0
    return pending > 0 or bool(select.select([connection], [], [], 0)[0])


def publish(port: int, wire: list[tuple[int, bytes]], rate: float, identity: Sequence[str]) -> dict[str, float]:
    """Send everything at QoS 1; `rate` 0 = as fast as the broker takes it. Returns seconds and messages.

    `identity`: files of authority, certificate and key for mutual TLS; empty connects in plain.
    """
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if identity:
        context = ssl.create_default_context(cafile=identity[0])
        context.load_cert_chain(identity[1], identity[2])
        connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
    connection.sendall(ConnectPacket("bench-load", clean_start=True).write())
    connection.recv(1024)
    acks = _counted(connection)
    started = time.monotonic()
    sent = acknowledged = 0
    for count, data in wire:
        if rate:
            ahead_s = sent / rate - (time.monotonic() - started)
            if ahead_s > 0:
                time.sleep(ahead_s)
        connection.sendall(data)
        sent += count
        while sent - acknowledged > AHEAD_MAX or _readable(connection):
            acknowledged += next(acks)
    while acknowledged < sent:
        acknowledged += next(acks)
    return {"messages": sent, "seconds": time.monotonic() - started}


def main() -> None:
    """`python -m cli.bench.load PORT FIRST_SEQ MESSAGES AT_MS STEP_MS RATE [CA CERT KEY]`: waits for a line, sends."""
    port, first_seq, messages, at_ms, step_ms, rate = (float(text) for text in sys.argv[1:7])
    wire = chunks(int(first_seq), int(messages), int(at_ms), int(step_ms))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(publish(int(port), wire, rate, sys.argv[7:10])), flush=True)


if __name__ == "__main__":
    main()
