"""Points on their way into the series: patiently through an outage, and around points it will never take.

The same care as the drain of the spool takes (`cloud.timeseries.drain`), for points that are not in a spool: what the
store refuses is found by halving and set aside with the reason, but only while it takes other points. One that refuses
everything, whatever it calls that, is an outage like any other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from cloud.model import Quarantined
from cloud.ports import SeriesAccessError, SeriesError, SeriesSink
from cloud.timeseries.drain import DrainState
from cloud.timeseries.lines import encode_lines
from cloud.timeseries.points import Point
from fleet.randomness import Randomness

_log = structlog.get_logger(__name__)

_DOUBLINGS_MAX: Final = 16
_REASON_CHARACTERS_MAX: Final = 300

Quarantine = Callable[[Sequence[Quarantined]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Real seconds between tries."""

    retry_base_s: float = 0.5
    retry_s_max: float = 60.0


@dataclass(slots=True)
class SendingStatistics:
    """Counters since the start."""

    points_written: int = 0
    points_refused: int = 0
    retries: int = 0


class Sending:
    """Used by one task.

    Args:
        store: the series.
        quarantine: takes what cannot be written.
        received_at_ms: business time, for what is set aside.
        randomness: jitter of the retries.
        sleep: waits real seconds; tests give their own.
    """

    def __init__(
        self,
        store: SeriesSink,
        *,
        quarantine: Quarantine,
        received_at_ms: Callable[[], int],
        randomness: Randomness,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.state = DrainState.FLOWING
        self.statistics = SendingStatistics()
        self._store = store
        self._quarantine = quarantine
        self._received_at_ms = received_at_ms
        self._randomness = randomness
        self._patience = patience or Patience()
        self._sleep = sleep
        self._witness: Point | None = None
        """A point that the store took: one that takes it again works."""

    async def send(self, points: Sequence[Point]) -> None:
        """Return when every point is in the series or set aside, however long that takes."""
        failures = 0
        while not await self._send(points):
            await self._sleep(self._delay_s(failures, 0.0))
            failures += 1

    async def _send(self, points: Sequence[Point]) -> bool:
        """False if the store took nothing beside what it refused: then nothing is known about those points."""
        ranges = [(0, len(points))] if points else []
        suspects: list[int] = []
        while ranges:
            start, end = ranges.pop()
            reason = await self._write_patiently(points[start:end])
            if reason is None:
                self._witness = points[start]
            elif end - start > 1:
                middle = (start + end) // 2
                ranges += [(middle, end), (start, middle)]
            else:
                suspects.append(start)
        refused: list[tuple[Point, str]] = []
        for number in suspects:  # once more, for when it was refused the store may have refused everything
            reason = await self._write_patiently(points[number : number + 1])
            if reason is None:
                continue
            if self._witness is None or await self._write_patiently([self._witness]) is not None:
                self._enter(DrainState.WAITING, reason)
                self.statistics.retries += 1
                return False
            refused.append((points[number], reason))
        if refused:
            at_ms = self._received_at_ms()
            await self._quarantine([_set_aside(point, at_ms, reason) for point, reason in refused])
            _log.error("the series refused points of the history", points=len(refused), reason=refused[0][1])
        self.statistics.points_refused += len(refused)
        self.statistics.points_written += len(points) - len(refused)
        return True

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
        patience = self._patience
        cap_s = min(patience.retry_s_max, patience.retry_base_s * 2.0 ** min(failures, _DOUBLINGS_MAX))
        return min(retry_after_s, patience.retry_s_max) + self._randomness.uniform(0, cap_s)

    def _enter(self, state: DrainState, reason: str) -> None:
        if state is not self.state:
            self.state = state
            _log.warning("history", state=state.value, reason=reason)


def _set_aside(point: Point, received_at_ms: int, reason: str) -> Quarantined:
    words = f"series: {reason}"[:_REASON_CHARACTERS_MAX]
    return Quarantined(received_at_ms, "", encode_lines([point]), words, device_id=point.device_id or None)
