"""The ingester's way to the broker; implements `cloud.ports.Link`.

One task (`run`) keeps a connection; one consumer calls `next_batch` and, after its commit, `acknowledge`.
Nothing is acknowledged to the broker by itself. The session ends with the connection (clean start, expiry
0): the devices' journals are the durability, and what was not acknowledged comes again from there.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

import structlog

from cloud.adapters.mqtt.connection import Connection
from cloud.adapters.mqtt.inbox import Inbox
from cloud.adapters.mqtt.options import LinkRefusedError, LinkStatistics, ReceiverOptions
from cloud.adapters.mqtt.publisher import Publisher
from cloud.model import Downstream, Inbound
from fleet.randomness import Randomness

_log = structlog.get_logger(__name__)

_DOUBLINGS_MAX = 16


class MqttReceiver:
    """A connection that is always being kept. All methods belong to the event loop's thread.

    Args:
        options: where and how to connect.
        filters: subscriptions of the first connection; see `set_filters`.
        randomness: source of the reconnect jitter.
    """

    def __init__(self, options: ReceiverOptions, filters: Collection[str], randomness: Randomness) -> None:
        self.statistics = LinkStatistics()
        self._options = options
        self._filters = frozenset(filters)
        self._randomness = randomness
        self._inbox = Inbox()
        self._publisher = Publisher(options, self.statistics)
        self._current: Connection | None = None
        self._connected = asyncio.Event()
        self._reconciling = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether the broker has confirmed connection and subscriptions."""
        return self._connected.is_set()

    @property
    def publishes_waiting(self) -> int:
        """Messages to devices that the broker has not confirmed yet."""
        return self._publisher.waiting_count

    @property
    def publishes_max(self) -> int:
        """Bound of `publishes_waiting`."""
        return self._options.publish_queue_max

    async def wait_connected(self) -> None:
        """Return as soon as `connected` holds."""
        await self._connected.wait()

    async def run(self) -> None:
        """Keep a connection until cancelled; reconnects with full jitter, for ever."""
        failures = 0
        try:
            while True:
                try:
                    connection = await self._connect()
                except (OSError, TimeoutError, LinkRefusedError) as error:
                    self.statistics.connections_failed += 1
                    failures += 1
                    _log.warning("no connection to the broker", client_id=self._options.client_id, error=str(error))
                else:
                    failures = 0
                    reason = await connection.closed
                    self.statistics.connections_lost += 1
                    _log.warning("connection to the broker lost", client_id=self._options.client_id, reason=reason)
                self._forget()
                await asyncio.sleep(self._randomness.uniform(0, self._delay_s_max(failures)))
        finally:
            if self._current is not None:
                self._current.disconnect()
            self._forget()

    async def next_batch(self, messages_max: int, linger_s: float) -> list[Inbound]:
        """Messages in the order received; waits for the first, then up to `linger_s` for `messages_max`."""
        batch = await self._inbox.next_batch(messages_max, linger_s)
        if self._current is not None:
            self._current.reconsider_reading()
        return batch

    def forget_received(self) -> None:
        """Drop what nobody fetched; the broker was told nothing of it."""
        self._inbox.pending.clear()

    def acknowledge(self, messages: Iterable[Inbound]) -> None:
        """PUBACK these, in this order, with one write; those of an earlier connection are skipped and counted."""
        current = self._current
        number = current.number if current is not None else 0
        asked = [message for message in messages if message.packet_id]
        due = [message.packet_id for message in asked if message.connection == number]
        sent_count = current.acknowledge(due) if current is not None and due else 0
        self.statistics.messages_acknowledged += sent_count
        self.statistics.acknowledgements_stale += len(asked) - sent_count

    def publish(self, messages: Sequence[Downstream], *, confirmed: bool = True) -> None:
        """Queue for the devices, in order, with one write; kept over a reconnect.

        `confirmed` is QoS 1: sent until the broker confirms; else QoS 0. At the bound `publish_queue_max`
        the newest are dropped and counted.
        """
        self._publisher.offer(messages, confirmed=confirmed)

    async def set_filters(self, filters: Collection[str]) -> None:
        """Be subscribed to exactly these from now on; returns when the broker confirmed.

        Without a connection it returns at once and holds for the next one.

        Raises:
            LinkRefusedError: the broker refused; the connection is dropped and tried again.
        """
        self._filters = frozenset(filters)
        connection = self._current
        if connection is None:
            return
        try:
            await self._reconcile(connection)
        except LinkRefusedError as error:
            connection.abort(str(error))
            raise
        except ConnectionError:
            return  # the next connection starts with the new filters

    async def _connect(self) -> Connection:
        self.statistics.connections += 1
        connection = Connection(
            self.statistics.connections,
            self._options,
            self._inbox,
            statistics=self.statistics,
            on_published=self._publisher.on_acknowledged,
            on_writable=self._publisher.pump,
        )
        try:
            async with asyncio.timeout(self._options.connect_s_max):
                await self._open_transport(connection)
                answer = await connection.accepted
                self._current = connection
                await self._reconcile(connection)
        except BaseException as error:
            connection.abort(str(error) or type(error).__name__)
            self._current = None
            raise
        self._publisher.attach(connection, answer.receive_max, answer.max_packet_size)
        self._connected.set()
        _log.info("connected to the broker", client_id=self._options.client_id, connection=connection.number)
        return connection

    async def _open_transport(self, connection: Connection) -> None:
        options = self._options
        loop = asyncio.get_running_loop()
        if options.unix_path is not None:
            await loop.create_unix_connection(lambda: connection, str(options.unix_path))
            return
        await loop.create_connection(
            lambda: connection,
            options.host,
            options.port,
            ssl=options.tls,
            server_hostname=(options.server_hostname or options.host) if options.tls is not None else None,
        )

    async def _reconcile(self, connection: Connection) -> None:
        async with self._reconciling:
            while connection.filters != self._filters:
                wanted = self._filters
                await connection.unsubscribe(sorted(connection.filters - wanted))
                await connection.subscribe(sorted(wanted - connection.filters))

    def _forget(self) -> None:
        self._connected.clear()
        self._current = None
        self._publisher.detach()

    def _delay_s_max(self, failures: int) -> float:
        return min(self._options.reconnect_s_max, self._options.reconnect_base_s * 2.0 ** min(failures, _DOUBLINGS_MAX))
