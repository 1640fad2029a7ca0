"""Messages to devices: a bounded queue, a window of unacknowledged ones, one write for many."""

import asyncio
import math
from collections import deque
from collections.abc import Collection, Iterable

import structlog
from mqtt5 import PubAckPacket, PublishPacket, QoS

from cloud.adapters.mqtt.connection import Connection
from cloud.adapters.mqtt.options import LinkStatistics, ReceiverOptions
from cloud.model import Downstream

_log = structlog.get_logger(__name__)

_PACKET_ID_MAX = 65_535
_REASON_ERROR = 128


class Publisher:
    """Sends in order, at least once: what the broker did not acknowledge is sent again on the next connection.

    Devices take repeats: acknowledgements are marks, commands carry an id they remember.
    """

    def __init__(self, options: ReceiverOptions, statistics: LinkStatistics) -> None:
        self._options = options
        self._statistics = statistics
        self._queue: deque[tuple[Downstream, bool]] = deque()
        self._in_flight: dict[int, Downstream] = {}
        self._packet_id = 0
        self._connection: Connection | None = None
        self._window = 0
        self._packet_bytes_max: int | None = None

    @property
    def waiting_count(self) -> int:
        """Queued and not yet acknowledged messages."""
        return len(self._queue) + len(self._in_flight)

    def offer(self, messages: Iterable[Downstream], *, confirmed: bool) -> None:
        """Queue and send as far as the window allows; beyond the bound the newest are dropped and counted.

        `confirmed` is QoS 1, else QoS 0.
        """
        for message in messages:
            if self.waiting_count >= self._options.publish_queue_max:
                self._statistics.publishes_dropped += 1
            else:
                self._queue.append((message, confirmed))
        self.pump()

    def attach(self, connection: Connection, receive_max: int, packet_bytes_max: int | None) -> None:
        """A connection is ready; `receive_max` and `packet_bytes_max` are the broker's limits."""
        self._connection = connection
        self._window = min(receive_max, self._options.publish_window_max)
        self._packet_bytes_max = packet_bytes_max
        self.pump()

    def detach(self) -> None:
        """The connection is gone: what it did not confirm goes back to the front, oldest first."""
        self._connection = None
        self._queue.extendleft((message, True) for message in reversed(self._in_flight.values()))
        self._in_flight.clear()

    def on_acknowledged(self, packet: PubAckPacket) -> None:
        """The broker answered one message; `pump` once all that it said in one read is known."""
        message = self._in_flight.pop(packet.packet_id, None)
        if message is not None and int(packet.reason_code) >= _REASON_ERROR:
            self._statistics.publishes_refused += 1
            _log.warning("publish refused", topic=message.topic, reason=packet.reason_code.name.lower())

    def pump(self) -> None:
        """Write what the window and the transport take, with one write."""
        connection = self._connection
        if connection is None or not connection.writable:
            return
        queue, in_flight, window = self._queue, self._in_flight, self._window
        reserved, now_s = connection.reserved_packet_ids(), asyncio.get_running_loop().time()
        parts = []
        while queue and len(in_flight) < window:
            message, confirmed = queue.popleft()
            # Zero seconds or less for which the broker may keep it: it waited too long.
            expiry_s = self._options.publish_expiry_s if message.expires_s is None else message.expires_s - now_s
            if expiry_s is not None and expiry_s <= 0:
                self._statistics.publishes_expired += 1
                continue
            packet_id = self._free_packet_id(reserved) if confirmed else None
            data = PublishPacket(
                message.topic,
                message.payload,
                qos=QoS.AT_LEAST_ONCE if confirmed else QoS.AT_MOST_ONCE,
                packet_id=packet_id,
                message_expiry_interval=None if expiry_s is None else math.ceil(expiry_s),
            ).write()
            if self._packet_bytes_max is not None and len(data) > self._packet_bytes_max:
                self._statistics.publishes_dropped += 1
                _log.error("publish is larger than the broker takes", topic=message.topic, packet_bytes=len(data))
                continue
            if packet_id is not None:
                in_flight[packet_id] = message
            parts.append(data)
        if parts:
            self._statistics.published += len(parts)
            connection.write(b"".join(parts))

    def _free_packet_id(self, reserved: Collection[int]) -> int:
        """The next id in use by nobody; the window is far smaller than the id space, so this ends."""
        while True:
            self._packet_id = self._packet_id % _PACKET_ID_MAX + 1
            if self._packet_id not in self._in_flight and self._packet_id not in reserved:
                return self._packet_id
