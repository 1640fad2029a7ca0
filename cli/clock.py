"""The real clocks, made here and handed to everybody else."""

import time
from collections.abc import Callable

jump: Callable[[], int] | None = None
"""How many ms this process's business clocks are wrong by now; set by `fleet chaos` in the processes it torments."""


class SystemClock:
    """Business time: real time, or `speed` times as fast since the real moment `origin_ms`, `shift_ms` apart.

    The anchor is a wall-clock moment, so that several processes started at different times, or one
    that was killed and restarted, agree on what time it is.
    """

    def __init__(self, *, speed: float = 1.0, origin_ms: int = 0, shift_ms: int = 0) -> None:
        self._speed = speed
        self._origin_ms = origin_ms or real_now_ms()
        self._shift_ms = shift_ms

    @property
    def speed(self) -> float:
        """Business seconds per real second."""
        return self._speed

    def now_ms(self) -> int:
        """Business time in ms since the epoch."""
        wrong_by_ms = 0 if jump is None else jump()
        if self._speed == 1.0:
            return time.time_ns() // 1_000_000 + self._shift_ms + wrong_by_ms
        passed_ms = round((time.time() * 1000 - self._origin_ms) * self._speed)
        return self._origin_ms + self._shift_ms + passed_ms + wrong_by_ms

    def monotonic_s(self) -> float:
        """Real seconds; on Linux the same origin for every process of one boot."""
        return time.monotonic()


def real_now_ms() -> int:
    """Real wall time in ms: for leases and logs, never for business."""
    return time.time_ns() // 1_000_000


RealNow = Callable[[], int]
