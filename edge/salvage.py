"""What is done with a damaged database: it is renamed, never deleted, and what can still be read of it goes on.

A device whose ids and numbers can be read goes on as the storage it was, until the cloud has said how far that had
come; then a new storage follows (ADR 0015). So nothing comes twice, and nothing that is readable is lost. Without
them a new storage begins at once: emergencies and events are known to the cloud by their ids, and of telemetry what
the cloud had not acknowledged may come twice.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from edge.journal_store import JournalStore
from edge.records import DeviceRecord, Row
from fleet.envelope import BOOTS_PER_GENERATION, Lane

Order = Literal["ASC", "DESC"]
# In the key's own order and without a condition: a sorter would read all of it before the first row.
_MESSAGES: Final[Mapping[Order, str]] = {
    "ASC": "SELECT device_id, lane, seq, boots, occurred_at, payload, event_id, clock FROM message "
    "ORDER BY device_id, lane, seq",
    "DESC": "SELECT device_id, lane, seq, boots, occurred_at, payload, event_id, clock FROM message "
    "ORDER BY device_id DESC, lane DESC, seq DESC",
}
_SEQ_MAX: Final = 2**53
_SUFFIXES: Final = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class DamagedDatabase:
    """A journal that was set aside."""

    path: Path

    def carry_into(self, store: JournalStore) -> int:
        """Put everything pending that can be read into `store`; how many messages and readings that were."""
        carried = 0
        clocks: dict[str, int] = {}
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.path)) as damaged:
            records = _records(damaged)
            pending = _pending(damaged)
            for device_id in sorted(records.keys() | pending.keys()):
                rows = [pending[device_id][key] for key in sorted(pending.get(device_id, {}))]
                record = _sound(records.get(device_id), rows)
                clocks[device_id] = max((row.clock for row in rows), default=0)
                if record is not None:
                    rows = [row for row in rows if row.seq > record.marks[row.lane]]
                    store.restore(record, rows)
                    carried += len(rows)
                else:
                    carried += _append(store, device_id, rows)
            query = "SELECT device_id, at, payload, clock FROM reading ORDER BY id"
            for device_id, at, payload, clock in _rows(damaged, query, (str, int, bytes, int)):
                carried += len(store.keep_readings(device_id, [(at, payload, clock)]))
                clocks[device_id] = max(clocks.get(device_id, 0), clock)
            _count_on(store, clocks)
            # So that what the hardware repeats is still recognised.
            seen = _rows(damaged, "SELECT device_id, event_id FROM event_seen ORDER BY id", (str, str))
            store.mark_seen((device_id, event_id) for device_id, event_id in seen)
        return carried

    def put_back(self, path: Path) -> None:
        """Undo the renaming."""
        for suffix in _SUFFIXES:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        self.path.rename(path)
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(path.with_name(path.name + suffix))


def _rows(damaged: sqlite3.Connection, query: str, types: tuple[type, ...]) -> Iterator[Any]:
    """Rows up to the damaged page, without those whose fields are not what they must be."""
    with suppress(sqlite3.Error, OverflowError, UnicodeDecodeError):
        for row in damaged.execute(query):
            if all(isinstance(value, wanted) for value, wanted in zip(row, types, strict=True)):
                yield row


def _records(damaged: sqlite3.Connection) -> dict[str, DeviceRecord]:
    lanes: dict[str, dict[Lane, tuple[int, int, int]]] = {}
    query = "SELECT device_id, lane, mark, last_seq, coalesce(fence, last_seq) FROM lane ORDER BY device_id, lane"
    for device_id, lane, *numbers in _rows(damaged, query, (str, str, int, int, int)):
        with suppress(ValueError):
            lanes.setdefault(device_id, {})[Lane(lane)] = (numbers[0], numbers[1], numbers[2])
    records = {}
    query = "SELECT device_id, storage_id, generation, boots FROM device"
    for device_id, storage_id, generation, boots in _rows(damaged, query, (str, str, int, int)):
        found = lanes.get(device_id, {})
        if len(found) == len(Lane) and len(storage_id) == 32 and generation > 0 and 0 <= boots < BOOTS_PER_GENERATION:
            marks, last_seqs, fences = ({lane: found[lane][index] for lane in Lane} for index in range(3))
            records[device_id] = DeviceRecord(
                device_id, storage_id, generation, boots, marks=marks, last_seqs=last_seqs, fences=fences, ends=True
            )
    return records


def _pending(damaged: sqlite3.Connection) -> dict[str, dict[tuple[Lane, int], Row]]:
    """From both ends, up to the damaged page."""
    types = (str, str, int, int, int, bytes, str | None, int)
    pending: dict[str, dict[tuple[Lane, int], Row]] = {}
    for order in ("ASC", "DESC"):
        for device_id, name, *fields in _rows(damaged, _MESSAGES[order], types):  # type: ignore[arg-type]
            with suppress(ValueError):
                row = Row(Lane(name), *fields)
                sound = row.boots >= 0 and row.occurred_at >= 0 and 0 <= row.clock < BOOTS_PER_GENERATION
                if 0 < row.seq <= _SEQ_MAX and sound:
                    pending.setdefault(device_id, {})[row.lane, row.seq] = row
    return pending


def _sound(record: DeviceRecord | None, rows: list[Row]) -> DeviceRecord | None:
    """`record` if its numbers and the rows agree: nothing below a mark is pending, nothing above the last number."""
    if record is None:
        return None
    for lane in Lane:
        seqs = [row.seq for row in rows if row.lane is lane]
        mark, last_seq, fence = record.marks[lane], record.last_seqs[lane], record.fences[lane]
        if not 0 <= mark <= last_seq <= _SEQ_MAX or not 0 <= fence <= last_seq:
            return None
        if seqs and not mark < min(seqs) <= max(seqs) <= last_seq:
            return None
    return record


def _append(store: JournalStore, device_id: str, rows: list[Row]) -> int:
    store.register(device_id)
    return sum(
        store.append(device_id, 0, row.lane, row.occurred_at, row.payload, row.event_id, row.clock) is not None
        for row in rows
    )


def _count_on(store: JournalStore, clocks: dict[str, int]) -> None:
    """No later start gets the number of one whose clock stamped what is here: it would read those times as its own."""
    for device_id, clock in sorted(clocks.items()):
        record = store.next_record(device_id)
        if record.boots < clock < BOOTS_PER_GENERATION - 1:
            store.adopt(replace(record, boots=clock))


def set_database_aside(path: Path) -> DamagedDatabase:
    """Rename the database and what SQLite keeps beside it to the first free `….damaged-<n>`."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return DamagedDatabase(aside)
