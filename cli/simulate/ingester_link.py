"""The cloud's two connections to the simulated broker; emergencies have their own."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

from cli.simulate.broker import Broker
from cli.simulate.trace import Trace
from cloud.model import Downstream, Inbound
from fleet.topics import UpChannel

QUEUE_MESSAGES_MAX: Final = 20_000
RECONNECT_S: Final = 0.5
_EMERGENCY: Final = f"/{UpChannel.EMERGENCY.value}"
_TELEMETRY: Final = f"/{UpChannel.TELEMETRY.value}"
_LINGER_OTHERS_S: Final = 0.05


class IngesterLink:
    """`cloud.ports.Link`: two connections, emergencies on their own."""

    def __init__(self, broker: Broker, trace: Trace, *, linger_s: float, batch_messages_max: int) -> None:
        self.connected = False
        self.dead = False
        self.overflowed = 0
        self._broker = broker
        self._trace = trace
        self._linger_s = linger_s
        self._batch_messages_max = batch_messages_max
        self._shards: frozenset[int] = frozenset()
        self._on_ready: Callable[[], None] = lambda: None
        self._urgent: deque[Inbound] = deque()
        self._routine: deque[Inbound] = deque()
        self._routine_ready = False
        self._lingering: asyncio.TimerHandle | None = None
        self._connection = 0
        self._packet = 0
        self._unacknowledged: dict[tuple[int, int], None] = {}
        self._broke = asyncio.Event()
        self._last_s = {True: 0.0, False: 0.0}
        self._last_out_s = 0.0

    async def run(self, on_ready: Callable[[], None], shards: Collection[int]) -> None:
        """Keep connected."""
        self._on_ready, self._shards = on_ready, frozenset(shards)
        while True:
            await asyncio.sleep(RECONNECT_S * self._broker.weather.randomness.random())
            if not self._broker.up or self.dead:
                continue
            self._connection += 1
            self._broke.clear()
            self.connected = True
            self._broker.subscribe(self)
            self._trace.note("ingester_connected", self._connection)
            on_ready()
            await self._broke.wait()

    def broken(self) -> None:
        """The connections are gone, and with them everything that was not taken."""
        self.connected = False
        self._broker.unsubscribe(self)
        self._urgent.clear()
        self._routine.clear()
        self._unacknowledged.clear()
        self._routine_ready = False
        self._broke.set()

    def arrive(self, topic: str, payload: bytes) -> None:
        """The broker routes a message here."""
        if int(topic.split("/", 2)[1]) not in self._shards:
            return
        if len(self._unacknowledged) >= QUEUE_MESSAGES_MAX:
            self.overflowed += 1
            self._trace.note("overflowed", topic)
            return
        self._packet += 1
        self._unacknowledged[self._connection, self._packet] = None
        message = Inbound(topic, payload, self._packet, self._connection)
        delay_s = self._broker.weather.delay_s()
        if not delay_s:
            self._arrived(message)
            return
        urgent = topic.endswith(_EMERGENCY)
        self._last_s[urgent] = max(self._last_s[urgent] + 1e-9, self._broker.loop.time() + delay_s)
        self._broker.loop.call_at(self._last_s[urgent], self._arrived, message)

    def _arrived(self, message: Inbound) -> None:
        if message.connection != self._connection or not self.connected or self.dead:
            return
        if message.topic.endswith(_EMERGENCY):
            self._urgent.append(message)
            self._on_ready()
            return
        self._routine.append(message)
        if len(self._routine) >= self._batch_messages_max or not self._linger_s:
            self._lingered()
            return
        linger_s = self._linger_s if message.topic.endswith(_TELEMETRY) else min(self._linger_s, _LINGER_OTHERS_S)
        due_s = self._broker.loop.time() + linger_s
        if self._lingering is None or due_s < self._lingering.when():
            if self._lingering is not None:
                self._lingering.cancel()
            self._lingering = self._broker.loop.call_at(due_s, self._lingered)

    def _lingered(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._routine:
            self._routine_ready = True
            self._on_ready()

    def take(self, messages_max: int) -> Sequence[Inbound]:
        """A batch of emergencies, or of the rest."""
        if self._urgent:
            return [self._urgent.popleft() for _ in range(min(messages_max, len(self._urgent)))]
        if not self._routine_ready:
            return ()
        batch = [self._routine.popleft() for _ in range(min(messages_max, len(self._routine)))]
        self._routine_ready = bool(self._routine)
        return batch

    def acknowledge(self, messages: Sequence[Inbound]) -> None:
        """PUBACK."""
        for message in messages:
            self._unacknowledged.pop((message.connection, message.packet_id), None)

    def publish(self, messages: Sequence[Downstream]) -> None:
        """To devices."""
        if not self.connected or self.dead:
            return
        for message in messages:
            delay_s = self._broker.weather.delay_s()
            if delay_s:
                self._last_out_s = max(self._last_out_s + 1e-9, self._broker.loop.time() + delay_s)
                self._broker.loop.call_at(self._last_out_s, self._broker.to_device, message)
            else:
                self._broker.to_device(message)
