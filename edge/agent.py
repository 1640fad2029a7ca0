"""One device: hardware line ↔ driver ↔ journal ↔ uplink and downlink.

Concurrent tasks, each ending the process if it fails: the line (bytes in), timers, telemetry, light for acknowledged
emergencies, and the connection. The driver is pure and called from all of them on one event loop, so its calls never
overlap; what it wants acknowledged to the hardware is written only after its events are durable.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edge.acknowledgements import is_genuine
from edge.batch import TelemetryBatch
from edge.boot_clocks import BootClocks
from edge.command_keys import TrustedKeys
from edge.credentials import Credentials, boot_id_of
from edge.downlink import Downlink
from edge.due_timer import DueTimer
from edge.event_keeper import EventKeeper
from edge.journal import Journal
from edge.link import IdentityRefusedError, Link, LinkError, RenewConnectionError, Session, leaf_of
from edge.reconnect import pause_s
from edge.records import JournalFullError, Row
from edge.renewal import TryNewCertificateError
from edge.supervision import OnFailure, supervised
from edge.telemetry_keeper import TelemetryKeeper
from edge.timing import Timing
from edge.transports import Line
from edge.trusted_time import CorrectedClock, TrustedTime
from edge.uplink import Uplink
from edge.vitals import LineVitals
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.envelope import EnvelopeError, Welcome, decode_downlink, encode
from fleet.kind import Driver, DriverOutput, Kind
from fleet.messages import CLOCK_SKEW_FUTURE_S_MAX, CLOCK_SKEW_PAST_S_MAX
from fleet.milestones import reached
from fleet.randomness import Randomness
from fleet.topics import DownChannel, UpChannel

_log = logging.getLogger(__name__)

_ACKNOWLEDGED_MAX: Final = 4_096


class _TypeOnly(msgspec.Struct):
    type: str


_type_decoder = msgspec.json.Decoder(_TypeOnly)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What differs between devices and processes, next to the device itself."""

    keys: TrustedKeys
    firmware: str = ""
    timing: Timing = field(default_factory=Timing)
    first_connect_within_s: float = 0.0
    credentials: Credentials = field(default_factory=Credentials)
    on_failure: OnFailure = lambda _: None
    """Hears of a task's death before anything is cleaned up."""


