"""One network connection to the broker: bytes ↔ packets, keep-alive, and when to read.

Everything here runs on the event loop; nothing awaits inside a callback. The transport writes into our
buffer, `buffer_updated` turns it into `Inbound` messages. That loop is the hottest of the product:
0.6 µs of its 0.8 µs per message are the codec (decoding PUBLISH by hand in Python took 0.7).
"""

import asyncio
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import structlog
from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    DisconnectPacket,
    Packet,
    PingReqPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubAckPacket,
    SubscribePacket,
    TopicFilter,
    UnsubAckPacket,
    UnsubscribePacket,
    read,
)

from cloud.adapters.mqtt.inbox import Inbox
from cloud.adapters.mqtt.options import LinkRefusedError, LinkStatistics, ReceiverOptions
from cloud.adapters.mqtt.salvage import salvage_publish
from cloud.model import Inbound
from fleet.compact import MARK, unpacked

_log = structlog.get_logger(__name__)

_BUFFER_PACKETS: Final = 4
_AT_ONCE_S: Final = 0.002
_PUBACK: Final = 0x4002_0000  # type and length of a PUBACK without reason; the packet id fills the low half
_REASON_ERROR: Final = 128
_PINGREQ: Final = PingReqPacket().write()


class Connection(asyncio.BufferedProtocol):
    """From TCP connect to loss; a new one is made for every reconnect. `number` marks its messages."""

    def __init__(
        self,
        number: int,
        options: ReceiverOptions,
        inbox: Inbox,
        *,
        statistics: LinkStatistics,
        on_published: Callable[[PubAckPacket], None],
        on_writable: Callable[[], None],
    ) -> None:
        self.number = number
        self._options = options
        self._inbox = inbox
        self._statistics = statistics
        self._on_published = on_published
        self._on_writable = on_writable
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._view = memoryview(bytearray(_BUFFER_PACKETS * options.packet_bytes_max))
        self._filled = 0
        self._unacknowledged: set[int] = set()
        self._replies: dict[int, asyncio.Future[SubAckPacket | UnsubAckPacket]] = {}
        self._reply_id = 0
        self._window_moved = False
        self._urgent = False
        self._resumed_at = 0.0
        self._coalescing = False
        self._full = False
        self._reading = True
        self._alive_at = self._loop.time()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._keep_alive_s = float(options.keep_alive_s)
        self.writable = True
        self.filters: set[str] = set()
        self.reason = "connection lost"
        self.accepted: asyncio.Future[ConnAckPacket] = self._loop.create_future()
        self.closed: asyncio.Future[str] = self._loop.create_future()

    # --- transport callbacks -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        options = self._options
        self.write(
            ConnectPacket(
                options.client_id,
                username=options.username,
                password=options.password.encode() if options.password is not None else None,
                clean_start=True,
                keep_alive=options.keep_alive_s,
                session_expiry_interval=0,
                receive_max=options.receive_max,
                max_packet_size=options.packet_bytes_max,
            ).write(),
        )

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the transport's wish; we offer all there is
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        end = self._filled + nbytes
        position = self._read_packets(end)
        rest = end - position
        if rest and position:
            self._view[:rest] = self._view[position:end]
        self._filled = rest
        if rest == len(self._view):
            self.abort("a packet is larger than the broker was told to send")
            return
        self._alive_at = self._loop.time()
        self._statistics.reads += 1
        if self._window_moved:  # one write for all that the broker's answers made room for
            self._window_moved = False
            self._on_writable()
        if self._inbox.pending:
            self._pace(nbytes)
        self.reconsider_reading()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._on_writable()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.reason = f"{self.reason}: {exc}"
        for timer in self._timers.values():
            timer.cancel()
        error = ConnectionError(self.reason)
        waiting: list[asyncio.Future[Any]] = [self.accepted, *self._replies.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
            if not future.cancelled():
                future.exception()  # marks it as seen: nobody may be waiting any more
        self._replies.clear()
        self._unacknowledged.clear()
        if not self.closed.done():
            self.closed.set_result(self.reason)

    # --- receiving ---------------------------------------------------------------------------------------------

    def _read_packets(self, end: int) -> int:
        """Take whole packets out of the buffer; returns the position of the first incomplete one."""
        view = self._view
        number = self.number
        append = self._inbox.pending.append
        remember = self._unacknowledged.add
        patient = self._options.patient_suffix
        before = len(self._inbox.pending)
        position = 0
        while position < end:
            try:
                packet, size = read(view[position:end])
            except IndexError:
                break  # incomplete: the rest follows with the next read
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  # ValueError, or a panic of the Rust code, no Exception
                size = self._salvage(view[position:end])
                if not size:
                    self.abort(f"unreadable packet: {error}")
                    return end
                position += size
                continue
            position += size
            if type(packet) is PublishPacket:
                topic, packet_id, payload = packet.topic, packet.packet_id, packet.payload
                if not topic.endswith(patient):
                    self._urgent = True
                if payload[:1] == MARK:
                    payload = unpacked(payload)
                if packet_id is None:
                    append(Inbound(topic, payload, 0, number))
                else:
                    append(Inbound(topic, payload, packet_id, number))
                    remember(packet_id)
            else:
                self._on_control(packet)
        self._statistics.messages_received += len(self._inbox.pending) - before
        return position

    def _salvage(self, data: memoryview) -> int:
        """Take a PUBLISH that the codec refused; returns its size, 0 if there is none to be read."""
        salvaged = salvage_publish(data)
        if salvaged is None:
            return 0
        self._statistics.packets_salvaged += 1
        self._urgent = self._urgent or not salvaged.topic.endswith(self._options.patient_suffix)
        self._inbox.pending.append(Inbound(salvaged.topic, salvaged.payload, salvaged.packet_id, self.number))
        if salvaged.packet_id:
            self._unacknowledged.add(salvaged.packet_id)
        return salvaged.size_bytes

    def _on_control(self, packet: Packet) -> None:
        match packet:
            case PubAckPacket():
                self._on_published(packet)
                self._window_moved = True
            case ConnAckPacket():
                self._on_connack(packet)
            case SubAckPacket() | UnsubAckPacket():
                reply = self._replies.pop(packet.packet_id, None)
                if reply is not None and not reply.done():
                    reply.set_result(packet)
            case DisconnectPacket():
                self.abort(f"the broker disconnected us: {packet.reason_code.name.lower()} {packet.reason_str or ''}")
            case _:
                pass  # PINGRESP; any byte that arrives counts as alive

    def _on_connack(self, packet: ConnAckPacket) -> None:
        if packet.reason_code != ConnAckReasonCode.SUCCESS:
            words = packet.reason_str or packet.reason_code.name.lower()
            if not self.accepted.done():
                self.accepted.set_exception(LinkRefusedError(f"the broker refused the connection: {words}"))
            self.abort(words)
            return
        if packet.server_keep_alive is not None:
            self._keep_alive_s = float(packet.server_keep_alive)
        if self._keep_alive_s > 0:
            self._timers["ping"] = self._loop.call_later(self._keep_alive_s / 2, self._ping)
        if not self.accepted.done():
            self.accepted.set_result(packet)

    # --- when to read ------------------------------------------------------------------------------------------

    def reconsider_reading(self) -> None:
        """Read unless a pause to coalesce is on or too much is held; called whenever either may have changed."""
        held_count = max(len(self._unacknowledged), len(self._inbox.pending))
        if not self._full and held_count >= self._options.held_max:
            self._full = True
            self._statistics.backpressure_pauses += 1
        elif self._full and held_count <= self._options.held_max // 2:
            self._full = False
        wanted = not (self._coalescing or self._full)
        if wanted is self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._alive_at = self._loop.time()
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _pace(self, nbytes: int) -> None:
        """After a read: whether its batch waits for more, and how long reading pauses."""
        options = self._options
        few = options.coalesce_few_s > 0 and nbytes < options.few_bytes
        # What is read right after a pause waited for as long as a batch may; the first words after a silence did not.
        waited = few and self._alive_at - self._resumed_at < _AT_ONCE_S
        self._inbox.arrived(complete=waited or self._urgent)
        self._urgent = False
        pause_s = options.coalesce_few_s if few else options.coalesce_s
        if pause_s > 0 and not self._coalescing:
            self._coalescing = True
            self._timers["coalesce"] = self._loop.call_later(pause_s, self._end_coalescing)

    def _end_coalescing(self) -> None:
        self._coalescing = False
        self._resumed_at = self._loop.time()
        self.reconsider_reading()

    def _ping(self) -> None:
        now = self._loop.time()
        if not self._reading:
            self._alive_at = now  # nothing can be heard while we do not listen
        if now - self._alive_at > self._keep_alive_s * 1.5:
            self.abort("the broker fell silent")
            return
        self.write(_PINGREQ)
        self._timers["ping"] = self._loop.call_later(self._keep_alive_s / 2, self._ping)

    # --- sending -----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport; silently nothing once the connection is going down."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def acknowledge(self, packet_ids: Iterable[int]) -> int:
        """Send PUBACKs in the given order with one write; returns how many were due."""
        unacknowledged = self._unacknowledged
        due = []
        for packet_id in packet_ids:
            if packet_id in unacknowledged:
                unacknowledged.remove(packet_id)
                due.append(packet_id | _PUBACK)
        if due:
            self.write(struct.pack(f">{len(due)}I", *due))
            self.reconsider_reading()
        return len(due)

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe at QoS 1, in packets of `filters_per_subscribe`.

        Raises:
            LinkRefusedError: the broker refused a filter; nothing can be concluded about the others.
            ConnectionError: the connection ended first.
        """
        for chunk in self._chunks(filters):
            topic_filters = [TopicFilter(text, max_qos=QoS.AT_LEAST_ONCE) for text in chunk]
            self._reply_id += 1  # a connection makes far fewer requests than there are packet ids
            answer = await self._answer_to(SubscribePacket(self._reply_id, topic_filters))
            refused = [
                text for text, code in zip(chunk, answer.reason_codes, strict=True) if int(code) >= _REASON_ERROR
            ]
            if refused:
                raise LinkRefusedError(f"the broker refused the subscription {refused[0]!r}")
            self.filters.update(chunk)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Give up subscriptions; raises ConnectionError."""
        for chunk in self._chunks(filters):
            self._reply_id += 1
            await self._answer_to(UnsubscribePacket(self._reply_id, chunk))
            self.filters.difference_update(chunk)

    def _chunks(self, filters: Sequence[str]) -> list[list[str]]:
        size = self._options.filters_per_subscribe
        return [list(filters[start : start + size]) for start in range(0, len(filters), size)]

    async def _answer_to(self, request: SubscribePacket | UnsubscribePacket) -> SubAckPacket | UnsubAckPacket:
        if self.closed.done():
            raise ConnectionError(self.reason)
        reply: asyncio.Future[SubAckPacket | UnsubAckPacket] = self._loop.create_future()
        self._replies[request.packet_id] = reply
        self.write(request.write())
        return await reply

    def reserved_packet_ids(self) -> Collection[int]:
        """Packet ids that a PUBLISH must not use now."""
        return self._replies.keys()

    def disconnect(self) -> None:
        """Say goodbye and close after what is written."""
        self.reason = "closed by us"
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(DisconnectPacket().write())
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""
        self.reason = reason
        _log.warning("link aborted", client_id=self._options.client_id, reason=reason)
        if self._transport is not None:
            self._transport.abort()
