"""The journal of all devices of a process: what was appended is durable before anybody acknowledges it.

One thread owns the database. What arrives within a short window is committed in one transaction (one `fsync` for
many devices); an emergency closes the window at once. When SQLite refuses, emergencies go to the preallocated
reserve and return to the database as soon as it takes anything again; everything else fails with
JournalFullError, so the hardware keeps and repeats it. A damaged database is renamed, what can still be read of
it is carried over, and a new storage begins.
"""

import asyncio
import logging
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from edge.journal_store import JournalStore, is_corruption
from edge.journal_writer import Append, JournalWriter, Resend
from edge.opening import AbsentStore, open_present_store, open_store
from edge.records import (
    Admission,
    Bounds,
    CommandRecord,
    DeviceRecord,
    JournalCorruptError,
    JournalError,
    JournalFullError,
    JournalReturnedError,
    Row,
)
from edge.reserve import EmergencyReserve, ReservedRow
from edge.set_aside_table import SetAside
from edge.wake import Wake
from fleet.envelope import Lane

T = TypeVar("T")
Listener = Callable[[Row], None]

COMMIT_WITHIN_S: Final[Mapping[Lane, float]] = {Lane.EMERGENCY: 0.0, Lane.EVENT: 0.01, Lane.TELEMETRY: 0.1}
_AT_ONCE_S: Final = 0.0
_SOON_S: Final = 0.01
_HOUSEKEEPING_S: Final = 0.5
_RETRY_S: Final = 2.0
_RETURN_S: Final = 2.0
_BATCH_MAX: Final = 1024

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Write(Generic[T]):
    operation: Callable[[JournalStore], T]
    future: "asyncio.Future[T]"


