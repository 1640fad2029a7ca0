"""Clocks of simulated machines: virtual time, which somebody may set wrong."""

from collections.abc import Callable
from typing import Final

from fleet.clock import MILLISECONDS_PER_SECOND

STARTED_MS: Final = 1_799_942_400_000  # midnight before a Friday in Dalian


class MachineClock:
    """One machine's wall clock and monotonic clock."""

    speed = 1.0

    def __init__(self, time_s: Callable[[], float], started_ms: int = STARTED_MS) -> None:
        self._time_s = time_s
        self._started_ms = started_ms
        self.offset_ms = 0

    def now_ms(self) -> int:
        """Business ms; may jump."""
        return self._started_ms + int(self._time_s() * MILLISECONDS_PER_SECOND + 1e-6) + self.offset_ms

    def monotonic_s(self) -> float:
        """Virtual seconds; never jumps."""
        return self._time_s()

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.offset_ms += round(seconds * MILLISECONDS_PER_SECOND)
