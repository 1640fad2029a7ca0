"""Readings of one device waiting to share a telemetry message; pure."""

from collections import deque
from typing import Final

from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.envelope import READINGS_PER_MESSAGE_MAX
from fleet.messages import Reading

PAYLOAD_BYTES_MAX: Final = 60_000  # leaves the envelope its place in a message
_WAITING_MAX: Final = 4 * READINGS_PER_MESSAGE_MAX


class TelemetryBatch:
    """At most `readings_per_message` readings leave together; none waits longer than `age_s_max` (business).

    Readings are in memory only until they are taken: a crash may cost those of the last `age_s_max`.
    """

    def __init__(self, readings_per_message: int, age_s_max: float) -> None:
        self._per_message = min(readings_per_message, READINGS_PER_MESSAGE_MAX)
        self._age_ms_max = round(age_s_max * MILLISECONDS_PER_SECOND)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._oldest_added_ms = 0
        self.lost = 0
        """Readings discarded because the journal took none for too long."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, reading: Reading, now_ms: int) -> None:
        """Let `reading` wait; beyond the bound the oldest is lost, and counted."""
        if not self._waiting:
            self._oldest_added_ms = now_ms
        elif len(self._waiting) == _WAITING_MAX:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append((reading.at, reading.model_dump_json().encode()))

    def wait_ms(self, now_ms: int) -> int | None:
        """Business ms until a message should leave, 0 for now, None without readings."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._per_message:
            return 0
        # A clock that was set back must not keep readings for ever.
        return min(self._age_ms_max, max(0, self._oldest_added_ms + self._age_ms_max - now_ms))

    def peek(self) -> tuple[int, bytes, int]:
        """(occurred_at, payload, how many readings) of the next message, oldest first; nothing is removed."""
        chosen: list[tuple[int, bytes]] = []
        size = 0
        for at, reading in self._waiting:
            if len(chosen) == self._per_message or (chosen and size + len(reading) + 1 > PAYLOAD_BYTES_MAX):
                break
            chosen.append((at, reading))
            size += len(reading) + 1
        chosen.sort(key=lambda item: item[0])
        payload = b'{"readings":[' + b",".join(reading for _, reading in chosen) + b"]}"
        return chosen[-1][0], payload, len(chosen)

    def remove(self, count: int, now_ms: int) -> None:
        """The oldest `count` readings are in the journal."""
        for _ in range(count):
            self._waiting.popleft()
        self._oldest_added_ms = now_ms
