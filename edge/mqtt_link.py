"""The link over MQTT 5 with TLS client certificates: an adapter on aiomqtt."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import aiomqtt

from edge.link import LinkError, Session
from fleet.envelope import Status, encode
from fleet.topics import DownChannel, UpChannel, down, up

_QOS: Final = 1
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

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if self.full():
            _log.error("more than %d messages from the cloud wait, one was discarded: %s", self.maxsize, item.topic)
        super().put_nowait(item)


class _MqttSession:
    def __init__(self, client: aiomqtt.Client, device_id: str) -> None:
        self._client = client
        self._topics = {channel: up(device_id, channel) for channel in UpChannel}
        self._channels = {down(device_id, channel): channel for channel in DownChannel}

    async def publish(self, channel: UpChannel, payload: bytes) -> None:
        try:
            await self._client.publish(self._topics[channel], payload, qos=_QOS)
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
        self, device_id: str, address: BrokerAddress, tls: ssl.SSLContext | None, *, connect_s_max: float = 10.0
    ) -> None:
        """`tls` None connects in plain: only for a broker on the same host."""
        self._connect_s_max = connect_s_max
        self._device_id = device_id
        self._address = address
        self._tls = tls

    @asynccontextmanager
    async def connect(self, will: Status, keep_alive_s: int) -> AsyncIterator[Session]:
        """See Link."""
        client = aiomqtt.Client(
            self._address.host,
            self._address.port,
            identifier=self._device_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=keep_alive_s,
            timeout=self._connect_s_max,
            tls_context=self._tls,
            max_queued_incoming_messages=_INCOMING_MAX,
            queue_type=_CountingQueue,
            will=aiomqtt.Will(up(self._device_id, UpChannel.STATUS), encode(will), qos=_QOS),
        )
        try:
            try:
                async with asyncio.timeout(2 * self._connect_s_max):
                    await client.__aenter__()
            except BaseException:
                # aiomqtt leaves the socket of a failed attempt open until the keep-alive runs out.
                with suppress(asyncio.CancelledError):  # of its own future, if it was cancelled while waiting
                    client._client.disconnect()  # noqa: SLF001
                    client._client.loop_write()  # noqa: SLF001
                raise
            client.timeout = _PUBLISH_S_MAX
            try:
                await client.subscribe([(down(self._device_id, channel), _QOS) for channel in DownChannel])
                yield _MqttSession(client, self._device_id)
            finally:
                client.timeout = _DISCONNECT_S_MAX  # a network that swallows everything must not delay the next attempt
                with suppress(aiomqtt.MqttError, TimeoutError):
                    await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, OSError, TimeoutError) as error:
            raise LinkError(str(error) or type(error).__name__) from error
