"""A message broker in memory: QoS 1 with everything that may go wrong between two machines.

It keeps nothing across `kill`. A device has one session, which a later connection takes over; its last will is
published when it breaks. What the broker acknowledged to a device is not delivered yet: the queue of an ingester is
bounded, and what an ingester had not taken is lost with its connection (expiry 0), as with the real one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

from cli.simulate.trace import Trace
from cli.simulate.weather import Weather
from cli.simulate.wiretap import Wiretap
from cloud.model import Downstream
from edge.link import LinkError
from fleet import topics
from fleet.envelope import Status, encode
from fleet.topics import DownChannel, UpChannel

_ORDERS_SHARE: Final = 0.6
_ORDER_ID: Final = b'\\"id\\":\\"'
_WELCOME: Final = b'"type":"welcome"'


class Subscriber(Protocol):
    """An ingester's connections, as the broker sees them."""

    def arrive(self, topic: str, payload: bytes) -> None:
        """A message for it."""
        ...

    def broken(self) -> None:
        """The broker is gone."""
        ...


class DeviceSession:
    """One connection of one device; `edge.link.Session`."""

    def __init__(self, broker: "Broker", device_id: str, will: Status, keep_alive_s: int) -> None:
        self.device_id = device_id
        self.will = will
        self.open_here = True
        """The device believes so."""
        self.open_there = True
        """The broker believes so."""
        self.silent = False
        """Nothing gets through, and nobody knows yet."""
        self.keep_alive_s = keep_alive_s
        self._broker = broker
        self._topics = {channel: topics.up(device_id, channel) for channel in UpChannel}
        self._incoming: deque[tuple[DownChannel, bytes]] = deque()
        self._arrived = asyncio.Event()
        self._unanswered: dict[asyncio.Future[None], None] = {}
        self._last_there_s = self._last_here_s = 0.0

    async def publish(self, channel: UpChannel, payload: bytes) -> None:
        """Returns when the broker has it."""
        if not self.open_here:
            raise LinkError("the connection ended")
        broker = self._broker
        if not broker.weather.latency_s and not self.silent:
            broker.from_device(self, self._topics[channel], payload)
            return
        answered: asyncio.Future[None] = broker.loop.create_future()
        self._unanswered[answered] = None
        self._last_there_s = max(self._last_there_s + 1e-9, broker.loop.time() + broker.weather.delay_s())
        broker.loop.call_at(self._last_there_s, self._arrive, self._topics[channel], payload, answered)
        try:
            await answered
        finally:
            self._unanswered.pop(answered, None)

    def _arrive(self, topic: str, payload: bytes, answered: "asyncio.Future[None]") -> None:
        if not self.open_there or self.silent:
            return
        self._broker.from_device(self, topic, payload)
        self._broker.loop.call_later(self._broker.weather.delay_s(), self._answer, answered)

    def _answer(self, answered: "asyncio.Future[None]") -> None:
        if not answered.done() and self.open_here and not self.silent:
            answered.set_result(None)

    def deliver(self, channel: DownChannel, payload: bytes) -> None:
        """The broker sends something to the device."""
        if not self.open_there or self.silent:
            return
        if not self._broker.weather.latency_s:
            self._put(channel, payload)
            return
        self._last_here_s = max(self._last_here_s + 1e-9, self._broker.loop.time() + self._broker.weather.delay_s())
        self._broker.loop.call_at(self._last_here_s, self._put, channel, payload)

    def _put(self, channel: DownChannel, payload: bytes) -> None:
        if self.open_here and not self.silent:
            self._incoming.append((channel, payload))
            self._arrived.set()

    def received(self) -> "DeviceSession":
        """See Session."""
        return self

    def __aiter__(self) -> "DeviceSession":
        return self

    async def __anext__(self) -> tuple[DownChannel, bytes]:
        while not self._incoming:
            if not self.open_here:
                raise LinkError("the connection ended")
            self._arrived.clear()
            await self._arrived.wait()
        return self._incoming.popleft()

    def lost_here(self) -> None:
        """The device learns that the connection is gone."""
        if not self.open_here:
            return
        self.open_here = False
        self._arrived.set()
        for answered in list(self._unanswered):
            if not answered.done():
                answered.set_exception(LinkError("the connection ended"))
                answered.exception()


