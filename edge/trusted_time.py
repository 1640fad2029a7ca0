"""Time that the cloud has vouched for."""

from fleet.clock import MILLISECONDS_PER_SECOND, Clock


class TrustedTime:
    """The time of the last signed welcome of this boot, carried on by the monotonic clock.

    The device's wall clock does not enter: setting it (by accident or by an attacker) makes no old command fresh.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._anchor: tuple[int, float] | None = None

    def set(self, time_ms: int) -> None:
        """The cloud says, with its signature, that it is `time_ms` now."""
        self._anchor = time_ms, self._clock.monotonic_s()

    def now_ms(self) -> int | None:
        """Business ms, or None when no welcome was verified since the start."""
        if self._anchor is None:
            return None
        time_ms, monotonic_s = self._anchor
        elapsed_s = (self._clock.monotonic_s() - monotonic_s) * self._clock.speed
        return time_ms + round(elapsed_s * MILLISECONDS_PER_SECOND)
