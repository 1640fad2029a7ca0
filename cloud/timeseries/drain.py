"""Drains the spool into the series store, at its own pace and repeatably.

A batch is read, written, and only then is its position saved: a crash in between writes the same points
again, which changes nothing. An outage of the store may last as long as the disk holds; nobody else waits
for it. What the store will never take is found by halving, and quarantined with the reason; but only while the store
takes other points: one that refuses everything, whatever it calls that, is an outage like any other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import structlog

from cloud.model import Quarantined
from cloud.ports import SeriesAccessError, SeriesError, SeriesSink
from cloud.timeseries.lines import encode_lines
from cloud.timeseries.points import Point, PointMaker, UnusableRecordError
from cloud.timeseries.position import PositionStore
from cloud.timeseries.spool import Spool
from fleet import topics
from fleet.envelope import Lane
from fleet.milestones import reached
from fleet.randomness import Randomness

_log = structlog.get_logger(__name__)

_DOUBLINGS_MAX: Final = 16
_REASON_CHARACTERS_MAX: Final = 300

Quarantine = Callable[[Sequence[Quarantined]], Awaitable[None]]
"""Keeps durably what could not be written; a repeat after a crash is possible."""


class DrainState(StrEnum):
    """What the series is worth right now; anything but `flowing` is an alarm for the IT team."""

    FLOWING = "flowing"
    WAITING = "waiting"
    """The store is down or slow; the spool grows."""
    NO_ACCESS = "no_access"
    """The store refuses our token or bucket; a person must act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOptions:
    """Pace and patience, in real seconds. `interval_s` lets a batch gather after a short one."""

    batch_bytes_max: int = 1 << 20
    interval_s: float = 0.5
    retry_base_s: float = 0.5
    retry_s_max: float = 60.0


@dataclass(slots=True)
class DrainStatistics:
    """Counters since the start, for metrics."""

    records: int = 0
    points_written: int = 0
    points_quarantined: int = 0
    records_quarantined: int = 0
    skipped_bytes: int = 0
    """Damaged stretches of the spool."""
    retries: int = 0


@dataclass(slots=True)
class _Work:
    """One batch of the spool, decoded."""

    next_position: int
    points: list[Point] = field(default_factory=list)
    received_at_ms: list[int] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    records: int = 0
    skipped_bytes: int = 0


class SeriesDrain:
    """One task (`run`) per spool.

    Args:
        spool: read from the saved position on; told what may be deleted, as consumer `series`.
        store: the series.
        positions: where `series` stands.
        quarantine: takes records and points that cannot be written.
        randomness: jitter of the retries.
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
        self._on_state = on_state
        self._sleep = sleep
        self._maker = PointMaker()
        self._position: int | None = None
        self._witness: Point | None = None
        """A point that the store took: one that takes it again works."""
        self._one_step = asyncio.Lock()

    @property
    def lag_bytes(self) -> int:
        """Synced bytes of the spool that are not in the series yet."""
        return max(0, self._spool.synced_position - (self._position or 0))

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
        """Write one batch, however long that takes; False if there was none."""
        async with self._one_step:
            if self._position is None:
                self._position = await self._positions.load()
                await asyncio.to_thread(self._spool.release, "series", self._position)
            work = await asyncio.to_thread(self._prepare, self._position)
            if work.next_position == self._position:
                return False
            failures = 0
            while not await self._write(work):
                await self._sleep(self._delay_s(failures, 0.0))
                failures += 1
                work = await asyncio.to_thread(self._prepare, self._position)  # there may be more by now
            reached("drain.after_series_write")
            if work.quarantined:
                await self._quarantine(work.quarantined)
            await self._positions.save(work.next_position)
            reached("drain.after_position_save")
            self._position = work.next_position
            await asyncio.to_thread(self._spool.release, "series", work.next_position)
            self.statistics.records += work.records
            self.statistics.skipped_bytes += work.skipped_bytes
            return True

    def _prepare(self, position: int) -> _Work:
        batch = self._spool.read(position, self._options.batch_bytes_max)
        work = _Work(batch.next_position, records=len(batch.envelopes), skipped_bytes=batch.skipped_bytes)
        if batch.skipped_bytes:
            _log.error("damaged bytes in the spool", position=position, skipped_bytes=batch.skipped_bytes)
        for raw, received_at_ms in zip(batch.envelopes, batch.received_at_ms, strict=True):
            try:
                points = self._maker.points(raw)
            except UnusableRecordError as error:
                reason = f"series: {error}"[:_REASON_CHARACTERS_MAX]
                work.quarantined.append(Quarantined(received_at_ms, "", raw, reason, lane=Lane.TELEMETRY))
                self.statistics.records_quarantined += 1
                continue
            work.points += points
            work.received_at_ms += [received_at_ms] * len(points)
        return work

    async def _write(self, work: _Work) -> bool:
        """Write all points; ranges the store refuses are halved until the bad ones stand alone.

        False if the store took nothing else beside what it refused: then nothing is known about those points.
        """
        ranges = [(0, len(work.points))] if work.points else []
        suspects: list[int] = []
        works = self._witness is None
        while ranges:
            start, end = ranges.pop()
            reason = await self._write_patiently(work.points[start:end])
            if reason is None:
                self._witness, works = work.points[start], True
            elif end - start > 1:
                middle = (start + end) // 2
                ranges += [(middle, end), (start, middle)]
            elif works or (self._witness is not None and await self._takes(self._witness)):
                works = True
                suspects.append(start)
            else:
                return self._takes_nothing(reason)
        refused: list[Quarantined] = []
        for number in suspects:  # once more, for when it was refused the store may have refused everything
            reason = await self._write_patiently(work.points[number : number + 1])
            if reason is None:
                continue
            if self._witness is None or not await self._takes(self._witness):
                return self._takes_nothing(reason)
            refused.append(_refused(work.points[number], work.received_at_ms[number], reason))
        work.quarantined += refused
        self.statistics.points_quarantined += len(refused)
        self.statistics.points_written += len(work.points) - len(refused)
        return True

    async def _takes(self, point: Point) -> bool:
        return await self._write_patiently([point]) is None

    def _takes_nothing(self, reason: str) -> bool:
        self._enter(DrainState.WAITING, reason)
        self.statistics.retries += 1
        return False

    async def _write_patiently(self, points: Sequence[Point]) -> str | None:
        """Retry until the store took the points (None) or refused them for good (the reason)."""
        failures = 0
        while True:
            try:
                await self._store.write(points)
            except SeriesError as error:
                if error.retry_after_s is None:
                    return str(error)
                access = isinstance(error, SeriesAccessError)
                self._enter(DrainState.NO_ACCESS if access else DrainState.WAITING, str(error))
                self.statistics.retries += 1
                await self._sleep(self._delay_s(failures, error.retry_after_s))
                failures += 1
            else:
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


def _refused(point: Point, received_at_ms: int, reason: str) -> Quarantined:
    return Quarantined(
        received_at_ms,
        topics.up(point.device_id, topics.UpChannel.TELEMETRY),
        encode_lines([point]),
        f"series: {reason}"[:_REASON_CHARACTERS_MAX],
        device_id=point.device_id,
        lane=Lane.TELEMETRY,
        seq=point.fields.get("message_seq"),
    )
