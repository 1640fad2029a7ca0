"""The journal's database: SQLite in WAL mode, fully synchronous, owned by one process and used from one thread.

One file serves every device of the process. A message's key is (device, generation, lane, seq); all rows of a
device share the generation in its `device` row. A hole between two rows of a lane is what was evicted, so the
sender can declare it without further bookkeeping. Nothing here commits by itself: the caller opens and closes
the transaction, so that many devices share one `fsync`.
"""

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from edge.clock_table import CLOCK_SCHEMA, ClockTable
from edge.command_table import COMMAND_SCHEMA, CommandTable
from edge.device_table import DEVICE_SCHEMA, DeviceTable
from edge.reading_table import READING_SCHEMA, ReadingTable
from edge.records import Bounds, DeviceRecord, JournalCorruptError, JournalError, JournalUnavailableError, Row
from edge.set_aside_table import SET_ASIDE_SCHEMA, SetAsideTable
from fleet.envelope import Lane

Found = TypeVar("Found")

SCHEMA_VERSION: Final = 3
_SCHEMA: Final = """
CREATE TABLE message (
    device_id TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL, boots INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL, event_id TEXT, payload BLOB NOT NULL, clock INTEGER NOT NULL,
    PRIMARY KEY (device_id, lane, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE event_seen (
    id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, event_id TEXT NOT NULL, UNIQUE (device_id, event_id)
) STRICT;
CREATE INDEX event_seen_order ON event_seen (device_id, id);
"""
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNAVAILABLE: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
)
_EVICTION_SHARE: Final = (
    64  # evict this part of the bound at once, so that a full journal does not evict on every append
)
_MAKE_ROOM_ROWS: Final = 256


def is_corruption(error: sqlite3.Error) -> bool:
    """Whether the error says that the file's content is damaged (and not that the disk is full or busy)."""
    return _code(error) in _CORRUPT


def _code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _opening_error(path: Path, error: sqlite3.Error) -> JournalError:
    if is_corruption(error):
        return JournalCorruptError(f"{path}: {error}")
    if _code(error) in _UNAVAILABLE:
        return JournalUnavailableError(f"{path}: {error}")
    return JournalError(f"journal {path} cannot be opened: {error} (is another agent using it?)")


class JournalStore(DeviceTable, ClockTable, CommandTable, ReadingTable, SetAsideTable):
    """Synchronous operations on the open database; see the module for who commits."""

    def __init__(self, path: Path, bounds: Bounds, make_id: Callable[[], str]) -> None:
        """Open or create the database.

        Raises:
            JournalCorruptError: the file is no usable journal.
            JournalUnavailableError: the disk is full, read-only or failing.
            JournalError: another process holds it, or a newer release wrote it.
        """
        self.path = path
        self.bounds = bounds
        self._make_id = make_id
        self._appended = 0
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=64
            )
        except sqlite3.Error as error:
            raise _opening_error(path, error) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise _opening_error(path, error) from error
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
            schema = f"{DEVICE_SCHEMA} {_SCHEMA} {COMMAND_SCHEMA} {CLOCK_SCHEMA} {READING_SCHEMA} {SET_ASIDE_SCHEMA}"
            self._connection.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise JournalError(f"journal {self.path} has version {version}, this release reads {SCHEMA_VERSION}")
        execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # a disk that takes nothing is known at once
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

    # --- messages -------------------------------------------------------------------------------------------

    def append(
        self, device_id: str, boots: int, lane: Lane, occurred_at: int, payload: bytes, event_id: str | None,
        clock: int = 0,
    ) -> Row | None:  # fmt: skip
        """Journal one message under the lane's next seq; None if its event is journalled already."""
        if event_id is not None and not self._see(device_id, event_id):
            return None
        ((seq,),) = self._connection.execute(
            "UPDATE lane SET last_seq = last_seq + 1, row_count = row_count + 1, byte_count = byte_count + ?, "
            "known_at = max(known_at, ?) WHERE device_id = ? AND lane = ? RETURNING last_seq",
            (len(payload), 0 if clock else occurred_at, device_id, lane.value),
        ).fetchall()
        row = Row(lane, seq, boots, occurred_at, payload, event_id, clock)
        self._insert(device_id, row, counted=True)
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
            boots = row.boots if own else 0
            self.append(device_id, boots, row.lane, row.occurred_at, row.payload, row.event_id, row.clock)
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

    def _insert(self, device_id: str, row: Row, *, counted: bool = False) -> None:
        self._connection.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (device_id, row.lane.value, row.seq, row.boots, row.occurred_at, row.event_id, row.payload, row.clock),
        )
        if counted:  # together with its number
            return
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
                "SELECT seq, boots, occurred_at, payload, event_id, clock FROM message "
                "WHERE device_id = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT ?",
                (device_id, lane.value, after, limit),
            )
        ]

    def restore(self, record: DeviceRecord, rows: Iterable[Row]) -> None:
        """Put a device of a damaged database here as it was: ids, numbers, and what was pending."""
        self.adopt(record)
        for lane in Lane:
            self._connection.execute(
                "UPDATE lane SET mark = ?, last_seq = ?, fence = ? WHERE device_id = ? AND lane = ?",
                (record.marks[lane], record.last_seqs[lane], record.fences[lane], record.device_id, lane.value),
            )
        for row in rows:
            self._insert(record.device_id, row)
            if row.event_id is not None:
                self._see(record.device_id, row.event_id)

    def acknowledge(self, device_id: str, lane: Lane, mark: int) -> int:
        """Forget everything up to `mark`, which the cloud has committed; how many rows that were."""
        self._connection.execute(
            "UPDATE lane SET mark = max(mark, ?) WHERE device_id = ? AND lane = ?", (mark, device_id, lane.value)
        )
        return self._remove(device_id, lane, "seq <= ?", (mark,), evicted=False)

    def set_aside(self, device_id: str, lane: Lane, seq: int, reason: str, *, remove: bool) -> None:
        """Keep a copy of a message nobody will take, with the reason; `remove` leaves a hole to be declared."""
        self.keep_aside(device_id, lane, seq, reason)
        if remove:
            self._remove(device_id, lane, "seq = ?", (seq,), evicted=True)

    def look(self, read: Callable[[sqlite3.Connection], Found]) -> Found:
        """What `read` finds; it must not write."""
        return read(self._connection)

    def counts(self) -> dict[str, dict[Lane, tuple[int, int]]]:
        """Per device and lane: (pending rows, rows evicted so far)."""
        result: dict[str, dict[Lane, tuple[int, int]]] = {}
        for device_id, lane, rows, evicted in self._connection.execute(
            "SELECT device_id, lane, row_count, evicted FROM lane"
        ):
            result.setdefault(device_id, {})[Lane(lane)] = (rows, evicted)
        return result