class Journal:
    """One per process. `run` must run while the other coroutines are used."""

    def __init__(
        self,
        path: Path,
        *,
        bounds: Bounds | None = None,
        make_id: Callable[[], str] | None = None,
        in_memory: tuple[ReservedRow, ...] = (),
    ) -> None:
        """Open the database at `path` (its folder is made), after setting a damaged one aside.

        On a full, read-only or failing disk the journal works without one: it takes emergencies alone, and `run` ends
        with JournalReturnedError as soon as there is a database. `in_memory` is what an earlier journal of this
        process could store nowhere.

        Raises:
            JournalError: another process holds the journal, or a newer release wrote it.
        """
        self._path = path
        self._bounds = bounds or Bounds()
        self._make_id = make_id or (lambda: secrets.token_hex(16))
        self.store = open_store(path, self._bounds, self._make_id)
        self._reserve = EmergencyReserve(path.with_name(path.name + ".reserve"))
        self._reserve.take_over(in_memory)
        self._writer = JournalWriter(self.store, self._reserve)
        self._unstored = self._writer.unstored
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._writes: deque[_Write[Any]] = deque()
        self._acknowledged: dict[tuple[str, Lane], int] = {}
        self._devices: dict[str, tuple[DeviceRecord, Listener]] = {}
        self._last_seqs: dict[tuple[str, Lane], int] = {}
        self._due_s: float | None = None
        self._wake = Wake()
        self._closing = False
        self._ended = False
        self._told = ""
        self.journalled = 0
        self.commits = 0
        self.refused = 0

    @property
    def absent(self) -> bool:
        """Whether there is no database: the disk is full, read-only or failing."""
        return isinstance(self.store, AbsentStore)

    @property
    def reserved_rows(self) -> list[ReservedRow]:
        """Emergencies that wait outside the database."""
        return self._reserve.rows

    @property
    def in_memory(self) -> tuple[ReservedRow, ...]:
        """Those of them that a power cut would lose; they are not acknowledged to the hardware."""
        return self._reserve.in_memory

    @property
    def reserved(self) -> int:
        """How often the reserve was used."""
        return self._writer.reserved

    @property
    def reserve_skipped(self) -> int:
        """Records of the reserve that could not be read."""
        return self._reserve.skipped

    # --- what agents ask for -----------------------------------------------------------------------------------

    async def register(self, device_id: str, on_committed: Listener) -> DeviceRecord:
        """Count a boot of the device; its rows are passed to `on_committed` as they become durable, in order."""
        try:
            record = await self.write(lambda store: store.register(device_id), within_s=_SOON_S)
        except JournalFullError:  # emergencies must find the reserve: go on, and store the record when there is room
            record = await self.read(lambda store: store.next_record(device_id))
            self._unstored[device_id] = record
            self._wake_within(_RETRY_S)
        for lane in Lane:
            key = device_id, lane
            reserved = [row.seq for row in self.reserved_rows if (row.device_id, row.lane) == key]
            self._last_seqs[key] = max(record.last_seqs[lane], *reserved, 0)
        self._devices[device_id] = record, on_committed
        return record

    def append(
        self, device_id: str, lane: Lane, occurred_at: int, payload: bytes, event_id: str | None = None,
        reading_ids: Sequence[int] = (), clock: int = 0,
    ) -> asyncio.Future[Row | None]:  # fmt: skip
        """Journal one message; durable when this returns. None if the event was journalled before.

        `reading_ids`: the kept readings that it consists of; they are kept no longer. `clock` as in `Row`.

        Raises:
            JournalFullError: it was not kept, so nothing may be acknowledged to the hardware.
        """
        record, _ = self._devices[device_id]
        operation = Append(device_id, record.boots, lane, occurred_at, payload, event_id, reading_ids, clock)
        return self._submit(operation, within_s=COMMIT_WITHIN_S[lane])

    def keep_readings(self, device_id: str, readings: Sequence[tuple[int, bytes, int]]) -> asyncio.Future[list[int]]:
        """Keep (at, JSON, clock) readings until they are part of a message; their ids, durable when this returns."""
        return self._submit(
            lambda store: store.keep_readings(device_id, readings), within_s=COMMIT_WITHIN_S[Lane.TELEMETRY]
        )

    def acknowledge(self, device_id: str, marks: Mapping[Lane, int]) -> None:
        """The cloud committed these marks; the rows go with a later commit, or after a crash are sent once more."""
        for lane, mark in marks.items():
            key = device_id, lane
            if mark > self._acknowledged.get(key, 0):
                self._acknowledged[key] = mark
        self._wake_within(_HOUSEKEEPING_S)

    async def grant(self, device_id: str, generation: int, marks: Mapping[Lane, int]) -> None:
        """Put the device's pending rows under a newly granted generation, after the cloud's marks."""
        for lane in Lane:  # marks of the old numbering say nothing about the new one
            self._acknowledged.pop((device_id, lane), None)
        last_seqs = await self.write(lambda store: store.grant(device_id, generation, marks), within_s=_AT_ONCE_S)
        for lane, last_seq in last_seqs.items():
            self._last_seqs[device_id, lane] = last_seq

    async def confirm(self, device_id: str) -> None:
        """The cloud knows this very storage: see DeviceTable. What finds no room now is stored when there is some."""
        self._writer.confirmed.add(device_id)
        await self.write(lambda _: None, within_s=_AT_ONCE_S)

    async def begin_storage(self, device_id: str, delivered: Mapping[Lane, int]) -> str:
        """Let a new storage follow this one, which the cloud knows in another state; its id. See JournalStore."""
        for lane in Lane:
            self._acknowledged.pop((device_id, lane), None)
        storage_id = await self.write(lambda store: store.begin_storage(device_id, delivered), within_s=_AT_ONCE_S)
        record, listener = self._devices[device_id]
        self._devices[device_id] = replace(record, storage_id=storage_id), listener
        return storage_id

    def grant_unstored(self, device_id: str, generation: int) -> None:
        """A first generation for which there is no room now: stored with the next commit that succeeds."""
        record = self._unstored.get(device_id) or self._devices[device_id][0]
        self._unstored[device_id] = replace(record, generation=generation)
        self._writer.confirmed.add(device_id)
        self._wake_within(_RETRY_S)

    def last_seq(self, device_id: str, lane: Lane) -> int:
        """The seq given last in a lane."""
        return self._last_seqs[device_id, lane]

    async def pending(self, device_id: str, lane: Lane, after: int, limit: int) -> list[Row]:
        """Unacknowledged rows after `after`, in order, at most `limit`."""
        rows = await self.read(lambda store: store.pending(device_id, lane, after, limit))
        if lane is Lane.EMERGENCY and self.reserved_rows:
            known = {row.seq for row in rows}
            rows += [
                kept.row
                for kept in self.reserved_rows
                if kept.device_id == device_id and kept.seq > after and kept.seq not in known
            ]
            rows = sorted(rows, key=lambda row: row.seq)[:limit]
        return rows

    async def set_aside(self, device_id: str, lane: Lane, seq: int, reason: str, *, remove: bool) -> None:
        """Keep a message apart with the reason; see JournalStore."""
        await self.write(lambda store: store.set_aside(device_id, lane, seq, reason, remove=remove), within_s=_SOON_S)

    async def set_aside_messages(self, limit: int, after: int = 0) -> list[SetAside]:
        """Messages that nobody would take, oldest first."""
        return await self.read(lambda store: store.set_aside_rows(limit, after))

    async def resend_set_aside(self, number: int) -> bool:
        """Send one of them again, under a new number; False if it is not there, or not of a running device."""
        found = await self.read(lambda store: store.set_aside_rows(1, number - 1))
        if not found or found[0].id != number or found[0].device_id not in self._devices:
            return False
        record, _ = self._devices[found[0].device_id]
        operation = Resend(found[0].device_id, record.boots, number)
        return await self.write(operation, within_s=_SOON_S) is not None

    async def remember_command(self, device_id: str, record: CommandRecord, now_ms: int | None) -> Admission:
        """Durably keep a command id before it is carried out; see CommandTable."""
        return await self.write(lambda store: store.remember_command(device_id, record, now_ms), within_s=_AT_ONCE_S)

    async def conclude_command(self, device_id: str, record: CommandRecord) -> None:
        """Durably record how a command ended."""
        await self.write(lambda store: store.conclude_command(device_id, record), within_s=_SOON_S)

    async def acknowledge_replies(self, device_id: str, command_ids: Iterable[str]) -> None:
        """The cloud has these final replies."""
        await self.write(lambda store: store.acknowledge_replies(device_id, command_ids), within_s=_HOUSEKEEPING_S)

    async def read(self, operation: Callable[[JournalStore], T]) -> T:
        """Run a read in the journal's thread; raises JournalError when the database cannot be read."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, operation, self.store)
        except sqlite3.Error as error:
            raise (JournalCorruptError if is_corruption(error) else JournalError)(str(error)) from error

    async def write(self, operation: Callable[[JournalStore], T], *, within_s: float) -> T:
        """Run a write in the next transaction that begins within `within_s`; durable when this returns."""
        return await self._submit(operation, within_s=within_s)

    def _submit(self, operation: Callable[[JournalStore], T], *, within_s: float) -> asyncio.Future[T]:
        if self._ended:  # nobody would ever answer: who waits for that cannot end either
            raise JournalFullError("the journal has ended")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writes.append(_Write(operation, future))
        self._wake_within(within_s)
        return future

    def _wake_within(self, seconds: float) -> None:
        due_s = asyncio.get_running_loop().time() + seconds
        if self._due_s is None or due_s < self._due_s:
            self._due_s = due_s
            self._wake.set()

    # --- the committer ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what arrives until `close`.

        Raises:
            JournalCorruptError: the database is damaged.
            JournalReturnedError: there was no database, and now there is one.
        """
        try:
            async with asyncio.TaskGroup() as group:
                returning = group.create_task(self._await_return())
                await self._commit_until_closed(asyncio.get_running_loop())
                returning.cancel()
        except* JournalCorruptError as errors:
            raise errors.exceptions[0] from None
        finally:
            self._ended = True
            while self._writes:
                self._fail(self._writes.popleft(), JournalFullError("the journal has ended"))

    async def _await_return(self) -> None:
        while self.absent:
            await asyncio.sleep(_RETURN_S)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._look_for_database)

    def _look_for_database(self) -> None:
        try:
            open_present_store(self._path, self._bounds, self._make_id).close()
        except JournalError:  # not yet
            return
        raise JournalReturnedError(f"{self._path} can be had again")

    async def _commit_until_closed(self, loop: asyncio.AbstractEventLoop) -> None:
        while not (self._closing and not self._writes and not self._acknowledged):
            self._wake.clear()
            delay_s = None if self._due_s is None else self._due_s - loop.time()
            if self._closing or (delay_s is not None and delay_s <= 0):
                self._due_s = None
                await self._commit_next(loop)
                continue
            await self._wake.wait(delay_s)

    def close(self) -> None:
        """Let `run` commit what is left and return."""
        self._closing = True
        self._wake.set()

    def shut(self) -> None:
        """Release the files; after `run` has ended."""
        self._thread.shutdown(wait=True)
        self.store.close()
        self._reserve.close()

    async def _commit_next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = [self._writes.popleft() for _ in range(min(len(self._writes), _BATCH_MAX))]
        if self._writes:
            self._wake_within(_AT_ONCE_S)
        marks, self._acknowledged = self._acknowledged, {}
        try:
            operations = [write.operation for write in batch]
            results = await loop.run_in_executor(self._thread, self._writer.commit, operations, marks)
        except sqlite3.Error as error:
            self._restore(marks)
            await self._refuse(batch, error, loop)
            return
        self.commits += 1
        self._told = ""
        for write, result in zip(batch, results, strict=True):
            self._resolve(write, result)

    def _restore(self, marks: Mapping[tuple[str, Lane], int]) -> None:
        for key, mark in marks.items():
            self._acknowledged[key] = max(mark, self._acknowledged.get(key, 0))
        if self._closing:
            self._acknowledged.clear()  # sent again after the start, acknowledged again
        elif self._acknowledged:
            self._wake_within(_HOUSEKEEPING_S)
        if self._unstored or self._writer.confirmed or self.reserved_rows:
            self._wake_within(_RETRY_S)

    def _resolve(self, write: _Write[Any], result: Any) -> None:
        operation = write.operation
        if isinstance(operation, Append | Resend) and isinstance(result, Row):
            self.journalled += 1
            self._announce(operation.device_id, result)
        if not write.future.done():
            write.future.set_result(result)

    def _announce(self, device_id: str, row: Row) -> None:
        self._last_seqs[device_id, row.lane] = row.seq
        self._devices[device_id][1](row)

    async def _refuse(self, batch: list[_Write[Any]], error: sqlite3.Error, loop: asyncio.AbstractEventLoop) -> None:
        if self._told != (text := str(error)):  # a disk that is full for days is told once
            self._told = text
            _log.error("journal refuses: %s", text)
        for write in batch:
            operation = write.operation
            if not isinstance(operation, Append) or operation.lane is not Lane.EMERGENCY:
                self._fail(write, JournalFullError(str(error)))
                continue
            try:
                record, seq = self._devices[operation.device_id][0], self.last_seq(operation.device_id, Lane.EMERGENCY)
                keep = partial(self._writer.keep, operation, record.storage_id, seq + 1)
                row, durable = await loop.run_in_executor(self._thread, keep)
            except JournalFullError as full:
                self._fail(write, full)
                continue
            if durable:
                self._resolve(write, row)
                continue
            if row is not None:  # sent all the same; the hardware must go on repeating it
                self._announce(operation.device_id, row)
            self._fail(write, JournalFullError("kept in memory only"))
        if is_corruption(error):
            raise JournalCorruptError(str(error)) from error

    def _fail(self, write: _Write[Any], error: JournalFullError) -> None:
        self.refused += 1
        if not write.future.done():
            write.future.set_exception(error)
