"""Readings of one device waiting to share a telemetry message; pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.envelope import READINGS_PER_MESSAGE_MAX
from fleet.messages import Reading

PAYLOAD_BYTES_MAX: Final = 60_000  # leaves the envelope its place in a message
_WAITING_MAX: Final = 16 * READINGS_PER_MESSAGE_MAX


@dataclass(slots=True)
class WaitingReading:
    """One reading; `number` is its id in the journal once it is kept there. `clock` as in `edge.records.Row`."""

    at: int
    payload: bytes
    number: int | None = None
    clock: int = 0


class TelemetryBatch:
    """At most `readings_per_message` readings leave together; none waits longer than `age_s_max` (business).

    While the lane does not flow (nobody takes its messages) as many as a message can hold share one, however old they
    get: what piles up in days offline is then delivered in seconds.
    """

    def __init__(self, readings_per_message: int, age_s_max: float) -> None:
        self._per_message = min(readings_per_message, READINGS_PER_MESSAGE_MAX)
        self._age_ms_max = round(age_s_max * MILLISECONDS_PER_SECOND)
        self._waiting: deque[WaitingReading] = deque()
        self._oldest_added_ms = 0
        self._piled_up = False
        self.lost = 0
        """Readings discarded because the journal took none for too long."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, reading: Reading, now_ms: int, clock: int = 0) -> None:
        """Let `reading` wait; beyond the bound the oldest is lost, and counted."""
        if not self._waiting:
            self._oldest_added_ms = now_ms
        elif len(self._waiting) == _WAITING_MAX:
            self.lost += self._waiting.popleft().number is None  # a kept one goes with the next start's message
        self._waiting.append(WaitingReading(reading.at, reading.model_dump_json().encode(), None, clock))

    def restore(self, kept: Sequence[tuple[int, int, bytes, int]], now_ms: int) -> None:
        """(number, at, JSON, clock) of readings that the journal kept over a restart, oldest first."""
        self._waiting.extendleft(
            WaitingReading(at, payload, number, clock) for number, at, payload, clock in reversed(kept)
        )
        self._oldest_added_ms = now_ms

    def not_kept(self) -> list[WaitingReading]:
        """Readings that are in memory only."""
        return [reading for reading in self._waiting if reading.number is None]

    def wait_ms(self, now_ms: int, *, flows: bool = True) -> int | None:
        """Business ms until a message should leave, 0 for now, None if nothing is due by itself."""
        if not self._waiting:
            self._piled_up = False
            return None
        self._piled_up = self._piled_up or not flows
        if len(self._waiting) >= (self._per_message if flows else READINGS_PER_MESSAGE_MAX):
            return 0
        if not flows:
            return None
        # A clock that was set back must not keep readings for ever.
        return min(self._age_ms_max, max(0, self._oldest_added_ms + self._age_ms_max - now_ms))

    def peek(self) -> tuple[int, bytes, list[WaitingReading]]:
        """(occurred_at, payload, its readings) of the next message, oldest first; nothing is removed.

        Readings whose stamps come from different clocks share no message: one is corrected as a whole.
        """
        most = READINGS_PER_MESSAGE_MAX if self._piled_up else self._per_message
        chosen: list[WaitingReading] = []
        size = 0
        for reading in self._waiting:
            if chosen and reading.clock != chosen[0].clock:
                break
            if len(chosen) == most or (chosen and size + len(reading.payload) + 1 > PAYLOAD_BYTES_MAX):
                break
            chosen.append(reading)
            size += len(reading.payload) + 1
        chosen.sort(key=lambda reading: reading.at)
        payload = b'{"readings":[' + b",".join(reading.payload for reading in chosen) + b"]}"
        return chosen[-1].at, payload, chosen

    def remove(self, taken: Sequence[WaitingReading], now_ms: int) -> None:
        """These are in the journal as a message."""
        gone = {id(reading) for reading in taken}
        while self._waiting and id(self._waiting[0]) in gone:
            self._waiting.popleft()
        self._oldest_added_ms = now_ms
