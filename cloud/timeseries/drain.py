"""Drains the spool into the series store, at its own pace and repeatably.

A batch is read, written, and only then is its position saved: a crash in between writes the same points
again, which changes nothing. An outage of the store may last as long as the disk holds; nobody else waits
for it. After one, what comes now does not queue behind it: the spool is read at two places at once, the backlog
from its beginning and live data from where it stood when the backlog was found, until the first place reaches the
second. Only the backlog's position is saved, behind what is written without a gap; a crash costs a repeat.

What the store will never take is found by halving, and quarantined with the reason; but only while the store takes
other points: one that refuses everything, whatever it calls that, is an outage like any other.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from cloud.model import Quarantined
from cloud.ports import SeriesAccessError, SeriesError, SeriesPoint, SeriesSink, SeriesTooLargeError
from cloud.timeseries.lines import encode_lines
from cloud.timeseries.pace import DrainOptions, DrainState, DrainStatistics
from cloud.timeseries.points import PointMaker, UnusableRecordError
from cloud.timeseries.position import PositionStore
from cloud.timeseries.ready import LineMaker
from cloud.timeseries.spool import Spool
from cloud.timeseries.work import Flight, Work
from fleet import topics
from fleet.envelope import Lane
from fleet.milestones import reached
from fleet.randomness import Randomness

__all__ = ["DrainOptions", "DrainState", "DrainStatistics", "Quarantine", "SeriesDrain"]

_log = structlog.get_logger(__name__)

_DOUBLINGS_MAX: Final = 16
_REASON_CHARACTERS_MAX: Final = 300
_PROBES_MAX: Final = 16

_EXPIRED: Final = re.compile(r"beyond retention policy dropped=(\d+)")

Quarantine = Callable[[Sequence[Quarantined]], Awaitable[None]]
"""Keeps durably what could not be written; a repeat after a crash is possible."""


class SeriesDrain:
    """One task (`run`) per spool.

    Args:
        spool: read from the saved position on; told what may be deleted, as consumer `series`.
        store: the series.
        positions: where `series` stands.
        quarantine: takes records and points that cannot be written.
        randomness: jitter of the retries.
        store_clock_is_right: whether to believe a store that says that points are too old for it.
        on_state: called at every change of `state`, with the reason in words.
        sleep: waits real seconds; tests give their own.
    """

    def __init__(
        self,
        spool: Spool,
        store: SeriesSink,
        *,
        positions: PositionStore,
        quarantine: Quarantine,
        randomness: Randomness,
        options: DrainOptions | None = None,
        store_clock_is_right: Callable[[], bool] = lambda: True,
        on_state: Callable[[DrainState, str], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.statistics = DrainStatistics()
        self.state = DrainState.FLOWING
        self._spool = spool
        self._store = store
        self._positions = positions
        self._quarantine = quarantine
        self._randomness = randomness
        self._options = options or DrainOptions()
        self._store_clock_is_right = store_clock_is_right
        self._on_state = on_state
        self._sleep = sleep
        self._maker = PointMaker()
        self._lines = LineMaker(self._maker)
        self._takes_lines = getattr(store, "takes_lines", False)
        self._position: int | None = None
        self._join = 0
        """Where the backlog ends and live data began, while there are two places."""
        self._live: int | None = None
        """Where live data is read next; None: there is one place."""
        self._ahead: tuple[int, asyncio.Future[Work]] | None = None
        """The batch behind the one that is being written, read meanwhile."""
        self._lines_max = self._options.lines_max
        self._witness: Sequence[SeriesPoint] = ()
        """One point that the store took: one that takes it again works."""
        self._one_step = asyncio.Lock()

    @property
    def lag_bytes(self) -> int:
        """Synced bytes of the spool that are not in the series yet."""
        position = self._position or 0
        live = 0 if self._live is None else max(0, self._live - max(position, self._join))
        return max(0, self._spool.synced_position - position - live)

    @property
    def backlog_position(self) -> int:
        """Everything before this place of the spool stands in the series, and was let go of."""
        return self._position or 0

    @property
    def live_lag_bytes(self) -> int:
        """The same, of what came since a backlog was found: what boards miss of now."""
        return self.lag_bytes if self._live is None else max(0, self._spool.synced_position - self._live)

    @property
    def is_behind(self) -> bool:
        """Whether the store is away, or a backlog of an outage is under way: others stand back."""
        return self.state is not DrainState.FLOWING or self.lag_bytes >= self._options.backlog_bytes_min

    async def run(self) -> None:
        """Drain until cancelled."""
        while True:
            moved = await self.step()
            if not moved or self.lag_bytes < self._options.batch_bytes_max:
                await self._sleep(self._options.interval_s)

    async def catch_up(self) -> None:
        """Return when everything that is synced now stands in the series."""
        goal = self._spool.synced_position
        while self._position is None or self._position < goal:
            await self.step()

    async def step(self) -> bool:
        """Write one batch (and one of live data beside a backlog), however long that takes; False if there was none."""
        async with self._one_step:
            if self._position is None:
                self._position = await self._positions.load()
                await asyncio.to_thread(self._spool.release, "series", self._position)
            if self._live is None and self.lag_bytes >= self._options.backlog_bytes_min:
                self._live = self._join = self._spool.synced_position
            if self._live is not None:
                await self._drain_backlog()
                return True
            work = await self._advance(self._position)
            if work.next_position == self._position:
                return False
            await self._save(work.next_position)
            return True

    async def _save(self, position: int) -> None:
        await self._positions.save(position)
        reached("drain.after_position_save")
        self._position = position
        await asyncio.to_thread(self._spool.release, "series", position)

    async def _drain_backlog(self) -> None:
        """Write some batches of it, several on their way at once, and live data at the same time.

        The next batch is made while others are at the store, and the position is saved once for several.
        """
        options, position = self._options, self._position or 0
        flight = Flight(position, options.bodies_at_once)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._drain_live(flight))
            for _ in range(options.bodies_per_step):
                if position >= self._join:
                    break
                await flight.places.acquire()
                work = await self._read(position)
                self._read_ahead(work.next_position)
                group.create_task(self._fly(flight, position, work))
                position = work.next_position
            flight.end = position
        if self._live is not None and position >= self._join:
            live, self._live = max(position, self._live), None
            await self._save(live)

    async def _fly(self, flight: Flight, position: int, work: Work) -> None:
        try:
            await self._finish(work)
        finally:
            flight.places.release()
        flight.land(position, work.next_position)
        async with flight.saving:
            due = flight.bodies_unsaved >= self._options.bodies_per_save or flight.is_over
            if due and flight.landed > (self._position or 0):
                flight.bodies_unsaved = 0
                await self._save(flight.landed)
        flight.wake.set()

    async def _drain_live(self, flight: Flight) -> None:
        """Whatever has come, after each batch of the backlog or each interval, whichever is sooner."""
        while not flight.is_over:
            flight.wake.clear()
            work = await self._advance(self._live or self._join)
            self._live = work.next_position
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.interval_s):
                    await flight.wake.wait()

    async def _finish(self, work: Work) -> None:
        """As `_advance`, for a batch that stays as it was read."""
        failures = 0
        while not await self._write(work):
            await self._sleep(self._delay_s(failures, 0.0))
            failures += 1
        await self._settle(work)

    async def _settle(self, work: Work) -> None:
        reached("drain.after_series_write")
        if work.quarantined:
            await self._quarantine(work.quarantined)
        self.statistics.records += work.records
        self.statistics.skipped_bytes += work.skipped_bytes

    async def _advance(self, position: int) -> Work:
        """Write the batch at `position` and quarantine what is refused of it; the position stays where it is."""
        work = await asyncio.to_thread(self._prepare, position)
        if work.next_position == position:
            return work
        failures = 0
        while not await self._write(work):
            await self._sleep(self._delay_s(failures, 0.0))
            failures += 1
            work = await asyncio.to_thread(self._prepare, position)  # there may be more by now
        await self._settle(work)
        return work

    async def _read(self, position: int) -> Work:
        ahead = self._ahead
        if ahead is not None and ahead[0] == position:
            self._ahead = None
            work = await ahead[1]
            if work.next_position > position:
                return work
        return await asyncio.to_thread(self._prepare, position)

    def _read_ahead(self, position: int) -> None:
        """Only in a backlog, up to where live data began."""
        if position < self._join:
            self._ahead = position, asyncio.get_running_loop().run_in_executor(None, self._prepare, position)

    def _prepare(self, position: int) -> Work:
        bytes_max = self._options.batch_bytes_max
        if self._live is not None and position < self._join:
            bytes_max = min(bytes_max, self._join - position)  # what is behind it was written as live data
        batch = self._spool.read(position, bytes_max)
        work = Work(batch.next_position, records=len(batch.envelopes), skipped_bytes=batch.skipped_bytes)
        if batch.skipped_bytes:
            _log.error("damaged bytes in the spool", position=position, skipped_bytes=batch.skipped_bytes)
        if self._takes_lines:
            ready = self._lines.ready(batch.envelopes, batch.received_at_ms)
            work.points, work.received_at_ms = ready.points, ready.received_at_ms
            for number, reason in ready.unusable:
                self._set_aside(work, batch.envelopes[number], batch.received_at_ms[number], reason)
            return work
        made: list[SeriesPoint] = []
        for raw, received_at_ms in zip(batch.envelopes, batch.received_at_ms, strict=True):
            try:
                points = self._maker.points(raw)
            except UnusableRecordError as error:
                self._set_aside(work, raw, received_at_ms, str(error))
                continue
            made += points
            work.received_at_ms += [received_at_ms] * len(points)
        work.points = made
        return work

    def _set_aside(self, work: Work, raw: bytes, received_at_ms: int, why: str) -> None:
        reason = f"series: {why}"[:_REASON_CHARACTERS_MAX]
        work.quarantined.append(Quarantined(received_at_ms, "", raw, reason, lane=Lane.TELEMETRY))
        self.statistics.records_quarantined += 1

    async def _write(self, work: Work) -> bool:
        """Write all points; ranges the store refuses are halved until the bad ones stand alone.

        False if the store took nothing else beside what it refused: then nothing is known about those points.
        """
        count = len(work.points)
        bodies = -(-count // self._lines_max)
        lines = -(-count // max(1, bodies))  # bodies of about equal size
        ranges = [(start, min(start + lines, count)) for start in range(0, count, max(1, lines))][::-1]
        suspects: list[tuple[int, int]] = []
        works = False
        while ranges:
            start, end = ranges.pop()
            refusal = await self._write_patiently(work.points[start:end])
            if refusal is None:
                self._witness, works = work.points[end - 1 : end], True
                continue
            if _expired_count(refusal) and not self._store_clock_is_right():
                return self._takes_nothing(f"the store's clock is wrong: {refusal}")
            parts = self._split(work, start, end, refusal)
            ranges += parts
            if parts:
                works = works or _expired_count(refusal) > 0  # then it took the others
                continue
            if not works and not await self._takes_others(work):
                return self._takes_nothing(str(refusal))
            works = True
            suspects.append((start, end))
        refused: list[Quarantined] = []
        for start, end in suspects:  # once more, for when it was refused the store may have refused everything
            refusal = await self._write_patiently(work.points[start:end])
            if refusal is None:
                continue
            if not await self._takes_others(work):
                return self._takes_nothing(str(refusal))
            refused += [_refused(work.points[n], work.received_at_ms[n], str(refusal)) for n in range(start, end)]
        work.quarantined += refused
        self.statistics.points_quarantined += len(refused)
        self.statistics.points_written += len(work.points) - len(refused)
        return True

    def _split(self, work: Work, start: int, end: int, refusal: SeriesError) -> list[tuple[int, int]]:
        """Smaller ranges to try, the first one last; none where the refusal is about all of this range."""
        expired = min(_expired_count(refusal), end - start)
        if expired == end - start or end - start == 1:
            return []
        if expired:  # it said how many are too old for it: those are the oldest
            work.sort(start, end)
            return [(start + expired, end), (start, start + expired)]
        middle = (start + end) // 2
        if isinstance(refusal, SeriesTooLargeError):
            self._lines_max = min(self._lines_max, middle - start)
        return [(middle, end), (start, middle)]

    async def _takes_others(self, work: Work) -> bool:
        """Whether the store takes anything: what it took before, else a few points of this batch, others each time."""
        if self._witness:
            return await self._write_patiently(self._witness) is None
        stride = -(-len(work.points) // _PROBES_MAX)
        for start in range(int(self._randomness.uniform(0, stride - 0.001)), len(work.points), stride):
            probe = work.points[start : start + 1]
            if await self._write_patiently(probe) is None:
                self._witness = probe
                return True
        return False

    def _takes_nothing(self, reason: str) -> bool:
        self._enter(DrainState.WAITING, reason)
        self.statistics.retries += 1
        return False

    async def _write_patiently(self, points: Sequence[SeriesPoint]) -> SeriesError | None:
        """Retry until the store took the points (None) or refused them for good (why)."""
        failures = 0
        while True:
            try:
                await self._store.write(points)
            except SeriesError as error:
                if error.retry_after_s is None:
                    return error
                access = isinstance(error, SeriesAccessError)
                self._enter(DrainState.NO_ACCESS if access else DrainState.WAITING, str(error))
                self.statistics.retries += 1
                await self._sleep(self._delay_s(failures, error.retry_after_s))
                failures += 1
            else:
                self.statistics.bodies += 1
                self._enter(DrainState.FLOWING, "")
                return None

    def _delay_s(self, failures: int, retry_after_s: float) -> float:
        """The store's wish plus full jitter under a growing cap."""
        options = self._options
        cap_s = min(options.retry_s_max, options.retry_base_s * 2.0 ** min(failures, _DOUBLINGS_MAX))
        return min(retry_after_s, options.retry_s_max) + self._randomness.uniform(0, cap_s)

    def _enter(self, state: DrainState, reason: str) -> None:
        if state is self.state:
            return
        self.state = state
        _log.warning("series drain", state=state.value, reason=reason, lag_bytes=self.lag_bytes)
        if self._on_state is not None:
            self._on_state(state, reason)


def _expired_count(refusal: SeriesError) -> int:
    """How many points InfluxDB says are older than it keeps; 0: it refused something else."""
    found = _EXPIRED.search(str(refusal))
    return int(found[1]) if found is not None else 0


def _refused(point: SeriesPoint, received_at_ms: int, reason: str) -> Quarantined:
    return Quarantined(
        received_at_ms,
        topics.up(point.device_id, topics.UpChannel.TELEMETRY),
        encode_lines([point]),
        f"series: {reason}"[:_REASON_CHARACTERS_MAX],
        device_id=point.device_id,
        lane=Lane.TELEMETRY,
        seq=point.fields.get("message_seq"),
    )
