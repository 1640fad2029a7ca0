"""The part of the journal's database that knows the devices: their storage, generation, boots and lanes."""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

from edge.records import DeviceRecord
from fleet.envelope import BOOTS_PER_GENERATION, Lane

DEVICE_SCHEMA: Final = """
CREATE TABLE device (
    device_id TEXT PRIMARY KEY, storage_id TEXT NOT NULL, generation INTEGER NOT NULL, boots INTEGER NOT NULL,
    ends INTEGER NOT NULL
) STRICT;
CREATE TABLE lane (
    device_id TEXT NOT NULL, lane TEXT NOT NULL, mark INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    row_count INTEGER NOT NULL, byte_count INTEGER NOT NULL, evicted INTEGER NOT NULL, fence INTEGER,
    known_at INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (device_id, lane)
) STRICT, WITHOUT ROWID;
"""


class DeviceTable:
    """Operations inside the transaction of whoever holds the connection."""

    _connection: sqlite3.Connection
    _make_id: Callable[[], str]

    def acknowledge(self, device_id: str, lane: Lane, mark: int) -> int:
        """See JournalStore."""
        raise NotImplementedError

    def register(self, device_id: str) -> DeviceRecord:
        """Count one boot of the device; a storage without it begins a new storage id and generation."""
        record = self.next_record(device_id)
        self.adopt(record)
        return record

    def next_record(self, device_id: str) -> DeviceRecord:
        """What `register` would store; nothing is written."""
        execute = self._connection.execute
        found = execute(
            "SELECT storage_id, generation, boots, ends FROM device WHERE device_id = ?", (device_id,)
        ).fetchone()
        storage_id, generation, boots, ends = found or (self._make_id(), 0, -1, 0)
        boots += 1
        if boots >= BOOTS_PER_GENERATION:  # the counter is used up: the cloud grants a new generation
            storage_id, generation, boots, ends = self._make_id(), 0, 0, 0
        lanes = execute(
            "SELECT lane, mark, last_seq, coalesce(fence, last_seq) FROM lane WHERE device_id = ?", (device_id,)
        ).fetchall()
        return DeviceRecord(
            device_id,
            storage_id,
            generation,
            boots,
            marks=dict.fromkeys(Lane, 0) | {Lane(lane): mark for lane, mark, _, _ in lanes},
            last_seqs=dict.fromkeys(Lane, 0) | {Lane(lane): last_seq for lane, _, last_seq, _ in lanes},
            fences=dict.fromkeys(Lane, 0) | {Lane(lane): fence for lane, _, _, fence in lanes},
            ends=bool(ends),
        )

    def adopt(self, record: DeviceRecord) -> None:
        """Store a record's ids and counters; its lanes are begun if they are not here."""
        self._connection.execute(
            "INSERT INTO device VALUES (?, ?, ?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET "
            "storage_id = excluded.storage_id, generation = excluded.generation, boots = excluded.boots, "
            "ends = excluded.ends",
            (record.device_id, record.storage_id, record.generation, record.boots, int(record.ends)),
        )
        for lane in Lane:
            self._connection.execute(
                "INSERT OR IGNORE INTO lane VALUES (?, ?, 0, 0, 0, 0, 0, NULL, 0)", (record.device_id, lane.value)
            )
            self._connection.execute(
                "UPDATE lane SET fence = ? WHERE device_id = ? AND lane = ? AND fence IS NULL",
                (record.fences[lane], record.device_id, lane.value),
            )

    def confirm(self, device_id: str) -> None:
        """The cloud knows this very storage; from now on messages are sent that are not below the fences."""
        self._connection.execute("UPDATE lane SET fence = NULL WHERE device_id = ?", (device_id,))

    def begin_storage(self, device_id: str, delivered: Mapping[Lane, int]) -> str:
        """A new storage id, no generation yet; what is pending stays, except what the cloud has (`delivered`)."""
        for lane, mark in delivered.items():
            self.acknowledge(device_id, lane, mark)
        storage_id = self._make_id()
        self._connection.execute(
            "UPDATE device SET storage_id = ?, generation = 0, ends = 0 WHERE device_id = ?", (storage_id, device_id)
        )
        return storage_id

    def grant(self, device_id: str, generation: int, marks: Mapping[Lane, int]) -> dict[Lane, int]:
        """Put everything pending under `generation`, continuing after the cloud's marks; the new last seqs.

        Holes stay holes, so what was evicted before is still declared afterwards.
        """
        execute = self._connection.execute
        (before,) = execute("SELECT generation FROM device WHERE device_id = ?", (device_id,)).fetchone()
        if not before:  # perhaps a grant that could not be stored: what was sent under it has its numbers already
            for lane in Lane:
                self.acknowledge(device_id, lane, marks.get(lane, 0))
        execute("UPDATE device SET generation = ?, ends = 0 WHERE device_id = ?", (generation, device_id))
        last_seqs: dict[Lane, int] = {}
        for lane in Lane:
            mark = marks.get(lane, 0)
            old_mark, old_last = execute(
                "SELECT mark, last_seq FROM lane WHERE device_id = ? AND lane = ?", (device_id, lane.value)
            ).fetchone()
            shift = mark - old_mark
            # Through negative numbers, because SQLite checks the key row by row and the ranges may overlap.
            execute(
                "UPDATE message SET seq = -(seq + ?) WHERE device_id = ? AND lane = ?", (shift, device_id, lane.value)
            )
            execute("UPDATE message SET seq = -seq WHERE device_id = ? AND lane = ?", (device_id, lane.value))
            last_seqs[lane] = old_last + shift
            execute(
                "UPDATE lane SET mark = ?, last_seq = ?, fence = NULL WHERE device_id = ? AND lane = ?",
                (mark, last_seqs[lane], device_id, lane.value),
            )
        return last_seqs
