"""Rolls the series up, by the minute and by the hour, behind the back of the live data.

One task works off the windows that were written to (`cloud.timeseries.touched`), newest first: each is computed again
from what was measured and written whole, so doing it twice changes nothing and late readings are counted. Order
between processes that write the same window matters, so one at a time does it (`exclusively`).

It stands back: it waits while the drain is behind, and rests after each request for longer than that took.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import structlog

from cloud.ports import SeriesAccessError, SeriesError, SeriesPoint, SeriesStore
from cloud.timeseries.levels import Level
from cloud.timeseries.touched import Stretch, TouchedWindows
from fleet.clock import Clock

_log = structlog.get_logger(__name__)

_DOUBLINGS_MAX: Final = 10


class RollupStore(Protocol):
    """A store that can compute a level from what was measured."""

    async def roll(self, level: Level, measurement: str, from_ms: int, until_ms: int) -> int:
        """Compute the windows that lie in [from_ms, until_ms) and write them; returns how many lines that made.

        A measurement of steps is copied instead. Doing it again changes nothing. Raises SeriesError.
        """
        ...


class RollupState(StrEnum):
    """What the coarser levels are worth."""

    WORKING = "working"
    WAITING = "waiting"
    """The store does not answer, or refuses; windows are kept."""
    NO_ACCESS = "no_access"
    """No such level, or no right to it: `fleet influx init`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupOptions:
    """Pace, in real seconds; `settle_ms` and windows in business time."""

    interval_s: float = 20.0
    settle_ms: int = 15_000
    """After the end of a window: readings are under way that long. What comes later rolls it up again."""
    windows_max: int = 60
    """Of one request: an hour of minutes, two and a half days of hours."""
    rest_share: float = 2.0
    """Rest this many times as long as the request took: a third of one connection at most."""
    retry_base_s: float = 2.0
    retry_s_max: float = 300.0


@dataclass(slots=True)
class RollupStatistics:
    """Counters since the start, for metrics."""

    stretches: int = 0
    lines: int = 0
    failures: int = 0


class Rollup:
    """One task (`run`) per process that writes points.

    Args:
        store: computes and writes.
        touched: what to do.
        clock: business time; a window is rolled up after its end.
        is_busy: true while live data needs the store more.
        exclusively: held while one stretch is computed and written.
        sleep: waits real seconds; tests give their own.
    """

    def __init__(
        self,
        store: RollupStore,
        touched: TouchedWindows,
        clock: Clock,
        *,
        options: RollupOptions | None = None,
        is_busy: Callable[[], bool] = lambda: False,
        exclusively: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.statistics = RollupStatistics()
        self.state = RollupState.WORKING
        self._store = store
        self._touched = touched
        self._clock = clock
        self._options = options or RollupOptions()
        self._is_busy = is_busy
        self._exclusively = exclusively
        self._sleep = sleep

    @property
    def windows_waiting(self) -> int:
        """Windows that are not rolled up since they were written to, those of now included."""
        return self._touched.count

    async def run(self) -> None:
        """Roll up until cancelled."""
        failures = 0
        while True:
            failures = 0 if await self.work_off() else failures + 1
            await self._sleep(self._delay_s(failures))

    async def work_off(self) -> bool:
        """Roll up what is due now; False if some of it failed and waits."""
        until_ms = self._clock.now_ms() - self._options.settle_ms
        refused = False
        for stretch in self._touched.due(until_ms, self._options.windows_max):
            while self._is_busy():
                await self._sleep(self._options.interval_s)
            began_s = self._clock.monotonic_s()
            try:
                await self._roll(stretch)
            except SeriesError as error:
                self._fail(stretch, error)
                if error.retry_after_s is not None:
                    return False
                refused = True  # this one alone: the others are worth trying
            await self._sleep((self._clock.monotonic_s() - began_s) * self._options.rest_share)
        if not refused:
            self._enter(RollupState.WORKING, "")
        return not refused

    async def _roll(self, stretch: Stretch) -> None:
        async with self._exclusively():
            lines = await self._store.roll(stretch.level, stretch.measurement, stretch.from_ms, stretch.until_ms)
        await self._touched.done(stretch)
        self.statistics.stretches += 1
        self.statistics.lines += lines

    def _fail(self, stretch: Stretch, error: SeriesError) -> None:
        self.statistics.failures += 1
        access = isinstance(error, SeriesAccessError)
        words = f"{stretch.measurement}, {stretch.level.policy}: {error}"
        self._enter(RollupState.NO_ACCESS if access else RollupState.WAITING, words)

    def _enter(self, state: RollupState, reason: str) -> None:
        if state is not self.state:
            self.state = state
            _log.warning("roll-up of the series", state=state.value, reason=reason, windows=self.windows_waiting)

    def _delay_s(self, failures: int) -> float:
        options = self._options
        if not failures:
            return options.interval_s
        return min(options.retry_s_max, options.retry_base_s * 2.0 ** min(failures, _DOUBLINGS_MAX))


class TrackedSeries:
    """`cloud.ports.SeriesStore` around another: writes points, then remembers their windows.

    In this order, so that a kill in between writes the points again and a roll-up never runs before the write.
    """

    def __init__(self, store: SeriesStore, touched: TouchedWindows) -> None:
        self.touched = touched
        self.store = store
        self.takes_lines: bool = getattr(store, "takes_lines", False)

    async def write(self, points: Sequence[SeriesPoint]) -> None:
        """Durable in the store, and marked for the roll-up."""
        await self.store.write(points)
        await self.touched.mark(points)

    async def read(
        self, kind: str, device_id: str, field: str, from_ms: int, to_ms: int, step_ms: int, aggregate: str = "mean"
    ) -> list[tuple[int, float]]:
        """See the port."""
        return await self.store.read(kind, device_id, field, from_ms, to_ms, step_ms, aggregate)

    async def count(self, kind: str | None = None) -> int:
        """See the port."""
        return await self.store.count(kind)

    async def close(self) -> None:
        """Close the store."""
        await self.store.close()