class DeviceLink:
    """`edge.link.Link` of one device. `dead`: its process was killed, and nothing leaves it any more."""

    def __init__(self, broker: "Broker", device_id: str) -> None:
        self._broker = broker
        self._device_id = device_id
        self.dead = False

    def connect(self, will: Status, keep_alive_s: int) -> "_Connecting":
        """See Link."""
        return _Connecting(self, self._broker, self._device_id, will, keep_alive_s)


class _Connecting:
    def __init__(self, link: DeviceLink, broker: "Broker", device_id: str, will: Status, keep_alive_s: int) -> None:
        self._link = link
        self._broker = broker
        self._device_id = device_id
        self._will = will
        self._keep_alive_s = keep_alive_s
        self._session: DeviceSession | None = None

    async def __aenter__(self) -> DeviceSession:
        broker = self._broker
        if self._device_id in broker.unreachable:
            await asyncio.sleep(10.0)
            raise LinkError("no answer")
        await asyncio.sleep(2 * broker.weather.delay_s())
        if not broker.up or self._link.dead or self._device_id in broker.unreachable:
            raise LinkError("refused")
        self._session = broker.connect(self._device_id, self._will, self._keep_alive_s)
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None and not self._link.dead:
            self._broker.leave(self._session)


class Broker:
    """The broker and the network around it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, weather: Weather, trace: Trace) -> None:
        self.loop = loop
        self.weather = weather
        self.up = True
        self.unreachable: set[str] = set()
        """Devices without a network."""
        self.sessions: dict[str, DeviceSession] = {}
        self.on_command: Callable[[str, bytes], None] = lambda _device_id, _payload: None
        self.told: deque[tuple[str, DownChannel, bytes]] = deque(maxlen=200)
        """What was sent to devices lately: what an attacker could repeat."""
        self.told_orders: deque[tuple[str, DownChannel, bytes]] = deque(maxlen=40)
        self.wiretap = Wiretap(weather.randomness)
        self._trace = trace
        self._ingesters: list[Subscriber] = []

    # --- connections -------------------------------------------------------------------------------------------

    def connect(self, device_id: str, will: Status, keep_alive_s: int) -> DeviceSession:
        """A device's new session; an older one is taken over."""
        older = self.sessions.get(device_id)
        if older is not None:
            self._trace.note("taken_over", device_id)
            self._end(older, will=True)
            older.lost_here()
        session = self.sessions[device_id] = DeviceSession(self, device_id, will, keep_alive_s)
        self._trace.note("connected", device_id, will.boot_epoch, will.connection)
        return session

    def leave(self, session: DeviceSession) -> None:
        """The device says goodbye: no last will (unless nobody hears it)."""
        session.lost_here()
        if not session.silent:
            self._end(session, will=False)

    def reset(self, device_id: str) -> None:
        """The connection breaks, and both ends notice at once."""
        session = self.sessions.get(device_id)
        if session is not None:
            self._trace.note("reset", device_id)
            self._end(session, will=True)
            session.lost_here()

    def cut(self, device_id: str) -> None:
        """The connection goes dead, and each end notices by its keep-alive."""
        session = self.sessions.get(device_id)
        if session is None or session.silent:
            return
        self._trace.note("cut", device_id)
        session.silent = True
        beats = 1.5 * session.keep_alive_s
        self.loop.call_later(beats * (0.7 + 0.3 * self.weather.randomness.random()), session.lost_here)
        self.loop.call_later(beats, self._end_if_there, session)

    def sever(self, device_id: str) -> None:
        """The device's process died: its machine closes the socket."""
        session = self.sessions.get(device_id)
        if session is not None:
            self._end(session, will=True)
            session.lost_here()

    def _end_if_there(self, session: DeviceSession) -> None:
        if session.open_there:
            self._end(session, will=True)

    def _end(self, session: DeviceSession, *, will: bool) -> None:
        if not session.open_there:
            return
        session.open_there = False
        if self.sessions.get(session.device_id) is session:
            del self.sessions[session.device_id]
        if will and self.up:
            topic, payload = topics.up(session.device_id, UpChannel.STATUS), encode(session.will)
            late_s = self.weather.delay_s() * 5
            if late_s:
                self.loop.call_later(late_s, self.route, topic, payload)
            else:
                self.route(topic, payload)

    def kill(self) -> None:
        """The broker dies; it remembers nothing."""
        self._trace.note("broker_killed")
        self.up = False
        for session in list(self.sessions.values()):
            self._end(session, will=False)
            if not session.silent:
                session.lost_here()
        for ingester in list(self._ingesters):
            ingester.broken()
        self._ingesters.clear()

    def start(self) -> None:
        """It accepts connections again."""
        if self.up:
            return
        self._trace.note("broker_started")
        self.up = True

    # --- messages ----------------------------------------------------------------------------------------------

    def from_device(self, session: DeviceSession, topic: str, payload: bytes) -> None:
        """A PUBLISH of a device arrived; it is acknowledged whatever becomes of it."""
        if not session.open_there:
            return
        weather = self.weather
        self._trace.message("up", topic, payload)
        if weather.strikes(weather.dropped):
            self._trace.note("dropped", topic)
            return
        if weather.strikes(weather.truncated):
            payload = payload[: int(len(payload) * weather.randomness.random())]
            self._trace.note("truncated", topic, len(payload))
        self.route(topic, payload)
        if weather.strikes(weather.duplicated):
            self._trace.note("duplicated", topic)
            self.loop.call_later(weather.delay_s() * 3, self.route, topic, payload)

    def route(self, topic: str, payload: bytes) -> None:
        """To every ingester that subscribed to it."""
        for ingester in self._ingesters:
            ingester.arrive(topic, payload)

    def to_device(self, message: Downstream) -> None:
        """A PUBLISH of the cloud; nothing is kept for a device that is away."""
        if not self.up:
            return
        weather = self.weather
        device_id, channel = message.topic.split("/")[2], DownChannel(message.topic.rpartition("/")[2])
        self._trace.message("down", message.topic, message.payload)
        if channel is DownChannel.COMMAND:
            self.on_command(device_id, message.payload)
            self.told_orders.append((device_id, channel, message.payload))
        self.told.append((device_id, channel, message.payload))
        if self.wiretap.hear(device_id, channel, message.payload):
            self._trace.note("withheld", message.topic)
            return
        session = self.sessions.get(device_id)
        if session is None or weather.strikes(weather.dropped):
            self._trace.note("not_delivered", message.topic)
            return
        if channel is DownChannel.COMMAND and weather.strikes(weather.forged):
            self._trace.note("forged", message.topic)
            session.deliver(channel, self.wiretap.forged(message.payload))
        session.deliver(channel, message.payload)
        if weather.strikes(weather.duplicated):
            self.loop.call_later(weather.delay_s() * 3, session.deliver, channel, message.payload)
        if weather.strikes(weather.replayed):
            self._replay(session)

    def _replay(self, session: DeviceSession) -> None:
        """Somebody repeats an older message. What is signed also comes from other devices, and altered.

        An acknowledgement of telemetry is not signed: there the broker is trusted to keep devices apart.
        """
        randomness = self.weather.randomness
        told = self.told_orders if self.told_orders and randomness.random() < _ORDERS_SHARE else self.told
        owner, channel, payload = told[randomness.randint(0, len(told) - 1)]
        signed = channel is DownChannel.COMMAND or _WELCOME in payload
        if owner != session.device_id and not signed:
            return
        if signed and self.weather.strikes(self.weather.forged):
            changed = bytearray(payload)
            at = payload.find(_ORDER_ID)
            if at >= 0 and randomness.random() < _ORDERS_SHARE:  # a command that nobody ever gave
                changed[at + len(_ORDER_ID) + randomness.randint(0, 7)] = ord("e")
            else:
                changed[randomness.randint(0, len(changed) - 1)] ^= 1
            payload = bytes(changed)
        self._trace.message("replayed", session.device_id, payload)
        session.deliver(channel, payload)

    def say_again(self, device_id: str, channel: DownChannel, payload: bytes) -> None:
        """Somebody sends a device what it, or an earlier storage of it, was sent before."""
        session = self.sessions.get(device_id)
        if session is not None:
            self._trace.message("said_again", device_id, payload)
            session.deliver(channel, payload)

    def subscribe(self, ingester: Subscriber) -> None:
        """The ingester's two connections are up and subscribed."""
        self._ingesters.append(ingester)

    def unsubscribe(self, ingester: Subscriber) -> None:
        """They are gone."""
        if ingester in self._ingesters:
            self._ingesters.remove(ingester)
