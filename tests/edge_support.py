"""What the tests of the edge share: a tiny kind, a small cloud that keeps the protocol, a link without a network."""

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import devices
from edge.host import EdgeHost
from edge.identity import Identity
from edge.link import LinkError
from edge.timing import Timing
from edge.transports import memory_pair
from fleet import envelope
from fleet.envelope import Acknowledgement, Lane, Refused, Welcome
from fleet.messages import FINAL_REPLIES, Reply
from fleet.signing import CommandOrder, sign_acknowledgement, sign_command, sign_welcome
from fleet.topics import DownChannel, UpChannel

DEVICE = "bell-001"
KIND_FOLDER = Path(__file__).parent / "edge_kinds" / "doorbell"
LANES = {UpChannel(lane.value): lane for lane in Lane}


def each_lane(seconds):
    return dict.fromkeys(Lane, seconds)


QUICK = Timing(
    resend_first_s=each_lane(0.05),
    resend_most_s=each_lane(0.1),
    stuck_strikes_max=2,
    stuck_s=each_lane(0.1),
    urgent_s=0.4,
    urgent_most_s=1.5,
    go_back_pause_s=0.0,
    hello_retry_s=0.05,
    first_welcome_s=0.05,
    hello_retry_most_s=0.1,
    reconnect_jitter_s=0.02,
    reply_first_s=0.05,
    reply_most_s=0.1,
    telemetry_age_business_s_max=0.05,
    unfinished_command_business_s=0.05,
    line_reopen_s=0.01,
    journal_retry_s=0.01,
)


class SystemClock:
    def __init__(self, speed=1.0):
        self.speed = speed
        self.skew_ms = 0

    def now_ms(self):
        return round(time.time() * 1000) + self.skew_ms

    def monotonic_s(self):
        return time.monotonic()


@contextmanager
def doorbell_kind():
    """The test's own kind, known only inside the block: other tests walk over all kinds."""
    path, added = list(devices.__path__), list(devices._added)
    devices.add_kind_folder(str(KIND_FOLDER))
    try:
        yield devices.kind_named("doorbell")
    finally:
        devices.__path__[:] = path
        devices._added[:] = added
        devices.kinds_cache.clear()


