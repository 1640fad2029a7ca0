"""Waits until what a driver or a command wants at a moment of the wall clock is due."""

import math
from collections.abc import Callable
from typing import Final

from edge.trusted_time import WALL_WRONG_MS_MIN
from edge.wake import Wake
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

_PAUSE_S_MIN: Final = 0.001  # a driver that is always due must not take the whole core


class DueTimer:
    """`due_ms` says when (business ms) the next thing is wanted; None: nothing is.

    A moment is anchored to the monotonic clock when it is first seen, so that a jump of the wall clock moves no timer.
    The waiter is woken only if it would sleep too long, not whenever somebody looks.
    """

    def __init__(self, due_ms: Callable[[], int | None], clock: Clock) -> None:
        self._wanted_ms = due_ms
        self._clock = clock
        self._wake = Wake()
        self._due_ms: int | None = None
        self._due_s = math.inf
        self._sleeps_until_s = -math.inf
        self._ahead_ms = 0

    def look(self) -> None:
        """To be called after everything that may have changed what is wanted."""
        due_ms = self._wanted_ms()
        if due_ms == self._due_ms:
            return
        self._due_ms, self._due_s = due_ms, math.inf
        if due_ms is None:
            return
        wait_ms = due_ms - self._clock.now_ms()
        if wait_ms >= self._ahead_ms:  # reckoned from the time that `wait` told, which the wall clock was set back from
            wait_ms -= self._ahead_ms
        wait_s = wait_ms / MILLISECONDS_PER_SECOND / self._clock.speed
        self._due_s = self._clock.monotonic_s() + max(_PAUSE_S_MIN, wait_s)
        if self._due_s < self._sleeps_until_s:
            self._wake.set()

    async def wait(self) -> int:
        """Until something is due: the time that it is now, business ms, never before what was wanted."""
        while True:
            self._wake.clear()
            self.look()
            self._sleeps_until_s = self._due_s
            try:
                await self._wake.wait(None if self._due_ms is None else self._due_s - self._clock.monotonic_s())
            finally:
                self._sleeps_until_s = -math.inf
            if self._due_ms is not None and self._clock.monotonic_s() >= self._due_s:
                now_ms = max(self._clock.now_ms(), self._due_ms)
                ahead_ms = now_ms - self._clock.now_ms()
                self._ahead_ms = ahead_ms if ahead_ms > WALL_WRONG_MS_MIN else 0
                self._due_ms, self._due_s = None, math.inf
                return now_ms
