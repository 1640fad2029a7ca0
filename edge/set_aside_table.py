"""The part of the journal's database that keeps messages nobody would take, for people to look at and send again."""

import sqlite3
from dataclasses import dataclass
from typing import Final

from edge.records import Bounds
from fleet.envelope import Lane

SET_ASIDE_SCHEMA: Final = """
CREATE TABLE set_aside (
    id INTEGER PRIMARY KEY AUTOINCREMENT, device_id TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL, clock INTEGER NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class SetAside:
    """One message that the cloud refused, or never acknowledged; `seq` is the number it had."""

    id: int
    device_id: str
    lane: Lane
    seq: int
    occurred_at: int
    payload: bytes
    reason: str
    clock: int = 0


class SetAsideTable:
    """Operations inside the transaction of whoever holds the connection."""

    bounds: Bounds
    _connection: sqlite3.Connection

    def keep_aside(self, device_id: str, lane: Lane, seq: int, reason: str) -> None:
        """Copy a pending message with the reason; beyond the bound the oldest copies go."""
        self._connection.execute(
            "INSERT INTO set_aside (device_id, lane, seq, occurred_at, payload, reason, clock) "
            "SELECT device_id, lane, seq, occurred_at, payload, ?, clock FROM message "
            "WHERE device_id = ? AND lane = ? AND seq = ?",
            (reason, device_id, lane.value, seq),
        )
        self._connection.execute(
            "DELETE FROM set_aside WHERE id <= (SELECT id FROM set_aside ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (self.bounds.set_aside_rows_max,),
        )

    def set_aside_rows(self, limit: int, after: int = 0) -> list[SetAside]:
        """Up to `limit` with an id above `after`, oldest first."""
        return [
            SetAside(number, device_id, Lane(lane), *rest)
            for number, device_id, lane, *rest in self._connection.execute(
                "SELECT id, device_id, lane, seq, occurred_at, payload, reason, clock FROM set_aside WHERE id > ? "
                "ORDER BY id LIMIT ?",
                (after, limit),
            )
        ]

    def set_aside_count(self) -> int:
        """How many there are."""
        return int(self._connection.execute("SELECT count(*) FROM set_aside").fetchone()[0])

    def take_from_aside(self, number: int) -> SetAside | None:
        """Remove one; None if there is none of that id."""
        found = self.set_aside_rows(1, number - 1)
        if not found or found[0].id != number:
            return None
        self._connection.execute("DELETE FROM set_aside WHERE id = ?", (number,))
        return found[0]
