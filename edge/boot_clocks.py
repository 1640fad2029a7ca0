"""Time stamps from before a box knew the time: corrected when the cloud has vouched for it, never reordered.

What this process stamped before its first welcome is off by one amount, which the welcome shows: the stamps were made
with a clock that nobody can set (`CorrectedClock`). Of earlier boots that were never welcomed only bounds are known:
the last time that was right before them, and the beginning of what follows. They are put as late as they can have been,
and marked uncertain.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Final

import msgspec

from edge.clock_table import BootClock
from edge.journal import Journal
from edge.records import JournalError, Row
from edge.trusted_time import WALL_WRONG_MS_MIN, CorrectedClock
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.envelope import Lane, TimeQuality
from fleet.messages import CLOCK_SKEW_PAST_S_MAX

_SOON_S: Final = 0.01
_END_OF_TIME_MS: Final = 253_402_300_799_000


class BootClocks:
    """How the stamps of one device's boots are to be read."""

    def __init__(self, device_id: str, boots: int, journal: Journal, clock: CorrectedClock) -> None:
        """`boots`: the number of this start, counted from 0; `clock` is the one that stamps were made with."""
        self.number = boots + 1
        """What this start's stamps carry while the time is not trusted: never 0, which says "trusted"."""
        self._device_id = device_id
        self._journal = journal
        self._clock = clock
        self._settled: dict[int, BootClock] = {}
        self._complete = False

    def now(self) -> int:
        """What a stamp made now carries."""
        return 0 if self._clock.trusted else self.number

    async def settle(self) -> bool:
        """The time has just become trusted: say of every boot with unsettled stamps how to read them.

        False: the journal could not be read. Until a later welcome only emergencies may leave, as the rest would be
        refused with stamps that nobody could read.
        """
        if self._complete:
            return True
        shift_ms, now_ms = self._clock.own_shift_ms, self._clock.now_ms()
        right = abs(shift_ms) <= WALL_WRONG_MS_MIN
        quality = TimeQuality.EXACT if right else TimeQuality.CORRECTED
        mine = BootClock(0 if right else shift_ms, 0, _END_OF_TIME_MS if right else now_ms, quality)
        try:
            settled = await self._journal.read(lambda store: store.boot_clocks(self._device_id))
            known_ms, found = await self._journal.read(lambda store: store.unsettled_boots(self._device_id))
        except JournalError:
            self._settled[self.number] = mine
            return False
        fresh = _bounded(
            [boot for boot in found if boot[0] < self.number], known_ms, self._clock.began_ms, clock_is_right=right
        )
        fresh[self.number] = mine
        self._settled, self._complete = settled | fresh, True
        with suppress(JournalError):  # a full disk: known in memory, and worked out again after the next start
            await self._journal.write(lambda store: store.settle_boots(self._device_id, fresh), within_s=_SOON_S)
        return True

    def read(self, row: Row) -> tuple[Row, TimeQuality]:
        """The row with its time as well as it is known."""
        if not row.clock:
            return row, TimeQuality.EXACT
        clock = self._settled.get(row.clock)
        if clock is None:  # an emergency before the first welcome: nobody waits for the time
            return row, TimeQuality.UNCERTAIN
        if clock.quality is TimeQuality.EXACT:
            return row, clock.quality
        payload = _shifted(row.payload, clock) if row.lane is Lane.TELEMETRY else row.payload
        return replace(row, occurred_at=clock.corrected(row.occurred_at), payload=payload), clock.quality


def _bounded(
    boots: list[tuple[int, int, int]], known_ms: int, next_began_ms: int, *, clock_is_right: bool
) -> dict[int, BootClock]:
    """Earlier boots between what is known; backwards, because each ends before the next one began."""
    settled: dict[int, BootClock] = {}
    high_ms = next_began_ms - 1
    for number, first_ms, last_ms in reversed(boots):
        low_ms = known_ms or high_ms - CLOCK_SKEW_PAST_S_MAX * MILLISECONDS_PER_SECOND
        # A clock that is right now and fits was right then: a box with a battery is not suspected.
        right = clock_is_right and low_ms <= first_ms and last_ms <= high_ms
        shift_ms = 0 if right else high_ms - last_ms
        quality = TimeQuality.EXACT if right else TimeQuality.UNCERTAIN
        # A known time that leaves no room for what was stamped was wrong itself: it must not press all into one moment.
        bound_ms = min(known_ms, high_ms) if known_ms <= first_ms + shift_ms else 0
        settled[number] = BootClock(shift_ms, bound_ms, high_ms, quality)
        high_ms = max(bound_ms, first_ms + shift_ms) - 1
    return settled


def _shifted(payload: bytes, clock: BootClock) -> bytes:
    content = msgspec.json.decode(payload)
    for reading in content["readings"]:
        reading["at"] = clock.corrected(reading["at"])
    return msgspec.json.encode(content)
