"""From the journal to the cloud: each lane in order, emergencies before everything, until the cloud has committed.

Per connection one task per lane publishes what its window allows, one message at a time, so at most one telemetry
message is on the wire when an emergency comes. A control task says hello first and keeps asking until the cloud has
answered with signed time, generation and marks. Emergencies of a known generation do not wait for that answer.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from edge.journal import Journal
from edge.link import LinkError, Session
from edge.records import DeviceRecord, JournalFullError, Row
from edge.timing import Timing
from edge.trusted_time import TrustedTime
from edge.window import LaneWindow, Outgoing
from fleet.clock import Clock
from fleet.envelope import VERSION, Acknowledgement, Hello, Lane, Status, Welcome, boot_epoch, encode
from fleet.randomness import Randomness
from fleet.signing import BadSignatureError, Verifier, verify_welcome
from fleet.topics import UpChannel

_log = logging.getLogger(__name__)

CHANNELS: Final[Mapping[Lane, UpChannel]] = {lane: UpChannel(lane.value) for lane in Lane}


class RenewConnectionError(LinkError):
    """A new generation was granted: the next connection's last will must carry it."""


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
        verifiers: Mapping[str, Verifier],
        trusted_time: TrustedTime,
        firmware: str,
        on_committed_in_cloud: Callable[[Row], None],
    ) -> None:
        """`on_committed_in_cloud` is called once for every emergency the cloud acknowledged."""
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
        self._verifiers = verifiers
        self._trusted_time = trusted_time
        self._firmware = firmware
        self._on_committed_in_cloud = on_committed_in_cloud
        self._windows = {
            lane: LaneWindow(lane, timing, record.marks[lane], lambda: randomness.uniform(0.9, 1.1)) for lane in Lane
        }
        self._known_seqs = {lane: journal.last_seq(record.device_id, lane) for lane in Lane}
        self._wakes = {lane: asyncio.Event() for lane in Lane}
        self._renumbering = False
        self._numbering = 0
        self._nonce = ""
        self._hello_sent_s = float("-inf")
        self._hello_wanted = asyncio.Event()
        self._welcome_came = asyncio.Event()
        self._renew = False
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
            if self._renew:
                self._renew = False
                raise RenewConnectionError("a new generation was granted")
            if self._welcome_came.is_set():
                pause_s = self._timing.hello_retry_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.hello_renew_s):
                        await self._hello_wanted.wait()
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
        await self._put(
            session,
            UpChannel.HELLO,
            encode(
                Hello(
                    VERSION,
                    self._kind_name,
                    self.device_id,
                    self._record.storage_id,
                    self.generation,
                    self._record.boots,
                    self._nonce,
                    self._firmware,
                )
            ),
        )

    async def _send_lane(self, session: Session, lane: Lane) -> None:
        window, wake = self._windows[lane], self._wakes[lane]
        while True:
            wake.clear()
            await self._read_ahead(window)
            await self._give_time_its_due(window)
            outgoing = window.take(self._clock.monotonic_s()) if self._may_send(lane) else None
            if outgoing is None:
                if lane is Lane.EMERGENCY:
                    self._wake_others()
                await self._sleep_until(window.deadline_s, wake)
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
        envelope = outgoing.row.envelope(self._kind_name, self.device_id, self.generation, outgoing.evicted_from)
        self.counts["resent" if outgoing.repeated else "sent"] += 1
        numbering = self._numbering
        await self._put(session, CHANNELS[lane], encode(envelope))
        if numbering == self._numbering:
            self._windows[lane].published(outgoing.row.seq)

    async def _put(self, session: Session, channel: UpChannel, data: bytes) -> None:
        """Publish; with an emergency waiting, a broker that does not answer soon counts as gone."""
        try:
            async with asyncio.timeout(self._urgent_s if self.emergency_waiting.is_set() else None):
                await session.publish(channel, data)
        except TimeoutError as error:
            self.counts["publishes_given_up"] += 1
            self._urgent_s = min(self._timing.urgent_most_s, 2 * self._urgent_s)
            raise LinkError("the broker does not answer, and an emergency is waiting") from error

    async def _sleep_until(self, deadline_s: float | None, wake: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None if deadline_s is None else deadline_s - self._clock.monotonic_s()):
                await wake.wait()

    def _wake_others(self) -> None:
        for lane in (Lane.EVENT, Lane.TELEMETRY):
            if self._windows[lane].waiting:
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
        for refused in acknowledgement.refused:
            self.counts["refused"] += 1
            name = f"{self.device_id}: {refused.lane.value} {refused.seq}"
            _log.error("%s refused by the cloud: %s", name, refused.reason)
            with suppress(JournalFullError):  # the copy is for people; the cloud has the original in quarantine
                await self._journal.set_aside(self.device_id, refused.lane, refused.seq, refused.reason, remove=False)
        refused_seqs = {(refused.lane, refused.seq) for refused in acknowledgement.refused}
        now_s = self._clock.monotonic_s()
        for lane, mark in acknowledgement.marks.items():
            if self._is_of_lost_storage(lane, mark):  # the welcome settles it
                self._hello_wanted.set()
                continue
            self._finish(lane, self._windows[lane].acknowledge(mark, now_s), refused_seqs)
        for lane in acknowledgement.resend:
            if acknowledgement.marks.get(lane, self._windows[lane].mark) < self._windows[lane].mark:
                self._hello_wanted.set()  # the cloud stands before what it acknowledged: ask it under its signature
            elif self._windows[lane].go_back(now_s):
                self.counts["gaps"] += 1
        self._wake_all()

    def _is_of_lost_storage(self, lane: Lane, mark: int) -> bool:
        """Whether the cloud has more than was here at the start or sent since: then this storage is an old copy.

        What was journalled since the start and not sent says nothing: fresh messages would pass for acknowledged.
        """
        return mark > max(self._known_seqs[lane], self._windows[lane].highest_taken)

    def _finish(self, lane: Lane, rows: list[Row], refused: set[tuple[Lane, int]]) -> None:
        self.counts["acknowledged"] += len(rows)
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
            verify_welcome(welcome, self.device_id, self._verifiers)
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
        settled = True
        if self._must_renumber(welcome):
            settled = await self._renumber(welcome)
        else:
            now_s = self._clock.monotonic_s()
            for lane in Lane:
                mark = welcome.marks.get(lane, 0)
                self._finish(lane, self._windows[lane].settle(mark, self._hello_sent_s, now_s), set())
        self.welcomed = settled and not self._renew
        self._welcome_came.set()
        self._wake_all()

    def _must_renumber(self, welcome: Welcome) -> bool:
        return welcome.generation != self.generation or any(
            self._is_of_lost_storage(lane, welcome.marks.get(lane, 0)) for lane in Lane
        )

    async def _renumber(self, welcome: Welcome) -> bool:
        """A first or new generation, or a storage that fell behind itself (restored from a copy).

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
        self._renew = welcome.generation != self.generation
        self.generation = welcome.generation
        for lane in Lane:
            self._known_seqs[lane] = welcome.marks.get(lane, 0)
            self._windows[lane].reload(welcome.marks.get(lane, 0))
        return True

    @property
    def pending(self) -> bool:
        """Whether the cloud still owes an acknowledgement, as far as is known in memory."""
        return any(window.head is not None or window.more_in_journal for window in self._windows.values())