async def eventually(condition, within_s=5.0):
    """Wait until `condition()` holds; fails after `within_s`."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110  # conditions over foreign objects have no event
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {condition}") from None


class Cloud:
    """Commits in order, reports gaps, acknowledges; can be told to misbehave."""

    def __init__(self, clock):
        self.key = Ed25519PrivateKey.generate()
        self.verifiers = {"main": self.key.public_key()}
        self.clock = clock
        self.generations = {}
        self.marks = {}
        self.committed = []
        self.received = []
        self.replies = []
        self.statuses = []
        self.hellos = []
        self.accepted_early = []
        self.lost_acknowledgements = 0
        self.acknowledges_replies = True
        self.acknowledges_twice = False
        self.welcomes = True
        self.refuse = set()
        self.never_take = set()
        self.gaps = Counter()

    def answer(self, device_id, channel, payload):
        """Messages for `down/ack` after one message of a device."""
        if channel is UpChannel.HELLO:
            return self._welcome(device_id, envelope.decode_hello(payload))
        if channel is UpChannel.STATUS:
            self.statuses.append(envelope.decode_status(payload))
            return []
        if channel is UpChannel.REPLY:
            reply = Reply.model_validate_json(payload)
            self.replies.append(reply)
            if reply.status in FINAL_REPLIES and self.acknowledges_replies:
                return [
                    self.signed(device_id, Acknowledgement(self.generation(device_id), {}, replies=(reply.command_id,)))
                ]
            return []
        return self._take(device_id, envelope.decode(payload), LANES[channel])

    def generation(self, device_id):
        return self.generations[device_id][1]

    def _welcome(self, device_id, hello):
        self.hellos.append(hello)
        if not self.welcomes:
            return []
        storage_id, generation = self.generations.get(device_id, ("", 0))
        if storage_id != hello.storage_id:
            generation += 1
            self.generations[device_id] = hello.storage_id, generation
        welcome = Welcome(hello.nonce, self.clock.now_ms(), generation, self.marks_of(device_id, generation))
        return [sign_welcome(welcome, device_id, "main", self.key)]

    def marks_of(self, device_id, generation):
        return {lane: self.marks.get((device_id, generation, lane), 0) for lane in Lane}

    def _take(self, device_id, message, lane):
        assert message.device_id == device_id
        assert message.lane is lane
        self.received.append(message)
        generation = message.generation
        key = device_id, generation, lane
        mark = self.marks.get(key, 0)
        if (lane, message.seq) in self.never_take:
            return []
        resend, refused = (), ()
        first = message.evicted_from or message.seq
        if generation != self.generation(device_id):
            self._accept_early(message, lane)
            generation = self.generation(device_id)
            return [self.signed(device_id, Acknowledgement(generation, self.marks_of(device_id, generation)))]
        if message.seq <= mark:
            self._accept_early(message, lane)
        elif first <= mark + 1:
            self.marks[key] = message.seq
            if (lane, message.seq) in self.refuse:
                refused = (Refused(lane, message.seq, "absurd"),)
            else:
                self.committed.append(message)
        else:
            self._accept_early(message, lane)
            self.gaps[lane] += 1
            resend = (lane,)
        if self.lost_acknowledgements:
            self.lost_acknowledgements -= 1
            return []
        answer = Acknowledgement(generation, {lane: self.marks.get(key, 0)}, resend, refused)
        if lane is not Lane.TELEMETRY:
            answer = self.signed(device_id, answer)
        return [answer, answer] if self.acknowledges_twice else [answer]

    def signed(self, device_id, acknowledgement):
        return sign_acknowledgement(acknowledgement, device_id, "main", self.key)

    def _accept_early(self, message, lane):
        """Like the real one: an emergency counts by its event id, whatever its number."""
        event_id = msgspec.json.decode(message.payload).get("event_id")
        if lane is Lane.EMERGENCY and event_id not in self.event_ids(lane) + self.accepted_early:
            self.accepted_early.append(event_id)

    def command(self, addressee, command, *, command_id="c" * 32, lifetime_ms=10_000, **changes):
        now_ms = self.clock.now_ms()
        fields = {
            "id": command_id,
            "device_id": addressee,
            "generation": self.generation(addressee),
            "issued_at": now_ms,
            "not_after": now_ms + lifetime_ms,
            "command": msgspec.Raw(msgspec.json.encode(command)),
            **changes,
        }
        return sign_command(CommandOrder(**fields), "main", self.key)

    def payloads(self, lane):
        return [msgspec.json.decode(message.payload) for message in self.committed if message.lane is lane]

    def event_ids(self, lane):
        return [payload["event_id"] for payload in self.payloads(lane)]

    def readings(self):
        return [reading for payload in self.payloads(Lane.TELEMETRY) for reading in payload["readings"]]


class FakeLink:
    """A Link whose broker is this object and whose cloud is `cloud`."""

    def __init__(self, device_id, cloud):
        self.device_id = device_id
        self.cloud = cloud
        self.up = True
        self.hold = set()
        self.swallows = False  # whether new connections hang, and open ones carry nothing
        self.log = []
        self.in_flight_max = Counter()
        self.connects = 0
        self.wills = []
        self._session = None
        self._released = asyncio.Event()

    @asynccontextmanager
    async def connect(self, will, keep_alive_s):  # noqa: ARG002  # the port's signature
        self.connects += 1
        if not self.up:
            raise LinkError("refused")
        if self.swallows:
            await asyncio.Event().wait()
        session = self._session = FakeSession(self)
        self.wills.append(will)
        try:
            yield session
        finally:
            self._session = None

    def send(self, channel, data):
        assert self._session is not None
        self._session.inbox.put_nowait((channel, data))

    def cut(self, *, up=False):
        self.up = up
        if self._session:
            self._session.inbox.put_nowait(None)

    def release(self):
        self.hold.clear()
        self._released.set()


class FakeSession:
    def __init__(self, link):
        self.link = link
        self.inbox = asyncio.Queue()
        self.in_flight = Counter()

    async def publish(self, channel, payload):
        link = self.link
        if link._session is not self:
            raise LinkError("cut")
        if link.swallows:
            await asyncio.Event().wait()
        self.in_flight[channel] += 1
        link.in_flight_max[channel] = max(link.in_flight_max[channel], self.in_flight[channel])
        link.log.append((channel, payload))
        while channel in link.hold:
            link._released.clear()
            await link._released.wait()
        await asyncio.sleep(0)
        self.in_flight[channel] -= 1
        for message in link.cloud.answer(link.device_id, channel, payload):
            self.inbox.put_nowait((DownChannel.ACK, envelope.encode(message)))

    async def received(self):
        while True:
            item = await self.inbox.get()
            if item is None:
                raise LinkError("cut")
            yield item


class Bell:
    """The hardware end of the line: presses, and remembers what it was told."""

    def __init__(self, line):
        self.line = line
        self.told = b""

    def say(self, text):
        self.line.write(text.encode() + b"\n")

    async def listen(self):
        while True:
            self.told += await self.line.read()

    def heard(self, text):
        return self.told.decode().splitlines().count(text)


class Rig:
    def __init__(self, tmp_path, cloud=None, link=None, **options):
        self.clock = SystemClock()
        self.cloud = cloud or Cloud(self.clock)
        self.host = EdgeHost(
            self.clock, random.Random(1), tmp_path / "journal.sqlite", timing=options.pop("timing", QUICK), **options
        )
        edge_end, hardware_end = memory_pair()
        self.bell = Bell(hardware_end)
        self.link = link or FakeLink(DEVICE, self.cloud)
        self.link.cloud = self.cloud
        self.host.add(DEVICE, "doorbell", edge_end, self.link, Identity(None, self.cloud.verifiers))

    @property
    def agent(self):
        return self.host.agents[DEVICE]

    def command(self, command, **changes):
        self.link.send(DownChannel.COMMAND, self.cloud.command(DEVICE, command, **changes))

    def replies(self, command_id="c" * 32):
        seen = []
        for reply in self.cloud.replies:
            if reply.command_id == command_id and (reply.status.value, reply.reason) not in seen:
                seen.append((reply.status.value, reply.reason))
        return seen

    @asynccontextmanager
    async def running(self, *, connected=True):
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self.bell.listen())
            running = group.create_task(self.host.run())
            try:
                await eventually(lambda: DEVICE in self.host.agents)
                if connected:
                    await eventually(lambda: self.agent.connected)
                yield self
            finally:
                self.host.stop()
                await running
                listening.cancel()
