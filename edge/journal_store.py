"""The journal's database: SQLite in WAL mode, fully synchronous, owned by one process and used from one thread.

One file serves every device of the process. A message's key is (device, generation, lane, seq); all rows of a
device share the generation in its `device` row. A hole between two rows of a lane is what was evicted, so the
sender can declare it without further bookkeeping. Nothing here commits by itself: the caller opens and closes
the transaction, so that many devices share one `fsync`.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from edge.command_table import COMMAND_SCHEMA, CommandTable
from edge.records import Bounds, DeviceRecord, JournalCorruptError, JournalError, Row
from fleet.envelope import BOOTS_PER_GENERATION, Lane

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE device (
    device_id TEXT PRIMARY KEY, storage_id TEXT NOT NULL, generation INTEGER NOT NULL, boots INTEGER NOT NULL
) STRICT;
CREATE TABLE lane (
    device_id TEXT NOT NULL, lane TEXT NOT NULL, mark INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    row_count INTEGER NOT NULL, byte_count INTEGER NOT NULL, evicted INTEGER NOT NULL, PRIMARY KEY (device_id, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE message (
    device_id TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL, boots INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL, event_id TEXT, payload BLOB NOT NULL, PRIMARY KEY (device_id, lane, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE event_seen (
    id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, event_id TEXT NOT NULL, UNIQUE (device_id, event_id)
) STRICT;
CREATE INDEX event_seen_order ON event_seen (device_id, id);
CREATE TABLE set_aside (
    id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL
) STRICT;
"""
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_EVICTION_SHARE: Final = (
    64  # evict this part of the bound at once, so that a full journal does not evict on every append
)
_MAKE_ROOM_ROWS: Final = 256


