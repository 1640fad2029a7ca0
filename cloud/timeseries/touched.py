"""Which windows were written to since they were rolled up last.

A reading may come days late, from a device that was out of reach or after an outage: whoever writes points says
which windows they lie in, and the roll-up works off what was said. It is kept in a file, and a window leaves it only
when it was rolled up after the last write to it; so a kill at any moment costs a repeat, never a window.

Windows are counted from the epoch: window n of a level covers [n, n + 1) × its length.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from cloud.ports import SeriesError, SeriesPoint
from cloud.timeseries.levels import HOUR, MINUTE, ROLLED, Level
from cloud.timeseries.ready import ReadyLines

_log = structlog.get_logger(__name__)

WINDOWS_MAX: Final = 400_000
"""Of all measurements together: a month of minutes of nine measurements. Beyond it the oldest are given up."""
RETRY_AFTER_S: Final = 5.0
_MINUTE_NS: Final = MINUTE.window_ms * 1_000_000
_MINUTES_PER_HOUR: Final = HOUR.window_ms // MINUTE.window_ms
_LENGTH_MS: Final = {level.policy: level.window_ms for level in ROLLED}

Ranges = list[tuple[int, int]]


class Stretch(NamedTuple):
    """Neighbouring windows of one measurement: [first, end)."""

    level: Level
    measurement: str
    first: int
    end: int
    mark: int
    """The last mark when it was handed out."""

    @property
    def from_ms(self) -> int:
        """Inclusive."""
        return self.first * self.level.window_ms

    @property
    def until_ms(self) -> int:
        """Exclusive."""
        return self.end * self.level.window_ms


class _Kept(msgspec.Struct):
    """The file."""

    windows: dict[str, dict[str, Ranges]]
    """Level → measurement → ranges of windows."""


class TouchedWindows:
    """One per process that writes points; only its event loop calls it."""

    def __init__(self, path: Path) -> None:
        self.given_up = 0
        """Windows lost at the bound since the start."""
        self._path = path
        self._marks = 0
        self._new = False
        self._one_save = asyncio.Lock()
        self._windows: dict[tuple[str, str], dict[int, int]] = {}
        """(level, measurement) → window → number of its last mark."""
        self._load()

    @property
    def count(self) -> int:
        """Windows that wait, of all levels."""
        return sum(len(windows) for windows in self._windows.values())

    async def mark(self, points: Sequence[SeriesPoint]) -> None:
        """`points` are written: their windows are to be rolled up (again). Durable when it returns.

        Raises:
            SeriesError: the disk failed; the points are to be written again.
        """
        minutes = (
            points.minutes
            if isinstance(points, ReadyLines)
            else {(point.kind, point.at_ns // _MINUTE_NS) for point in points}
        )
        self.mark_windows(MINUTE, minutes)
        self.mark_windows(HOUR, {(kind, minute // _MINUTES_PER_HOUR) for kind, minute in minutes})
        self._bound()
        if self._new or self._one_save.locked():  # what is being saved may hold the same windows: wait for it
            await self._save()

    def mark_windows(self, level: Level, windows: Iterable[tuple[str, int]]) -> None:
        """The same for (measurement, window); not durable yet."""
        self._marks += 1
        for measurement, window in windows:
            known = self._windows.setdefault((level.policy, measurement), {})
            self._new = self._new or window not in known
            known[window] = self._marks

    def due(self, until_ms: int, windows_max: int) -> list[Stretch]:
        """Neighbouring windows that ended by `until_ms`, newest first, at most `windows_max` in one stretch."""
        found = []
        for level in ROLLED:
            end_window = until_ms // level.window_ms
            for (policy, measurement), windows in self._windows.items():
                if policy == level.policy:
                    for first, end in _ranges(window for window in windows if window < end_window):
                        for start in range(first, end, windows_max):
                            stop = min(end, start + windows_max)
                            found.append(Stretch(level, measurement, start, stop, self._marks))
        return sorted(found, key=lambda stretch: (-stretch.until_ms, stretch.level.window_ms, stretch.measurement))

    async def done(self, stretch: Stretch) -> None:
        """It is rolled up; windows that were marked since then stay. Durable when it returns. Raises SeriesError."""
        key = (stretch.level.policy, stretch.measurement)
        known = self._windows.get(key, {})
        for window in range(stretch.first, stretch.end):
            if known.get(window, self._marks + 1) <= stretch.mark:
                del known[window]
        if not known:
            self._windows.pop(key, None)
        self._new = True
        await self._save()

    # --- inside ------------------------------------------------------------------------------------------------

    def _bound(self) -> None:
        surplus = self.count - WINDOWS_MAX
        if surplus <= 0:
            return
        oldest = sorted(
            (window * _LENGTH_MS[key[0]], window, key) for key, windows in self._windows.items() for window in windows
        )[:surplus]
        for _, window, key in oldest:
            del self._windows[key][window]
        self.given_up += surplus
        _log.error("too many windows wait for their roll-up; run `fleet influx rollup` by hand", given_up=surplus)

    def _load(self) -> None:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return
        except msgspec.DecodeError:
            _log.error("the file of windows is unreadable; run `fleet influx rollup` by hand", file=self._path.name)
            return
        for policy, measurements in kept.windows.items():
            for measurement, ranges in measurements.items():
                windows = (window for first, end in ranges for window in range(first, end))
                self._windows[policy, measurement] = dict.fromkeys(windows, 0)

    async def _save(self) -> None:
        async with self._one_save:
            if not self._new:
                return  # one save served several
            self._new = False
            kept: dict[str, dict[str, Ranges]] = {}
            for (policy, measurement), windows in self._windows.items():
                kept.setdefault(policy, {})[measurement] = _ranges(windows)
            try:
                await asyncio.to_thread(self._write, msgspec.json.encode(_Kept(kept)))
            except OSError as error:
                self._new = True
                raise SeriesError(f"remembering what to roll up: {error}", retry_after_s=RETRY_AFTER_S) from error

    def _write(self, body: bytes) -> None:
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def _ranges(windows: Iterable[int]) -> Ranges:
    """Neighbours joined: 1, 2, 3, 7 → (1, 4), (7, 8)."""
    found: Ranges = []
    for window in sorted(windows):
        if found and found[-1][1] == window:
            found[-1] = (found[-1][0], window + 1)
        else:
            found.append((window, window + 1))
    return found
