"""The part of the journal that runs in its thread: transactions, and the reserve for what the database refuses."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edge.journal_store import JournalStore, is_corruption
from edge.records import DeviceRecord, Row
from edge.reserve import EmergencyReserve, ReservedRow
from fleet.envelope import Lane
from fleet.milestones import reached

Operation = Callable[[JournalStore], Any]


@dataclass(frozen=True, slots=True)
class Append:
    """Journal one message; `reading_ids` are the kept readings that it consists of."""

    device_id: str
    boots: int
    lane: Lane
    occurred_at: int
    payload: bytes
    event_id: str | None
    reading_ids: Sequence[int] = ()
    clock: int = 0

    def __call__(self, store: JournalStore) -> Row | None:
        """Inside the transaction."""
        row = store.append(
            self.device_id, self.boots, self.lane, self.occurred_at, self.payload, self.event_id, self.clock
        )
        store.forget_readings(self.reading_ids)
        return row


@dataclass(frozen=True, slots=True)
class Resend:
    """Journal a message that was set aside once more, under a new number; it is set aside no longer."""

    device_id: str
    boots: int
    number: int

    def __call__(self, store: JournalStore) -> Row | None:
        """Inside the transaction; None if it is there no more."""
        found = store.take_from_aside(self.number)
        if found is None:
            return None
        return store.append(self.device_id, self.boots, found.lane, found.occurred_at, found.payload, None, found.clock)


class JournalWriter:
    """Used from one thread at a time."""

    def __init__(self, store: JournalStore, reserve: EmergencyReserve) -> None:
        self.store = store
        self.reserve = reserve
        self.unstored: dict[str, DeviceRecord] = {}
        """Devices whose boot or first generation the database could not take yet."""
        self.confirmed: set[str] = set()
        """Devices whose storage the cloud knows, not yet written down."""
        self.reserved = 0
        if reserve.rows:
            with suppress(sqlite3.Error):  # still refusing: the rows stay where they are and are sent from there
                self.commit([], {})

    def commit(self, operations: Sequence[Operation], marks: Mapping[tuple[str, Lane], int]) -> list[Any]:
        """All of it in one transaction, or nothing; makes room by letting telemetry go."""
        try:
            return self._transact(operations, marks)
        except sqlite3.Error as error:
            self.store.rollback()
            if is_corruption(error) or not self._made_room():
                raise
        try:
            return self._transact(operations, marks)
        except BaseException:
            self.store.rollback()
            raise

    def _made_room(self) -> bool:
        try:
            return self.store.make_room()
        except sqlite3.Error:
            self.store.rollback()
            return False

    def _transact(self, operations: Sequence[Operation], marks: Mapping[tuple[str, Lane], int]) -> list[Any]:
        store = self.store
        store.begin()
        kept, unstored = self.reserve.rows, list(self.unstored.values())
        for record in unstored:  # before the reserve, whose rows belong to these storages
            store.adopt(record)
        confirmed = tuple(self.confirmed)
        for device_id in confirmed:
            store.confirm(device_id)
        for row in kept:
            store.merge(row.device_id, row.storage_id, row.row)
        for (device_id, lane), mark in marks.items():
            store.acknowledge(device_id, lane, mark)
        results = [operation(store) for operation in operations]
        reached("edge.journal.before_commit")
        store.commit()
        reached("edge.journal.after_commit")
        if kept:
            self.reserve.clear()
        self.confirmed.difference_update(confirmed)
        for record in unstored:
            if self.unstored.get(record.device_id) is record:
                del self.unstored[record.device_id]
        return results

    def keep(self, append: Append, storage_id: str, seq: int) -> tuple[Row | None, bool]:
        """Outside the database: (the row under `seq` unless its event is here already, whether it is durable).

        Raises:
            JournalFullError: there is not even memory for it.
        """
        if append.event_id is not None:
            durable = self.reserve.find(append.device_id, append.event_id)
            if durable is not None or self._is_stored(append.device_id, append.event_id):
                return None, durable is not False
        row = ReservedRow(
            append.device_id,
            storage_id,
            append.lane,
            seq,
            append.boots,
            append.occurred_at,
            append.payload,
            append.event_id,
            append.clock,
        )
        durable = self.reserve.keep(row)
        self.reserved += 1
        return row.row, durable

    def _is_stored(self, device_id: str, event_id: str) -> bool:
        try:
            return self.store.has_seen(device_id, event_id)
        except sqlite3.Error:
            return False