class EdgeAgent:
    """Everything that runs for one device; `run` may be called again after it has ended."""

    def __init__(
        self,
        device_id: str,
        kind: Kind,
        create_driver: Callable[[str], Driver],
        line: Line,
        link: Link,
        journal: Journal,
        clock: Clock,
        randomness: Randomness,
        settings: AgentSettings,
    ) -> None:
        self.device_id = device_id
        self.counts: Counter[str] = Counter()
        self.connected = False
        """Whether the cloud has welcomed the current connection."""
        self._kind = kind
        self._create_driver = create_driver
        self._line = line
        self._link = link
        self._journal = journal
        self._wall = clock
        self._trusted_time = TrustedTime(clock)
        self._clock = CorrectedClock(clock, self._trusted_time)
        self._randomness = randomness
        self._settings = settings
        self._timing = settings.timing
        age_s_max = min(settings.timing.telemetry_age_business_s_max, kind.silent_after_s / 3)
        self._telemetry = TelemetryKeeper(
            device_id,
            TelemetryBatch(kind.readings_per_message, age_s_max),
            journal,
            self._clock,
            self._timing.journal_retry_s,
            self.counts,
            flows=lambda: self.uplink is not None and self.uplink.telemetry_flows,
        )
        self._timer: DueTimer | None = None
        self._acknowledged: asyncio.Queue[Row] = asyncio.Queue(_ACKNOWLEDGED_MAX)
        self._events = EventKeeper(device_id, journal, self._timing.journal_retry_s, self.counts, line.write)
        self._ending = False
        self._clocks: BootClocks | None = None
        self.uplink: Uplink | None = None
        self.downlink: Downlink | None = None
        self.vitals = LineVitals(clock.monotonic_s)
        self.welcomed_s: float | None = None
        """Monotonic moment since which `connected` holds."""
        self.link_error = ""
        """Why the last connection ended or could not be made."""

    def trusted_ms(self) -> int | None:
        """The cloud's time; None before the first welcome."""
        return self._trusted_time.latest_ms()

    @property
    def clock_is_trusted(self) -> bool:
        """Whether the cloud vouched for the time since this start."""
        return self._trusted_time.latest_ms() is not None

    @property
    def clock_off_by_s(self) -> float | None:
        """The box's wall clock against trusted time, business seconds; None before the first welcome."""
        likely_ms, _ = self._trusted_time.likely_ms()
        return None if likely_ms is None else round((self._wall.now_ms() - likely_ms) / MILLISECONDS_PER_SECOND, 1)

    def statistics(self) -> Counter[str]:
        """Everything this agent counted; refused and ignored commands under `command_…`."""
        result = self.counts.copy()
        result["readings_lost"] = self._telemetry.lost
        result["messages_discarded"] = getattr(self._link, "discarded", 0)
        if self.uplink is not None:
            result.update(self.uplink.counts)
        if self.downlink is not None:
            result.update({f"command_{name}": count for name, count in self.downlink.counts.items()})
        return result

    async def run(self) -> None:
        """Until cancelled; readings that wait are journalled on the way out."""
        record = await self._journal.register(self.device_id, self._on_committed)
        clocks = self._clocks = BootClocks(self.device_id, record.boots, self._journal, self._clock)
        uplink = self.uplink = Uplink(
            record,
            self._kind.name,
            self._journal,
            self._clock,
            self._randomness,
            timing=self._timing,
            keys=self._settings.keys,
            trusted_time=self._trusted_time,
            clocks=clocks,
            firmware=self._settings.firmware,
            boot_id=await boot_id_of(self._journal, record),
            certificate=self._settings.credentials.certificate,
            on_committed_in_cloud=self._on_committed_in_cloud,
            on_telemetry_flows=self._telemetry.wake,
        )
        downlink = self.downlink = Downlink(
            self.device_id,
            self._kind,
            self._journal,
            self._clock,
            timing=self._timing,
            keys=self._settings.keys,
            trusted_time=self._trusted_time,
            generation=lambda: uplink.generation,
            ask_time=uplink.ask_time,
        )
        await downlink.restore()
        await self._telemetry.restore()
        driver = self._create_driver(self.device_id)
        timer = self._timer = DueTimer(lambda: _earlier(driver.next_due_ms, downlink.next_due_ms), self._clock)
        self._ending = False
        try:
            async with asyncio.TaskGroup() as group:
                for work in (
                    self._run_line(driver),
                    self._run_timers(driver, timer),
                    self._events.run(),
                    self._telemetry.run(),
                    self._run_acknowledged(driver),
                    self._run_connections(driver, uplink, downlink),
                ):
                    group.create_task(self._part(work))
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self._ending = True  # before the group cancels any of them
        finally:
            self.connected = False
            with suppress(JournalFullError):
                await self._telemetry.keep()

    async def _part(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await supervised(work, self._settings.on_failure)
        finally:
            self._ending = True  # none ends by itself: all of them do now

    def _leave_if_ending(self) -> None:
        """What fails in the very moment in which it is cancelled tells of its failure alone (Python 3.11)."""
        if self._ending:
            raise asyncio.CancelledError

    # --- hardware ---------------------------------------------------------------------------------------------

    async def _run_line(self, driver: Driver) -> None:
        while True:
            try:
                await self._line.open()
                self.vitals.opened()
                with self.vitals.working():
                    await self._handle(driver.on_start(self._clock.now_ms()))
                while data := await self._line.read():
                    self.vitals.heard()
                    with self.vitals.working():
                        await self._handle(driver.on_bytes(data, self._clock.now_ms()))
            except OSError as error:
                if str(error) != self.vitals.error:  # a port that is missing for days is told once
                    _log.warning("%s: line failed: %s", self.device_id, error)
                self.vitals.failed(str(error))
            finally:
                self.vitals.ended()
                self._line.close()
            self.counts["line_reopened"] += 1
            await asyncio.sleep(self._timing.line_reopen_s)

    async def _run_timers(self, driver: Driver, timer: DueTimer) -> None:
        assert self.downlink is not None
        while True:
            now_ms = await timer.wait()
            if driver.next_due_ms is not None and driver.next_due_ms <= now_ms:
                await self._handle(driver.on_timer(now_ms))
            await self.downlink.give_up_left_over()

    async def _handle(self, output: DriverOutput) -> None:
        assert self._timer is not None
        self._timer.look()
        if output.to_hardware:
            self._line.write(output.to_hardware)
        now_ms, clock = self._clock.now_ms(), 0 if self._clocks is None else self._clocks.now()
        if output.readings:
            self._telemetry.add(output.readings, clock)
        if output.events or output.after_commit:
            events = [(self._believable(at, now_ms), event) for at, event in output.events]
            await self._events.keep(events, output.after_commit, clock)
        for progress in output.progress:
            assert self.downlink is not None
            await self.downlink.on_progress(progress)

    def _believable(self, at: int, now_ms: int) -> int:
        """The hardware's time, or ours when we know it and the cloud would refuse the hardware's."""
        low, high = now_ms - CLOCK_SKEW_PAST_S_MAX * 1000, now_ms + CLOCK_SKEW_FUTURE_S_MAX * 1000
        return at if low < at < high or self._trusted_time.latest_ms() is None else now_ms

    # --- journal ------------------------------------------------------------------------------------------------

    def _on_committed(self, row: Row) -> None:
        assert self.uplink is not None
        self.uplink.offer(row)

    def _on_committed_in_cloud(self, row: Row) -> None:
        try:
            self._acknowledged.put_nowait(row)
        except asyncio.QueueFull:
            self.counts["lights_lost"] += 1

    async def _run_acknowledged(self, driver: Driver) -> None:
        while True:
            row = await self._acknowledged.get()
            model = self._kind.event_type(_type_decoder.decode(row.payload).type)
            await self._handle(driver.on_acknowledged(model.model_validate_json(row.payload), self._clock.now_ms()))

    # --- network --------------------------------------------------------------------------------------------------

    async def _run_connections(self, driver: Driver, uplink: Uplink, downlink: Downlink) -> None:
        await self._pause(self._randomness.uniform(0, self._settings.first_connect_within_s), uplink, attempts=0)
        attempts = refusals = 0
        turn_drawn = False
        while True:
            renew = False
            made = self.counts["connects"]
            try:
                await self._connect(driver, uplink, downlink, attempts)
            except* LinkError as errors:
                renew = errors.subgroup((RenewConnectionError, TryNewCertificateError)) is not None
                refusals = refusals + 1 if errors.subgroup(IdentityRefusedError) is not None else 0
                known, self.link_error = self.link_error, str(leaf_of(errors))
                level = logging.ERROR if refusals and self.link_error != known else logging.INFO
                _log.log(level, "%s: link: %s", self.device_id, self.link_error)
            self._leave_if_ending()
            attempts = 0 if uplink.welcomed else attempts + 1
            self._settings.credentials.ended()
            self.connected = uplink.welcomed = False
            self.counts["disconnects"] += 1
            if not renew:
                turn_drawn = turn_drawn and self.counts["connects"] == made
                turn_s = pause_s(self._timing.reconnect_jitter_s, self._randomness, failed=turn_drawn)
                turn_drawn = True
                await self._pause(turn_s + self._timing.refused_pause_s(refusals), uplink, attempts)

    async def _pause(self, seconds: float, uplink: Uplink, attempts: int) -> None:
        """Wait; an emergency that waits cuts it short to almost nothing, backing off while attempts fail."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await uplink.emergency_waiting.wait()
                most_s = self._timing.reconnect_emergency_s
                await asyncio.sleep(self._randomness.uniform(0, min(most_s, 0.05 * 2.0 ** min(attempts, 16))))

    async def _open(self, stack: AsyncExitStack, uplink: Uplink, attempts: int) -> Session:
        """A connection; an emergency that waits gives up early on a network that swallows everything."""
        patience_s = min(self._timing.urgent_most_s, self._timing.urgent_s * 2.0 ** min(attempts, 16))
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
                hurrying = group.create_task(_hurry(limit, uplink.emergency_waiting, patience_s))
                session = await stack.enter_async_context(
                    self._link.connect(uplink.begin_connection(), self._kind.keep_alive_s)
                )
                hurrying.cancel()
        except TimeoutError as error:
            raise LinkError("no connection in time for a waiting emergency") from error
        return session

    async def _connect(self, driver: Driver, uplink: Uplink, downlink: Downlink, attempts: int) -> None:
        credentials = self._settings.credentials
        async with AsyncExitStack() as stack:
            session = await self._open(stack, uplink, attempts)
            self._leave_if_ending()
            self.counts["connects"] += 1
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._receive(session, driver, uplink, downlink))
                    group.create_task(uplink.run(session))
                    group.create_task(downlink.run(session))
                    group.create_task(credentials.run(session, self._trusted_time, uplink.emergency_waiting.is_set))
            except asyncio.CancelledError:
                with suppress(LinkError, TimeoutError):
                    async with asyncio.timeout(self._timing.farewell_s):
                        await session.publish(UpChannel.STATUS, encode(uplink.status(online=False)))
                raise

    async def _receive(self, session: Session, driver: Driver, uplink: Uplink, downlink: Downlink) -> None:
        async for channel, data in session.received():
            if channel is DownChannel.COMMAND:
                accepted = await downlink.on_order(data)
                if accepted is not None:
                    reached("edge.command.before_execute")
                    await self._handle(driver.on_command(*accepted, self._clock.now_ms()))
                    reached("edge.command.after_execute")
                continue
            if channel is DownChannel.CERTIFICATE:
                self._settings.credentials.on_answer(data)
                continue
            try:
                message = decode_downlink(data)
            except EnvelopeError as error:
                self.counts["unreadable"] += 1
                _log.warning("%s: unreadable message from the cloud: %s", self.device_id, error)
                continue
            if isinstance(message, Welcome):
                await uplink.on_welcome(message)
                self._telemetry.wake()
                if uplink.welcomed and not self.connected:
                    self.welcomed_s = self._clock.monotonic_s()
                self.connected = uplink.welcomed
                if uplink.welcomed:
                    self._settings.credentials.welcomed()
            else:
                await uplink.on_acknowledgement(message)
                self._telemetry.wake()
                if message.replies and is_genuine(message, self.device_id, self._settings.keys.verifiers):
                    await downlink.on_replies_acknowledged(message.replies)
        raise LinkError("the connection ended")


def _earlier(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


async def _hurry(limit: asyncio.Timeout, emergency_waiting: asyncio.Event, patience_s: float) -> None:
    await emergency_waiting.wait()
    limit.reschedule(asyncio.get_running_loop().time() + patience_s)
