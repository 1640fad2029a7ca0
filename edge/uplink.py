"""From the journal to the cloud: each lane in order, emergencies before everything, until the cloud has committed.

Per connection one task per lane publishes what its window allows, one message at a time, so at most one telemetry
message is on the wire when an emergency comes. A control task says hello first and keeps asking until the cloud has
answered with signed time, generation and marks. Emergencies of a known generation do not wait for that answer.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

from edge.acknowledgements import is_genuine, keep_refused
from edge.boot_clocks import BootClocks
from edge.command_keys import TrustedKeys
from edge.journal import Journal
from edge.link import LinkError, RenewConnectionError, Session
from edge.records import DeviceRecord, JournalFullError, Row
from edge.storage_claim import StorageClaim
from edge.timing import Timing
from edge.trusted_time import TrustedTime
from edge.wake import Wake
from edge.window import LaneWindow, Outgoing
from fleet.clock import Clock
from fleet.envelope import VERSION, Acknowledgement, Hello, Lane, Status, Welcome, boot_epoch, encode
from fleet.milestones import reached
from fleet.randomness import Randomness
from fleet.signing import BadSignatureError, verify_welcome
from fleet.topics import UpChannel

_log = logging.getLogger(__name__)

CHANNELS: Final[Mapping[Lane, UpChannel]] = {lane: UpChannel(lane.value) for lane in Lane}


class Uplink:
    """The sending side of one device."""

    def __init__(
        self,
        record: DeviceRecord,
        kind_name: str,
        journal: Journal,
        clock: Clock,
        randomness: Randomness,
        *,
        timing: Timing,
        keys: TrustedKeys,
        trusted_time: TrustedTime,
        clocks: BootClocks,
        firmware: str,
        boot_id: str,
        certificate: Callable[[], str],
        on_committed_in_cloud: Callable[[Row], None],
        on_telemetry_flows: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_committed_in_cloud` is called once for every emergency the cloud acknowledged.

        `on_telemetry_flows` is called when `telemetry_flows` may have become true because the journal was read.
        """
        self.device_id = record.device_id
        self.generation = record.generation
        self.counts: Counter[str] = Counter()
        self.welcomed = False
        """Whether the cloud has answered on this connection, and the connection is to stay."""
        self._kind_name = kind_name
        self._record = record
        self._journal = journal
        self._clock = clock
        self._timing = timing
        self._keys = keys
        self._trusted_time = trusted_time
        self._clocks = clocks
        self._firmware = firmware
        self._boot_id = boot_id
        self._certificate = certificate
        self._on_committed_in_cloud = on_committed_in_cloud
        self._on_telemetry_flows = on_telemetry_flows
        self._windows = {
            lane: LaneWindow(lane, timing, record.marks[lane], lambda: randomness.uniform(0.9, 1.1)) for lane in Lane
        }
        self._claim = StorageClaim(record, journal)
        self._wakes = {lane: Wake() for lane in Lane}
        self._renumbering = False
        self._numbering = 0
        self._nonce = ""
        self._hello_sent_s = float("-inf")
        self._hello_wanted = asyncio.Event()
        self._welcome_came = asyncio.Event()
        self._renew = asyncio.Event()
        self._connection = 0
        self._urgent_s = timing.urgent_s
        self.emergency_waiting = asyncio.Event()
        """Set while an emergency is unacknowledged."""

    # --- from the agent -----------------------------------------------------------------------------------------

    def offer(self, row: Row) -> None:
        """A row became durable (the journal calls this in order)."""
        self._windows[row.lane].offer(row)
        if row.lane is Lane.EMERGENCY:
            self.emergency_waiting.set()
        self._wakes[row.lane].set()

    def begin_connection(self) -> Status:
        """The last will of the next connection; it is ordered after those of all earlier ones."""
        self._connection += 1
        return self.status(online=False)

    def status(self, *, online: bool) -> Status:
        """The link state of the current connection."""
        return Status(self.device_id, boot_epoch(self.generation, self._record.boots), self._connection, online)

    def ask_time(self) -> None:
        """Say hello again soon, at most once in `hello_retry_s`: the welcome brings time and command keys."""
        self._hello_wanted.set()

    async def run(self, session: Session) -> None:
        """Send on `session` until it breaks (LinkError)."""
        self.welcomed = False
        self._welcome_came.clear()
        for window in self._windows.values():
            window.restart()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._control(session))
            for lane in Lane:
                group.create_task(self._send_lane(session, lane))

    # --- tasks of a connection ----------------------------------------------------------------------------------

    async def _control(self, session: Session) -> None:
        await self._say_hello(session)
        await self._put(session, UpChannel.STATUS, encode(self.status(online=True)))
        pause_s = self._timing.hello_retry_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._welcome_came.wait()
            if self._renew.is_set():
                self._renew.clear()
                raise RenewConnectionError("a new generation was granted")
            if self._welcome_came.is_set():
                pause_s = self._timing.hello_retry_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.hello_renew_s):
                        await self._hello_wanted.wait()
                if self._renew.is_set():
                    continue
                await asyncio.sleep(
                    max(0.0, self._hello_sent_s + self._timing.hello_retry_s - self._clock.monotonic_s())
                )
            else:
                pause_s = min(pause_s * 2, self._timing.hello_retry_most_s)
            await self._say_hello(session)

    async def _say_hello(self, session: Session) -> None:
        self._hello_wanted.clear()
        self._welcome_came.clear()
        self._nonce = secrets.token_hex(16)
        self._hello_sent_s = self._clock.monotonic_s()
        hello = Hello(
            VERSION, self._kind_name, self.device_id, self._claim.storage_id, self.generation, self._record.boots,
            self._nonce, self._firmware, self._boot_id, self._certificate(), self._keys.ids, self._journal.absent,
        )  # fmt: skip
        await self._put(session, UpChannel.HELLO, encode(hello))

    async def _send_lane(self, session: Session, lane: Lane) -> None:
        window, wake = self._windows[lane], self._wakes[lane]
        if lane is Lane.EMERGENCY:
            await self._read_ahead(window)
            await self._claim.wait(self._timing.first_welcome_s)
        while True:
            wake.clear()
            await self._read_ahead(window)
            await self._give_time_its_due(window)
            outgoing = window.take(self._clock.monotonic_s()) if self._may_send(lane) else None
            if outgoing is None:
                if lane is Lane.EMERGENCY:
                    self._wake_others()
                deadline_s = window.deadline_s
                await wake.wait(None if deadline_s is None else deadline_s - self._clock.monotonic_s())
            else:
                await self._publish(session, lane, outgoing)

    async def _read_ahead(self, window: LaneWindow) -> None:
        wanted = None if self._renumbering else window.begin_reading()
        if wanted is not None:
            token, after, count = wanted
            rows = await self._journal.pending(self.device_id, window.lane, after, count)
            window.fill(token, rows, more=len(rows) == count)
            if window.lane is Lane.EMERGENCY:
                self._note_emergencies()
            elif self.telemetry_flows:
                self._on_telemetry_flows()

    async def _give_time_its_due(self, window: LaneWindow) -> None:
        now_s = self._clock.monotonic_s()
        if window.expire(now_s):
            self.counts["timeouts"] += 1
            self._hello_wanted.set()  # is the cloud alive? Its welcome also tells where the lane stands
        if window.lane is not Lane.EMERGENCY and window.stuck(now_s) and window.head is not None:
            head = window.head
            with suppress(JournalFullError):  # tried again at the next time-out
                await self._journal.set_aside(self.device_id, window.lane, head.seq, "never acknowledged", remove=True)
                if window.head is head:
                    window.drop_head()
                    self.counts["set_aside"] += 1
                    name = f"{self.device_id}: {window.lane.value} {head.seq}"
                    _log.error("%s set aside, the cloud never took it", name)

    def _may_send(self, lane: Lane) -> bool:
        if self._renumbering or self.generation == 0:
            return False
        if lane is Lane.EMERGENCY:
            return True
        return self.welcomed and not self._windows[Lane.EMERGENCY].waiting

    async def _publish(self, session: Session, lane: Lane, outgoing: Outgoing) -> None:
        row, quality = self._clocks.read(outgoing.row)
        envelope = row.envelope(self._kind_name, self.device_id, self.generation, outgoing.evicted_from, quality)
        self.counts["resent" if outgoing.repeated else "sent"] += 1
        numbering = self._numbering
        await self._put(session, CHANNELS[lane], encode(envelope))
        reached("edge.uplink.after_publish")
        if numbering == self._numbering:
            self._windows[lane].published(outgoing.row.seq)

    async def _put(self, session: Session, channel: UpChannel, data: bytes) -> None:
        """Publish; with an emergency waiting, a broker that does not answer soon counts as gone."""
        if not self.emergency_waiting.is_set():
            await session.publish(channel, data)
            return
        try:
            async with asyncio.timeout(self._urgent_s):
                await session.publish(channel, data)
        except TimeoutError as error:
            self.counts["publishes_given_up"] += 1
            self._urgent_s = min(self._timing.urgent_most_s, 2 * self._urgent_s)
            raise LinkError("the broker does not answer, and an emergency is waiting") from error

    def _wake_others(self) -> None:
        for lane in (Lane.EVENT, Lane.TELEMETRY):
            if self._windows[lane].waiting:
                self._wakes[lane].set()

    def _wake_ready(self) -> None:
        for lane, window in self._windows.items():  # an acknowledgement never brings a deadline forward
            if window.waiting or window.more_in_journal:
                self._wakes[lane].set()

    def _wake_all(self) -> None:
        for wake in self._wakes.values():
            wake.set()

    # --- from the cloud -------------------------------------------------------------------------------------------

    async def on_acknowledgement(self, acknowledgement: Acknowledgement) -> None:
        """Marks, gaps and refusals; one of another generation is none of ours."""
        if acknowledgement.generation != self.generation or self._renumbering:
            self.counts["acknowledgements_ignored"] += 1
            if acknowledgement.generation != self.generation:
                self._hello_wanted.set()
            return
        genuine = is_genuine(acknowledgement, self.device_id, self._keys.verifiers)
        if genuine:
            await keep_refused(self._journal, self.device_id, acknowledgement, self.counts)
        if acknowledgement.greet or (acknowledgement.signature and not genuine):  # perhaps the keys were changed
            self.ask_time()
        now_s = self._clock.monotonic_s()
        if acknowledgement.greet:  # perhaps nobody listened for a while, and what was sent then is nowhere
            self._windows[Lane.EMERGENCY].send_all_again(now_s)
        self._believe(acknowledgement, Lane if genuine else (Lane.TELEMETRY,), now_s)
        for lane in acknowledgement.resend:
            if acknowledgement.marks.get(lane, self._windows[lane].mark) < self._windows[lane].mark:
                self._hello_wanted.set()  # the cloud stands before what it acknowledged: ask it under its signature
            elif self._windows[lane].go_back(now_s):
                self.counts["gaps"] += 1
        self._wake_ready()

    def _believe(self, acknowledgement: Acknowledgement, lanes: Iterable[Lane], now_s: float) -> None:
        refused = {(refused.lane, refused.seq) for refused in acknowledgement.refused}
        if acknowledgement.marks.keys() - set(lanes):
            self.counts["acknowledgements_not_believed"] += 1
        for lane in lanes:
            mark = acknowledgement.marks.get(lane, 0)
            if self._is_of_lost_storage(lane, mark):  # the welcome settles it
                self._hello_wanted.set()
            elif lane in acknowledgement.marks:
                self._finish(lane, self._windows[lane].acknowledge(mark, now_s), refused)

    def _is_of_lost_storage(self, lane: Lane, mark: int) -> bool:
        return self._claim.is_behind(lane, mark, self._windows[lane].highest_taken)

    def _finish(self, lane: Lane, rows: list[Row], refused: set[tuple[Lane, int]]) -> None:
        self.counts["acknowledged"] += len(rows)
        if rows:
            reached("edge.uplink.after_acknowledgement")
        self._journal.acknowledge(self.device_id, {lane: self._windows[lane].mark})
        if lane is Lane.EMERGENCY:
            if rows:
                self._urgent_s = self._timing.urgent_s
            for row in rows:
                if (lane, row.seq) not in refused:
                    self._on_committed_in_cloud(row)
            self._note_emergencies()

    def _note_emergencies(self) -> None:
        window = self._windows[Lane.EMERGENCY]
        if window.head is None and not window.more_in_journal:
            self.emergency_waiting.clear()
        elif window.head is not None:
            self.emergency_waiting.set()

    async def on_welcome(self, welcome: Welcome) -> None:
        """Signed time, our generation, and where each lane stands; what is unsigned, old or for others is ignored."""
        try:
            verify_welcome(welcome, self.device_id, self._keys.verifiers)
        except BadSignatureError as error:
            self.counts["welcomes_ignored"] += 1
            _log.warning("%s: welcome ignored: %s", self.device_id, error.reason)
            return
        late = self._clock.monotonic_s() - self._hello_sent_s > self._timing.welcome_age_s_max
        if not self._nonce or welcome.nonce != self._nonce or late:
            self.counts["welcomes_ignored"] += 1
            return
        self._nonce = ""
        self._trusted_time.set(welcome.time_ms, self._hello_sent_s)
        if welcome.command_keys is not None and await self._keys.adopt(welcome.command_keys):
            self._hello_wanted.set()  # tell the cloud at once which keys count from now on
        if self.generation in (0, welcome.generation):
            settled = await self._continue(welcome)
        else:
            settled = await self._renumber(welcome)
        if not await self._clocks.settle():
            self.counts["clocks_unsettled"] += 1
            self._hello_wanted.set()
            settled = False
        self.welcomed = settled and not self._renew.is_set()
        self._welcome_came.set()
        if self._renew.is_set():  # whoever renews the connection may have taken an earlier welcome for the last word
            self._hello_wanted.set()
        self._wake_all()

    async def _continue(self, welcome: Welcome) -> bool:
        """The cloud knows this storage id; False if it knows a later state of it, which this one cannot go on from."""
        behind = {lane for lane in Lane if self._is_of_lost_storage(lane, welcome.marks.get(lane, 0))}
        if behind == {Lane.EMERGENCY} and await self._claim.recognises(welcome, self._kind_name, self.generation):
            behind.clear()
        if self._claim.ends or behind:
            return await self._begin_storage(welcome)
        if welcome.generation != self.generation:
            return await self._renumber(welcome)
        for lane, window in self._windows.items():
            mark, now_s = welcome.marks.get(lane, 0), self._clock.monotonic_s()
            self._finish(lane, window.settle(mark, self._hello_sent_s, now_s), set())
        await self._claim.confirm()
        return True

    async def _begin_storage(self, welcome: Welcome) -> bool:
        """False: until the new generation is granted, emergencies go on under their old numbers."""
        if await self._claim.begin_anew(welcome.marks):
            self.counts["storages_begun"] += 1
            self._hello_sent_s = float("-inf")  # no pause before the hello of the new one
        else:
            self.counts["grants_postponed"] += 1
        self._hello_wanted.set()
        return False

    async def _renumber(self, welcome: Welcome) -> bool:
        """A first or new generation.

        False if the journal has no room to do it; a first generation, which renumbers nothing, needs none.
        """
        self._renumbering = True
        try:
            await self._journal.grant(self.device_id, welcome.generation, welcome.marks)
        except JournalFullError:
            self.counts["grants_postponed"] += 1
            if self.generation or any(welcome.marks.get(lane, 0) != self._windows[lane].mark for lane in Lane):
                self._hello_wanted.set()  # emergencies go on under their old numbers, the rest waits for the disk
                return False
            self._journal.grant_unstored(self.device_id, welcome.generation)
        finally:
            self._renumbering = False
        self._numbering += 1
        if welcome.generation != self.generation:
            self._renew.set()
        self.generation = welcome.generation
        for lane in Lane:
            self._windows[lane].reload(welcome.marks.get(lane, 0))
        self._claim.granted(welcome.marks)
        return True

    @property
    def telemetry_flows(self) -> bool:
        """Whether a telemetry message that is journalled now goes out now."""
        return self.welcomed and self._windows[Lane.TELEMETRY].flows
