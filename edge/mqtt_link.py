"""The link over MQTT 5 with TLS client certificates: an adapter on aiomqtt."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiomqtt

from edge.link import IdentityRefusedError, LinkError, Session
from edge.tls_trouble import TlsTrouble, explained, refuse_ended_certificate
from fleet.compact import packed
from fleet.envelope import Status, encode
from fleet.topics import DownChannel, UpChannel, down, up

_QOS: Final = 1
_DOWN_QOS: Final = {channel: 0 if channel is DownChannel.ACK else _QOS for channel in DownChannel}
"""Acknowledgements are cumulative and asked for again by resending; the broker's own handshake for each is paid for."""
_INCOMING_MAX: Final = 256
_PUBLISH_S_MAX: Final = 10.0
_DISCONNECT_S_MAX: Final = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker listens."""

    host: str
    port: int = 8883


class _CountingQueue(asyncio.Queue[aiomqtt.Message]):
    """What does not fit is refused loudly; the cloud repeats acknowledgements, and commands expire."""

    def __init__(self, maxsize: int = 0, *, on_discarded: Callable[[], None] = lambda: None) -> None:
        super().__init__(maxsize)
        self.on_discarded = on_discarded

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if self.full():
            self.on_discarded()
            _log.error("more than %d messages from the cloud wait, one was discarded: %s", self.maxsize, item.topic)
        super().put_nowait(item)


def _cancellations() -> int:
    """How often somebody asked the running task to end.

    The library waits with `asyncio.wait_for`: in Python 3.11 that swallows a cancellation that comes with the answer.
    """
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _look_at(future: "asyncio.Future[None]") -> None:
    """Or else every connection that breaks at the wrong moment puts a traceback into the log."""
    if not future.cancelled():
        future.exception()


def _end_if_cancelled_since(before: int) -> None:
    if _cancellations() > before:
        raise asyncio.CancelledError


class _MqttSession:
    def __init__(self, client: aiomqtt.Client, device_id: str, *, compact: bool) -> None:
        self._client = client
        self._compact = compact
        self._topics = {channel: up(device_id, channel) for channel in UpChannel}
        self._channels = {down(device_id, channel): channel for channel in DownChannel}

    async def publish(self, channel: UpChannel, payload: bytes) -> None:
        before = _cancellations()
        try:
            if self._compact and channel is UpChannel.TELEMETRY:
                payload = packed(payload)
            await self._client.publish(self._topics[channel], payload, qos=_QOS)
            _end_if_cancelled_since(before)
        except aiomqtt.MqttError as error:
            raise LinkError(str(error)) from error

    async def received(self) -> AsyncIterator[tuple[DownChannel, bytes]]:
        try:
            async for message in self._client.messages:
                channel = self._channels.get(message.topic.value)
                if channel is not None and isinstance(message.payload, bytes):
                    yield channel, message.payload
        except aiomqtt.MqttError as error:
            raise LinkError(str(error)) from error


class MqttLink:
    """Connections of one device to one broker; clean start, session expiry 0: the journal is the memory."""

    def __init__(
        self,
        device_id: str,
        address: BrokerAddress,
        tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None,
        *,
        connect_s_max: float = 10.0,
        trusted_ms: Callable[[], int | None] = lambda: None,
        compact: bool = False,
    ) -> None:
        """Says where and as whom to connect.

        Args:
            device_id: client id and topics.
            address: of the broker.
            tls: a function is asked before each connection; None connects in plain, on the same host only.
            connect_s_max: patience for one attempt.
            trusted_ms: the cloud's time, by which the dates of the broker's certificate are checked; None: not known.
            compact: telemetry in fewer bytes (`fleet.compact`), for devices that pay for each.
        """
        self.discarded = 0
        """Messages from the cloud that found no room here."""
        self._trusted_ms = trusted_ms
        self._compact = compact
        self._connect_s_max = connect_s_max
        self._device_id = device_id
        self._address = address
        self._tls = tls

    def _note_discarded(self) -> None:
        self.discarded += 1

    @asynccontextmanager
    async def connect(self, will: Status, keep_alive_s: int) -> AsyncIterator[Session]:
        """See Link."""
        before = _cancellations()
        told = TlsTrouble(self._device_id)
        client = aiomqtt.Client(
            self._address.host,
            self._address.port,
            identifier=self._device_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=keep_alive_s,
            timeout=self._connect_s_max,
            tls_context=self._tls() if callable(self._tls) else self._tls,
            logger=told,
            max_queued_incoming_messages=_INCOMING_MAX,
            queue_type=partial(_CountingQueue, on_discarded=self._note_discarded),  # type: ignore[arg-type]  # a factory
            will=aiomqtt.Will(up(self._device_id, UpChannel.STATUS), encode(will), qos=_QOS),
        )
        client._disconnected.add_done_callback(_look_at)  # noqa: SLF001  # nobody does who is not just waiting for it
        try:
            try:
                async with asyncio.timeout(2 * self._connect_s_max) as patience:
                    told.on_refusal = partial(patience.reschedule, 0.0)
                    try:
                        await client.__aenter__()
                        client._disconnected.add_done_callback(_look_at)  # noqa: SLF001  # perhaps a new one
                    finally:
                        told.on_refusal = None
                    _end_if_cancelled_since(before)
            except BaseException:
                # aiomqtt leaves the socket of a failed attempt open until the keep-alive runs out.
                with suppress(asyncio.CancelledError):  # of its own future, if it was cancelled while waiting
                    client._client.on_socket_register_write = None  # noqa: SLF001  # of a socket that is gone by then
                    client._client.disconnect()  # noqa: SLF001
                    client._client.loop_write()  # noqa: SLF001
                raise
            refuse_ended_certificate(client._client.socket(), self._trusted_ms(), self._address.host)  # noqa: SLF001
            client.timeout = _PUBLISH_S_MAX
            try:
                await client.subscribe(
                    [(down(self._device_id, channel), _DOWN_QOS[channel]) for channel in DownChannel]
                )
                _end_if_cancelled_since(before)
                yield _MqttSession(client, self._device_id, compact=self._compact)
            finally:
                client.timeout = _DISCONNECT_S_MAX  # a network that swallows everything must not delay the next attempt
                with suppress(aiomqtt.MqttError, TimeoutError):
                    await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, OSError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            if (refusal := explained(f"{text} {told.heard}", self._address.host)) is not None:
                raise IdentityRefusedError(refusal) from error
            raise LinkError(text) from error
