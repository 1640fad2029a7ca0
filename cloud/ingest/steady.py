"""What time it is if somebody has just set our own clock: the last time that was agreed on, carried on steadily."""

from typing import Final

from fleet.clock import MILLISECONDS_PER_SECOND, Clock

STEP_MS: Final = 2_000
"""Between two looks; what is more, at the speed of business time, is no slow correction of the clock."""
BELIEVED_AFTER_S: Final = 3_600.0
"""A wall clock that was set and stays so for this long (real, monotonic) is right."""


class SteadyTime:
    """Beside the wall clock, for what must not be refused because of a jump of ours."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._anchor: tuple[int, float] | None = None
        self._apart_since_s: float | None = None

    def at(self, wall_ms: int) -> int:
        """Business ms; `wall_ms` itself unless the wall clock was set within the last hour."""
        now_s = self._clock.monotonic_s()
        if self._anchor is None:
            self._anchor = wall_ms, now_s
        anchor_ms, anchor_s = self._anchor
        steady_ms = anchor_ms + round((now_s - anchor_s) * self._clock.speed * MILLISECONDS_PER_SECOND)
        if abs(wall_ms - steady_ms) > STEP_MS * self._clock.speed:
            if self._apart_since_s is None:
                self._apart_since_s = now_s
            if now_s - self._apart_since_s <= BELIEVED_AFTER_S:
                return steady_ms
        self._anchor, self._apart_since_s = (wall_ms, now_s), None
        return wall_ms
