"""What receiving costs: our receiver and `mosquitto_sub`, one after the other, from the same broker.

The publisher is a process of its own (`python -m cloud.adapters.mqtt.measure …`), so that its cost is in
neither figure. Quote a result together with its rate and as a ratio: machines differ, ratios less.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from random import Random
from typing import Final

from mqtt5 import ConnectPacket, DisconnectPacket, PublishPacket

from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.adapters.mqtt.receiver import MqttReceiver
from cloud.model import Downstream

_DEVICE_COUNT: Final = 400
_PAYLOAD: Final = b'{"x":"' + b"0123456789" * 17 + b'"}   '
_TOPICS: Final = "m/+/+"
_BATCH_MAX: Final = 1000
_LINGER_S: Final = 0.05
_CHUNK_MESSAGES: Final = 200
_AHEAD_MESSAGES_MAX: Final = 4_000
_POLL_S: Final = 0.001
_RECEIVE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class ReceiveCost:
    """CPU µs per QoS 1 message of each receiver, and how fast the messages came meanwhile."""

    messages: int
    cpu_us_per_message: float
    messages_per_second: float
    mosquitto_sub_cpu_us_per_message: float
    mosquitto_sub_messages_per_second: float

    @property
    def ratio_mosquitto_sub(self) -> float:
        """How many times cheaper than `mosquitto_sub` ours is."""
        return self.mosquitto_sub_cpu_us_per_message / self.cpu_us_per_message


async def measure_receive(port: int, messages: int = 100_000, rate_per_second: float = 0.0) -> ReceiveCost:
    """Receive `messages` of 180 bytes at QoS 1 from the broker on loopback `port`, every batch acknowledged.

    `rate_per_second` 0 means as fast as publisher and broker go. The broker must take anonymous clients
    and must not drop: raise its `max_queued_messages`, set `max_inflight_messages 0`.
    """
    ours = await _measure_ours(port, messages, rate_per_second)
    theirs = await asyncio.to_thread(_measure_mosquitto_sub, port, messages, rate_per_second)
    return ReceiveCost(messages, *ours, *theirs)


async def _measure_ours(port: int, messages: int, rate_per_second: float) -> tuple[float, float]:
    options = ReceiverOptions(client_id="measure-ours", port=port)
    receiver = MqttReceiver(options, [_TOPICS], Random(1))  # noqa: S311  # jitter only
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(receiver.run())
        await receiver.wait_connected()
        with _publisher(port, messages, rate_per_second) as publisher:
            first_count = received = await _take_batch(receiver)
            cpu_before_s, real_before_s = time.process_time(), time.perf_counter()
            while received < messages:
                received += await _take_batch(receiver)
            cpu_s, real_s = time.process_time() - cpu_before_s, time.perf_counter() - real_before_s
            await asyncio.to_thread(publisher.wait)
        keeping.cancel()
    counted = messages - first_count
    return cpu_s / counted * 1e6, counted / real_s


async def _take_batch(receiver: MqttReceiver) -> int:
    batch = await receiver.next_batch(_BATCH_MAX, _LINGER_S)
    receiver.acknowledge(batch)
    return len(batch)


def _measure_mosquitto_sub(port: int, messages: int, rate_per_second: float) -> tuple[float, float]:
    _set_retained(port, b"ready")  # its delivery proves the subscription
    command = ["mosquitto_sub", "-V", "5", "-p", str(port), "-q", "1", "-t", _TOPICS, "-C", str(messages + 1)]
    with subprocess.Popen([*command, "-F", "%t"], stdout=subprocess.PIPE) as subscriber:  # noqa: S603  # our own arguments
        assert subscriber.stdout is not None
        subscriber.stdout.readline()
        real_before_s = time.perf_counter()
        with _publisher(port, messages, rate_per_second):
            while os.read(subscriber.stdout.fileno(), _RECEIVE_BYTES):
                pass
            real_s = time.perf_counter() - real_before_s
        _, status, usage = os.wait4(subscriber.pid, 0)
        subscriber.returncode = os.waitstatus_to_exitcode(status)
    _set_retained(port, b"")
    return (usage.ru_utime + usage.ru_stime) / messages * 1e6, messages / real_s


def _set_retained(port: int, payload: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as broker:
        broker.sendall(ConnectPacket("measure-marker", clean_start=True).write())
        broker.recv(_RECEIVE_BYTES)
        broker.sendall(PublishPacket("m/0/ready", payload, retain=True).write() + DisconnectPacket().write())
        while broker.recv(_RECEIVE_BYTES):
            pass


def _publisher(port: int, messages: int, rate_per_second: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", __spec__.name, str(port), str(messages), str(rate_per_second)])  # noqa: S603  # ourselves


async def _publish(port: int, messages: int, rate_per_second: float) -> None:
    options = ReceiverOptions(client_id="measure-publisher", port=port, publish_window_max=_AHEAD_MESSAGES_MAX)
    sender = MqttReceiver(options, [], Random(2))  # noqa: S311  # jitter only
    chunk = [Downstream(f"m/{index % 64}/device-{index}", _PAYLOAD) for index in range(_DEVICE_COUNT)]
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(sender.run())
        await sender.wait_connected()
        started_s = time.perf_counter()
        sent = 0
        while sent < messages:
            allowed = messages if rate_per_second <= 0 else int((time.perf_counter() - started_s) * rate_per_second)
            count = min(messages - sent, allowed - sent, _CHUNK_MESSAGES)
            if count > 0 and sender.publishes_waiting < _AHEAD_MESSAGES_MAX:
                start = sent % _DEVICE_COUNT
                sender.publish((chunk + chunk)[start : start + count])
                sent += count
            await asyncio.sleep(0 if count == _CHUNK_MESSAGES and rate_per_second <= 0 else _POLL_S)
        while sender.publishes_waiting:  # noqa: ASYNC110  # a benchmark's end, not worth an event in the sender
            await asyncio.sleep(_POLL_S)
        keeping.cancel()


if __name__ == "__main__":
    asyncio.run(_publish(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
