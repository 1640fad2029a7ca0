"""The part of the journal's database that keeps single readings until they leave together in one message."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from edge.records import Bounds

READING_SCHEMA: Final = """
CREATE TABLE reading (
    id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, at INTEGER NOT NULL, payload BLOB NOT NULL,
    clock INTEGER NOT NULL
) STRICT;
"""


class ReadingTable:
    """Operations inside the transaction of whoever holds the connection."""

    bounds: Bounds
    _connection: sqlite3.Connection

    def keep_readings(self, device_id: str, readings: Iterable[tuple[int, bytes, int]]) -> list[int]:
        """Keep these (at, JSON, clock) readings; their ids, in order. `clock` as in `edge.records.Row`."""
        insert = "INSERT INTO reading (device_id, at, payload, clock) VALUES (?, ?, ?, ?) RETURNING id"
        return [self._connection.execute(insert, (device_id, *reading)).fetchall()[0][0] for reading in readings]

    def forget_readings(self, ids: Iterable[int]) -> None:
        """They are part of a message now, or given up."""
        self._connection.executemany("DELETE FROM reading WHERE id = ?", [(number,) for number in ids])

    def kept_readings(self, device_id: str) -> Sequence[tuple[int, int, bytes, int]]:
        """(id, at, JSON, clock), oldest first."""
        return self._connection.execute(
            "SELECT id, at, payload, clock FROM reading WHERE device_id = ? ORDER BY id", (device_id,)
        ).fetchall()
