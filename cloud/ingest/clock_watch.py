"""What follows when the clock of this machine is set, or is plainly wrong (ADR 0025).

Devices take their time from our welcomes. So when our clock is set, every connected device is asked to say hello
again, spread over a while. And where most of what is stored was heard later than it is now, either the clock is wrong
now or it was wrong then: people are told, and until it is mended readings are not refused for being in the future.
Likewise a start long after anything that was heard: the machine was off for so long, or its clock is ahead. Devices
that know the time say nothing of the sort, so only people can tell; readings are not refused for being old meanwhile.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from cloud.ingest.steady import STEP_MS
from cloud.model import DeviceLane, Downstream
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.envelope import Acknowledgement, encode
from fleet.messages import CLOCK_SKEW_PAST_S_MAX
from fleet.topics import DownChannel, down

BEHIND_MS: Final = 300_000
"""So far before the last thing that was stored the clock may stand, after a crash, a slow correction, a bad battery."""
AHEAD_MS: Final = 30 * 86_400_000
"""So long everything may have been off. A start after more than that is more likely one with a clock that is ahead."""
SPREAD_S: Final = 30.0
"""Real seconds over which the devices are asked to say hello."""


class ClockWatch:
    """One per pipeline."""

    def __init__(self, clock: Clock) -> None:
        self.behind = False
        """Whether the clock stands before most of what is stored already."""
        self.ahead = False
        """Whether at the start the clock stood long after anything that was heard; until it is set back."""
        self.steps = 0
        """How often the clock was set."""
        self._clock = clock
        self._known_ms = self._began_known_ms = 0
        self._last: tuple[int, float] | None = None
        self._to_greet: deque[str] = deque()
        self._began_s = 0.0
        self._greeted = self._wanted = 0

    def known(self, lanes: Iterable[DeviceLane]) -> None:
        """When devices were heard: half of them say more than one that a clock of then may have put years ahead."""
        heard = [lane.last_heard_at for lane in lanes if lane.last_heard_at]
        self._known_ms = statistics.median_low(heard) if heard else 0

    def excused(self, wall_ms: int) -> tuple[int, int]:
        """Readings after the first and up to the second moment are not refused, whatever time it seems to be.

        Empty while the clock is not known to be wrong.
        """
        skew_ms = CLOCK_SKEW_PAST_S_MAX * MILLISECONDS_PER_SECOND
        low_ms = self._began_known_ms - skew_ms if self.ahead else wall_ms
        return low_ms, self._known_ms + skew_ms if self.behind else wall_ms

    def look(self, wall_ms: int, lanes: Mapping[str, DeviceLane]) -> None:
        """Once a round: whether the clock was set, and stands where it can be."""
        now_s = self._clock.monotonic_s()
        before, self._last = self._last, (wall_ms, now_s)
        self.behind = wall_ms < self._known_ms - BEHIND_MS * self._clock.speed
        if before is None:
            self._began_known_ms = self._known_ms
            self.ahead = bool(self._known_ms) and self._is_long_after(wall_ms)
            return
        self.ahead = self.ahead and self._is_long_after(wall_ms)
        passed_ms = (now_s - before[1]) * self._clock.speed * MILLISECONDS_PER_SECOND
        if abs(wall_ms - before[0] - passed_ms) > STEP_MS * self._clock.speed:
            self.steps += 1
            self._to_greet = deque(device_id for device_id, lane in lanes.items() if lane.online)
            self._began_s, self._greeted, self._wanted = now_s, 0, len(self._to_greet)

    def _is_long_after(self, wall_ms: int) -> bool:
        return wall_ms > self._began_known_ms + AHEAD_MS * self._clock.speed

    def greetings(self, lanes: Mapping[str, DeviceLane]) -> list[Downstream]:
        """What asks the next devices to say hello; unsigned, because it says nothing else."""
        if not self._to_greet:
            return []
        share = min(1.0, (self._clock.monotonic_s() - self._began_s) / SPREAD_S)
        messages = []
        while self._to_greet and self._greeted < math.ceil(share * self._wanted):
            device_id = self._to_greet.popleft()
            self._greeted += 1
            if (lane := lanes.get(device_id)) is not None:
                nudge = Acknowledgement(generation=lane.generation, marks={}, greet=True)
                messages.append(Downstream(down(device_id, DownChannel.ACK), encode(nudge)))
        return messages
