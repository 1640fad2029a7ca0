"""Time that the cloud has vouched for."""

from typing import Final

from fleet.clock import MILLISECONDS_PER_SECOND, Clock

WALL_WRONG_MS_MIN: Final = 60_000


class TrustedTime:
    """The time of the last signed welcome of this boot, carried on by the monotonic clock.

    The device's wall clock does not enter: setting it (by accident or by an attacker) makes no old command fresh.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._anchor: tuple[int, float] | None = None
        self._slack_ms = 0.0

    def set(self, time_ms: int, asked_s: float) -> None:
        """The cloud said, with its signature, that it was `time_ms` at some moment after `asked_s` (monotonic)."""
        self._anchor = time_ms, asked_s
        elapsed_s = (self._clock.monotonic_s() - asked_s) * self._clock.speed
        self._slack_ms = elapsed_s * MILLISECONDS_PER_SECOND

    def latest_ms(self) -> int | None:
        """Business ms: the latest that it can be now, so never behind; None before the first welcome."""
        if self._anchor is None:
            return None
        time_ms, asked_s = self._anchor
        elapsed_s = (self._clock.monotonic_s() - asked_s) * self._clock.speed
        return time_ms + round(elapsed_s * MILLISECONDS_PER_SECOND)

    def likely_ms(self) -> tuple[int | None, float]:
        """(the middle of when it can be now, how far off that may be), business ms."""
        half_ms = self._slack_ms / 2
        if self._anchor is None:
            return None, half_ms
        time_ms, asked_s = self._anchor  # as `latest_ms`, which every look at the clock would otherwise call
        elapsed_s = (self._clock.monotonic_s() - asked_s) * self._clock.speed
        return time_ms + round(elapsed_s * MILLISECONDS_PER_SECOND) - round(half_ms), half_ms


class CorrectedClock:
    """The wall clock, or trusted time where that shows the wall clock to be wrong by more than a minute (business).

    Before anybody vouched for the time it is the wall clock of the start, carried on by the monotonic one: all stamps
    of that while are then off by one amount, whoever sets the clock meanwhile.
    """

    def __init__(self, clock: Clock, trusted_time: TrustedTime) -> None:
        self._clock = clock
        self._trusted_time = trusted_time
        self._own = clock.now_ms(), clock.monotonic_s()

    @property
    def trusted(self) -> bool:
        """Whether the cloud vouched for the time since this start."""
        return self._trusted_time.latest_ms() is not None

    @property
    def own_shift_ms(self) -> int:
        """What is to be added to stamps from before trust; 0 as long as nobody knows."""
        likely_ms, _ = self._trusted_time.likely_ms()
        return 0 if likely_ms is None else likely_ms - self._own_ms()

    @property
    def began_ms(self) -> int:
        """When this process began, by the cloud's time; meaningful once it is trusted."""
        return self._own[0] + self.own_shift_ms

    def _own_ms(self) -> int:
        wall_ms, began_s = self._own
        return wall_ms + round((self._clock.monotonic_s() - began_s) * self._clock.speed * MILLISECONDS_PER_SECOND)

    @property
    def speed(self) -> float:
        """See Clock."""
        return self._clock.speed

    def now_ms(self) -> int:
        """See Clock."""
        wall_ms = self._clock.now_ms()
        likely_ms, doubt_ms = self._trusted_time.likely_ms()
        if likely_ms is None:
            return self._own_ms()
        if abs(wall_ms - likely_ms) <= WALL_WRONG_MS_MIN + doubt_ms:
            return wall_ms
        return likely_ms

    def monotonic_s(self) -> float:
        """See Clock."""
        return self._clock.monotonic_s()