def is_corruption(error: sqlite3.Error) -> bool:
    """Whether the error says that the file's content is damaged (and not that the disk is full or busy)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _CORRUPT


class JournalStore(CommandTable):
    """Synchronous operations on the open database; see the module for who commits."""

    def __init__(self, path: Path, bounds: Bounds, make_id: Callable[[], str]) -> None:
        """Open or create the database.

        Raises:
            JournalCorruptError: the file is no usable journal.
            JournalError: another process holds it, or a newer release wrote it.
        """
        self.path = path
        self.bounds = bounds
        self._make_id = make_id
        self._appended = 0
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            if is_corruption(error):
                raise JournalCorruptError(f"{path}: {error}") from error
            raise JournalError(f"journal {path} cannot be opened: {error} (is another agent using it?)") from error
        except JournalError:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # two agents on one journal would give one seq twice
        execute("PRAGMA busy_timeout = 2000")
        execute("PRAGMA cache_size = -1024")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA journal_size_limit = 4194304")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} {COMMAND_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif version != SCHEMA_VERSION:
            raise JournalError(f"journal {self.path} has version {version}, this release reads {SCHEMA_VERSION}")
        (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise JournalCorruptError(f"{self.path}: {verdict}")

    # --- transactions ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open a transaction."""
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo everything since `begin`, if the database has not done so already."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file; an open transaction is undone."""
        self._connection.close()

    def limit_pages(self, pages_max: int) -> None:
        """Bound the database file; beyond it SQLite answers as on a full disk."""
        self._connection.execute(f"PRAGMA max_page_count = {pages_max:d}")

    def make_room(self) -> bool:
        """Give telemetry's space back after the disk was full; whether there was any."""
        execute = self._connection.execute
        execute("PRAGMA wal_checkpoint(PASSIVE)")
        rows = execute(
            "SELECT device_id, seq FROM message WHERE lane = ? ORDER BY occurred_at LIMIT ?",
            (Lane.TELEMETRY.value, _MAKE_ROOM_ROWS),
        ).fetchall()
        if not rows:
            return False
        self.begin()
        for device_id, seq in rows:
            self._remove(device_id, Lane.TELEMETRY, "seq = ?", (seq,), evicted=True)
        self.commit()
        return True

    # --- devices --------------------------------------------------------------------------------------------

    def register(self, device_id: str) -> DeviceRecord:
        """Count one boot of the device; a storage without it begins a new storage id and generation."""
        record = self.next_record(device_id)
        self.adopt(record)
        return record

    def next_record(self, device_id: str) -> DeviceRecord:
        """What `register` would store; nothing is written."""
        execute = self._connection.execute
        found = execute("SELECT storage_id, generation, boots FROM device WHERE device_id = ?", (device_id,)).fetchone()
        storage_id, generation, boots = found or (self._make_id(), 0, -1)
        boots += 1
        if boots >= BOOTS_PER_GENERATION:  # the counter is used up: the cloud grants a new generation
            storage_id, generation, boots = self._make_id(), 0, 0
        lanes = execute("SELECT lane, mark, last_seq FROM lane WHERE device_id = ?", (device_id,)).fetchall()
        return DeviceRecord(
            device_id,
            storage_id,
            generation,
            boots,
            marks=dict.fromkeys(Lane, 0) | {Lane(lane): mark for lane, mark, _ in lanes},
            last_seqs=dict.fromkeys(Lane, 0) | {Lane(lane): last_seq for lane, _, last_seq in lanes},
        )

    def adopt(self, record: DeviceRecord) -> None:
        """Store a record's ids and counters; its lanes are begun if they are not here."""
        self._connection.execute(
            "INSERT INTO device VALUES (?, ?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET "
            "storage_id = excluded.storage_id, generation = excluded.generation, boots = excluded.boots",
            (record.device_id, record.storage_id, record.generation, record.boots),
        )
        for lane in Lane:
            self._connection.execute(
                "INSERT OR IGNORE INTO lane VALUES (?, ?, 0, 0, 0, 0, 0)", (record.device_id, lane.value)
            )

    def grant(self, device_id: str, generation: int, marks: Mapping[Lane, int]) -> dict[Lane, int]:
        """Put everything pending under `generation`, continuing after the cloud's marks; the new last seqs.

        Holes stay holes, so what was evicted before is still declared afterwards.
        """
        execute = self._connection.execute
        execute("UPDATE device SET generation = ? WHERE device_id = ?", (generation, device_id))
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
                "UPDATE lane SET mark = ?, last_seq = ? WHERE device_id = ? AND lane = ?",
                (mark, last_seqs[lane], device_id, lane.value),
            )
        return last_seqs

    # --- messages -------------------------------------------------------------------------------------------

    def append(
        self, device_id: str, boots: int, lane: Lane, occurred_at: int, payload: bytes, event_id: str | None
    ) -> Row | None:
        """Journal one message under the lane's next seq; None if its event is journalled already."""
        if event_id is not None and not self._see(device_id, event_id):
            return None
        ((seq,),) = self._connection.execute(
            "UPDATE lane SET last_seq = last_seq + 1 WHERE device_id = ? AND lane = ? RETURNING last_seq",
            (device_id, lane.value),
        ).fetchall()
        row = Row(lane, seq, boots, occurred_at, payload, event_id)
        self._insert(device_id, row)
        self._evict(device_id)
        return row

    def merge(self, device_id: str, storage_id: str, row: Row) -> None:
        """Take a row that was kept outside the database; one that is here already changes nothing."""
        own = self._connection.execute(
            "SELECT d.storage_id, l.mark FROM device d JOIN lane l USING (device_id) "
            "WHERE d.device_id = ? AND l.lane = ?",
            (device_id, row.lane.value),
        ).fetchone()
        if own is None:  # the database was set aside after the row was written
            self.register(device_id)
        if own is None or own[0] != storage_id:
            self.append(device_id, row.boots if own else 0, row.lane, row.occurred_at, row.payload, row.event_id)
            return
        self._connection.execute(
            "UPDATE lane SET last_seq = max(last_seq, ?) WHERE device_id = ? AND lane = ?",
            (row.seq, device_id, row.lane.value),
        )
        if row.event_id is not None and not self._see(device_id, row.event_id):
            return
        if row.seq > own[1]:
            self._insert(device_id, row)

    def _see(self, device_id: str, event_id: str) -> bool:
        seen = self._connection.execute(
            "INSERT OR IGNORE INTO event_seen (device_id, event_id) VALUES (?, ?)", (device_id, event_id)
        )
        self._appended += 1
        if self._appended % 128 == 0:
            self._connection.execute(
                "DELETE FROM event_seen WHERE device_id = ?1 AND id <= (SELECT id FROM event_seen WHERE device_id = ?1 "
                "ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                (device_id, self.bounds.event_ids_max),
            )
        return seen.rowcount == 1

    def has_seen(self, device_id: str, event_id: str) -> bool:
        """Whether this event is journalled already."""
        return (
            self._connection.execute(
                "SELECT 1 FROM event_seen WHERE device_id = ? AND event_id = ?", (device_id, event_id)
            ).fetchone()
            is not None
        )

    def mark_seen(self, events: Iterable[tuple[str, str]]) -> None:
        """Recognise these (device id, event id) from now on."""
        self._connection.executemany("INSERT OR IGNORE INTO event_seen (device_id, event_id) VALUES (?, ?)", events)

    def _insert(self, device_id: str, row: Row) -> None:
        self._connection.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?)",
            (device_id, row.lane.value, row.seq, row.boots, row.occurred_at, row.event_id, row.payload),
        )
        self._connection.execute(
            "UPDATE lane SET row_count = row_count + 1, byte_count = byte_count + ? WHERE device_id = ? AND lane = ?",
            (len(row.payload), device_id, row.lane.value),
        )

    def _remove(self, device_id: str, lane: Lane, condition: str, arguments: tuple[int, ...], *, evicted: bool) -> int:
        removed = self._connection.execute(
            f"DELETE FROM message WHERE device_id = ? AND lane = ? AND {condition} RETURNING length(payload)",  # noqa: S608
            (device_id, lane.value, *arguments),
        ).fetchall()
        if removed:
            self._connection.execute(
                "UPDATE lane SET row_count = row_count - ?, byte_count = byte_count - ?, evicted = evicted + ? "
                "WHERE device_id = ? AND lane = ?",
                (len(removed), sum(size for (size,) in removed), len(removed) if evicted else 0, device_id, lane.value),
            )
        return len(removed)

    def _evict(self, device_id: str) -> None:
        sizes = {
            Lane(lane): (rows, size)
            for lane, rows, size in self._connection.execute(
                "SELECT lane, row_count, byte_count FROM lane WHERE device_id = ?", (device_id,)
            )
        }
        bounds = self.bounds
        rows = sizes[Lane.TELEMETRY][0] + sizes[Lane.EVENT][0]
        size = sizes[Lane.TELEMETRY][1] + sizes[Lane.EVENT][1]
        if rows > bounds.rows_max or size > bounds.bytes_max:
            victim = Lane.TELEMETRY if sizes[Lane.TELEMETRY][0] else Lane.EVENT
            self._evict_oldest(device_id, victim, max(1, sizes[victim][0] // _EVICTION_SHARE))
        if sizes[Lane.EMERGENCY][0] > bounds.emergency_rows_max:
            self._evict_oldest(device_id, Lane.EMERGENCY, 1)

    def _evict_oldest(self, device_id: str, lane: Lane, count: int) -> None:
        seqs = self._connection.execute(
            "SELECT seq FROM message WHERE device_id = ? AND lane = ? ORDER BY seq LIMIT ?",
            (device_id, lane.value, count),
        ).fetchall()
        self._remove(device_id, lane, "seq <= ?", (seqs[-1][0],), evicted=True)

    def pending(self, device_id: str, lane: Lane, after: int, limit: int) -> list[Row]:
        """Up to `limit` unacknowledged rows with seq > `after`, in order."""
        return [
            Row(lane, *fields)
            for fields in self._connection.execute(
                "SELECT seq, boots, occurred_at, payload, event_id FROM message "
                "WHERE device_id = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT ?",
                (device_id, lane.value, after, limit),
            )
        ]

    def acknowledge(self, device_id: str, lane: Lane, mark: int) -> int:
        """Forget everything up to `mark`, which the cloud has committed; how many rows that were."""
        self._connection.execute(
            "UPDATE lane SET mark = max(mark, ?) WHERE device_id = ? AND lane = ?", (mark, device_id, lane.value)
        )
        return self._remove(device_id, lane, "seq <= ?", (mark,), evicted=False)

    def set_aside(self, device_id: str, lane: Lane, seq: int, reason: str, *, remove: bool) -> None:
        """Keep a copy of a message nobody will take, with the reason; `remove` leaves a hole to be declared."""
        self._connection.execute(
            "INSERT INTO set_aside (device_id, lane, seq, occurred_at, payload, reason) "
            "SELECT device_id, lane, seq, occurred_at, payload, ? FROM message "
            "WHERE device_id = ? AND lane = ? AND seq = ?",
            (reason, device_id, lane.value, seq),
        )
        self._connection.execute(
            "DELETE FROM set_aside WHERE id <= (SELECT max(id) FROM set_aside) - ?", (self.bounds.set_aside_rows_max,)
        )
        if remove:
            self._remove(device_id, lane, "seq = ?", (seq,), evicted=True)

    def counts(self) -> dict[str, dict[Lane, tuple[int, int]]]:
        """Per device and lane: (pending rows, rows evicted so far)."""
        result: dict[str, dict[Lane, tuple[int, int]]] = {}
        for device_id, lane, rows, evicted in self._connection.execute(
            "SELECT device_id, lane, row_count, evicted FROM lane"
        ):
            result.setdefault(device_id, {})[Lane(lane)] = (rows, evicted)
        return result
