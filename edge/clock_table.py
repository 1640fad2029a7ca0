"""The part of the journal's database that knows which time stamps a box made before it knew the time.

Such rows carry the number of their boot as `clock`; within a boot they are steady. Once the cloud has vouched for the
time, each boot is settled: by how much its stamps are off, or, where nobody can know, between which known times they
lie. Stamps are corrected as the messages leave; what is stored stays as it was measured.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fleet.envelope import TimeQuality

CLOCK_SCHEMA: Final = """
CREATE TABLE boot_clock (
    device_id TEXT NOT NULL, boots INTEGER NOT NULL, shift_ms INTEGER NOT NULL, low_ms INTEGER NOT NULL,
    high_ms INTEGER NOT NULL, quality TEXT NOT NULL, PRIMARY KEY (device_id, boots)
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class BootClock:
    """How the stamps of one boot are to be read. Order is kept: one shift for all of them, and bounds."""

    shift_ms: int
    low_ms: int
    high_ms: int
    quality: TimeQuality

    def corrected(self, stamp_ms: int) -> int:
        """The stamp by the cloud's time, as well as it can be known."""
        return max(self.low_ms, min(stamp_ms + self.shift_ms, self.high_ms))


class ClockTable:
    """Operations inside the transaction of whoever holds the connection."""

    _connection: sqlite3.Connection

    def boot_clocks(self, device_id: str) -> dict[int, BootClock]:
        """The settled boots, by number."""
        query = "SELECT boots, shift_ms, low_ms, high_ms, quality FROM boot_clock WHERE device_id = ?"
        return {
            boots: BootClock(shift_ms, low_ms, high_ms, TimeQuality(quality))
            for boots, shift_ms, low_ms, high_ms, quality in self._connection.execute(query, (device_id,))
        }

    def unsettled_boots(self, device_id: str) -> tuple[int, list[tuple[int, int, int]]]:
        """(latest time known to be right, [(boot, its first stamp, its last)] of what is here, in order)."""
        execute = self._connection.execute
        ((known_ms,),) = execute("SELECT coalesce(max(known_at), 0) FROM lane WHERE device_id = ?", (device_id,))
        found = execute(
            "SELECT clock, min(at), max(at) FROM ("
            "SELECT clock, occurred_at AS at FROM message WHERE device_id = ?1 AND clock > 0 UNION ALL "
            "SELECT clock, occurred_at FROM set_aside WHERE device_id = ?1 AND clock > 0 UNION ALL "
            "SELECT clock, at FROM reading WHERE device_id = ?1 AND clock > 0) "
            "WHERE clock NOT IN (SELECT boots FROM boot_clock WHERE device_id = ?1) GROUP BY clock ORDER BY clock",
            (device_id,),
        ).fetchall()
        return known_ms, found

    def settle_boots(self, device_id: str, clocks: Mapping[int, BootClock]) -> None:
        """Remember how these boots are to be read; forget earlier ones of which nothing is left."""
        execute = self._connection.execute
        execute(
            "DELETE FROM boot_clock WHERE device_id = ?1 AND boots NOT IN ("
            "SELECT clock FROM message WHERE device_id = ?1 UNION SELECT clock FROM reading WHERE device_id = ?1 "
            "UNION SELECT clock FROM set_aside WHERE device_id = ?1)",
            (device_id,),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO boot_clock VALUES (?, ?, ?, ?, ?, ?)",
            [
                (device_id, boots, clock.shift_ms, clock.low_ms, clock.high_ms, clock.quality.value)
                for boots, clock in clocks.items()
            ],
        )
