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
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from edge.journal_store import JournalStore, is_corruption
from edge.records import Bounds, CommandRecord, DeviceRecord, JournalCorruptError, JournalError, JournalFullError, Row
from edge.reserve import Reserve, ReservedRow
from edge.salvage import set_database_aside
from fleet.envelope import Lane

T = TypeVar("T")
Listener = Callable[[Row], None]

COMMIT_WITHIN_S: Final[Mapping[Lane, float]] = {Lane.EMERGENCY: 0.0, Lane.EVENT: 0.01, Lane.TELEMETRY: 0.1}
_AT_ONCE_S: Final = 0.0
_SOON_S: Final = 0.01
_HOUSEKEEPING_S: Final = 0.5
_RETRY_S: Final = 2.0
_BATCH_MAX: Final = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Append:
    device_id: str
    boots: int
    lane: Lane
    occurred_at: int
    payload: bytes
    event_id: str | None

    def __call__(self, store: JournalStore) -> Row | None:
        return store.append(self.device_id, self.boots, self.lane, self.occurred_at, self.payload, self.event_id)


@dataclass(slots=True)
class _Write(Generic[T]):
    operation: Callable[[JournalStore], T]
    future: "asyncio.Future[T]"


class Journal:
    """One per process. `run` must run while the other coroutines are used."""

    def __init__(self, path: Path, *, bounds: Bounds | None = None, make_id: Callable[[], str] | None = None) -> None:
        """Open the database at `path` (its folder is made), after setting a damaged one aside.

        Raises:
            JournalError: another process holds the journal, or a newer release wrote it.
        """
        self._path = path
        self._bounds = bounds or Bounds()
        self._make_id = make_id or (lambda: secrets.token_hex(16))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.store = self._open()
        self._reserve = self._open_reserve()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._writes: deque[_Write[Any]] = deque()
        self._acknowledged: dict[tuple[str, Lane], int] = {}
        self._devices: dict[str, tuple[DeviceRecord, Listener]] = {}
        self._last_seqs: dict[tuple[str, Lane], int] = {}
        self._unstored: dict[str, DeviceRecord] = {}
        self._due_s: float | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._merge_reserve()
        self.journalled = 0
        self.reserved = 0
        self.commits = 0
        self.refused = 0

    def _open(self) -> JournalStore:
        try:
            return JournalStore(self._path, self._bounds, self._make_id)
        except JournalCorruptError as error:
            aside = set_database_aside(self._path)
            _log.error("journal damaged, set aside as %s: %s", aside.path.name, error)
            store = JournalStore(self._path, self._bounds, self._make_id)
            store.begin()
            carried = aside.carry_into(store)
            store.commit()
            _log.warning("carried %d messages over from the damaged journal", carried)
            return store

    def _open_reserve(self) -> Reserve | None:
        try:
            return Reserve(self._path.with_name(self._path.name + ".reserve"))
        except OSError as error:
            _log.error("no emergency reserve: %s", error)
            return None

    @property
    def reserved_rows(self) -> list[ReservedRow]:
        """Emergencies that wait outside the database."""
        return self._reserve.rows if self._reserve else []

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

    async def append(
        self, device_id: str, lane: Lane, occurred_at: int, payload: bytes, event_id: str | None = None
    ) -> Row | None:
        """Journal one message; durable when this returns. None if the event was journalled before.

        Raises:
            JournalFullError: it was not kept, so nothing may be acknowledged to the hardware.
        """
        record, _ = self._devices[device_id]
        return await self.write(
            _Append(device_id, record.boots, lane, occurred_at, payload, event_id), within_s=COMMIT_WITHIN_S[lane]
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

    def grant_unstored(self, device_id: str, generation: int) -> None:
        """A first generation for which there is no room now: stored with the next commit that succeeds."""
        record = self._unstored.get(device_id) or self._devices[device_id][0]
        self._unstored[device_id] = replace(record, generation=generation)
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

    async def remember_command(self, device_id: str, record: CommandRecord) -> bool:
        """Durably keep a command id before it is carried out; False if it was seen before."""
        return await self.write(lambda store: store.remember_command(device_id, record), within_s=_AT_ONCE_S)

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
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writes.append(_Write(operation, future))
        self._wake_within(within_s)
        return await future

    def _wake_within(self, seconds: float) -> None:
        due_s = asyncio.get_running_loop().time() + seconds
        if self._due_s is None or due_s < self._due_s:
            self._due_s = due_s
            self._wake.set()

    # --- the committer ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what arrives until `close`; raises JournalCorruptError when the database is damaged."""
        loop = asyncio.get_running_loop()
        while not (self._closing and not self._writes and not self._acknowledged):
            self._wake.clear()
            delay_s = None if self._due_s is None else self._due_s - loop.time()
            if self._closing or (delay_s is not None and delay_s <= 0):
                self._due_s = None
                await self._commit_next(loop)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()

    def close(self) -> None:
        """Let `run` commit what is left and return."""
        self._closing = True
        self._wake.set()

    def shut(self) -> None:
        """Release the files; after `run` has ended."""
        self._thread.shutdown(wait=True)
        for write in self._writes:
            write.future.cancel()
        self.store.close()
        if self._reserve:
            self._reserve.close()

    async def _commit_next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = [self._writes.popleft() for _ in range(min(len(self._writes), _BATCH_MAX))]
        if self._writes:
            self._wake_within(_AT_ONCE_S)
        marks, self._acknowledged = self._acknowledged, {}
        try:
            results = await loop.run_in_executor(self._thread, self._commit, batch, marks)
        except sqlite3.Error as error:
            self._restore(marks)
            await self._refuse(batch, error, loop)
            return
        self.commits += 1
        for write, result in zip(batch, results, strict=True):
            self._resolve(write, result)

    def _restore(self, marks: Mapping[tuple[str, Lane], int]) -> None:
        for key, mark in marks.items():
            self._acknowledged[key] = max(mark, self._acknowledged.get(key, 0))
        if self._closing:
            self._acknowledged.clear()  # sent again after the start, acknowledged again
        elif self._acknowledged:
            self._wake_within(_HOUSEKEEPING_S)
        if self._unstored or self.reserved_rows:
            self._wake_within(_RETRY_S)

    def _resolve(self, write: _Write[Any], result: Any) -> None:
        operation = write.operation
        if isinstance(operation, _Append) and isinstance(result, Row):
            self.journalled += 1
            self._announce(operation.device_id, result)
        if not write.future.done():
            write.future.set_result(result)

    def _announce(self, device_id: str, row: Row) -> None:
        self._last_seqs[device_id, row.lane] = row.seq
        self._devices[device_id][1](row)

    async def _refuse(self, batch: list[_Write[Any]], error: sqlite3.Error, loop: asyncio.AbstractEventLoop) -> None:
        _log.error("journal refuses: %s", error)
        for write in batch:
            operation = write.operation
            if not isinstance(operation, _Append) or operation.lane is not Lane.EMERGENCY:
                self._fail(write, JournalFullError(str(error)))
                continue
            try:
                row = await loop.run_in_executor(self._thread, self._keep_in_reserve, operation)
            except JournalFullError as full:
                self._fail(write, full)
            else:
                self._resolve(write, row)
        if is_corruption(error):
            raise JournalCorruptError(str(error)) from error

    def _fail(self, write: _Write[Any], error: JournalFullError) -> None:
        self.refused += 1
        if not write.future.done():
            write.future.set_exception(error)

    # --- in the journal's thread -----------------------------------------------------------------------------

    def _commit(self, batch: list[_Write[Any]], marks: Mapping[tuple[str, Lane], int]) -> list[Any]:
        try:
            return self._transact(batch, marks)
        except sqlite3.Error as error:
            self.store.rollback()
            if is_corruption(error) or not self._made_room():
                raise
        try:
            return self._transact(batch, marks)
        except BaseException:
            self.store.rollback()
            raise

    def _made_room(self) -> bool:
        try:
            return self.store.make_room()
        except sqlite3.Error:
            self.store.rollback()
            return False

    def _transact(self, batch: list[_Write[Any]], marks: Mapping[tuple[str, Lane], int]) -> list[Any]:
        store = self.store
        store.begin()
        kept, unstored = self.reserved_rows, list(self._unstored.values())
        for record in unstored:  # before the reserve, whose rows belong to these storages
            store.adopt(record)
        for row in kept:
            store.merge(row.device_id, row.storage_id, row.row)
        for (device_id, lane), mark in marks.items():
            store.acknowledge(device_id, lane, mark)
        results = [write.operation(store) for write in batch]
        store.commit()
        if kept and self._reserve:
            self._reserve.clear()
        for record in unstored:
            if self._unstored.get(record.device_id) is record:
                del self._unstored[record.device_id]
        return results

    def _keep_in_reserve(self, append: _Append) -> Row | None:
        if self._reserve is None:
            raise JournalFullError("there is no emergency reserve")
        if append.event_id is not None and self._is_known(append.device_id, append.event_id):
            return None
        record, _ = self._devices[append.device_id]
        row = ReservedRow(
            append.device_id,
            record.storage_id,
            append.lane,
            self._last_seqs[append.device_id, append.lane] + 1,
            append.boots,
            append.occurred_at,
            append.payload,
            append.event_id,
        )
        self._reserve.append(row)
        self.reserved += 1
        return row.row

    def _is_known(self, device_id: str, event_id: str) -> bool:
        if any((row.device_id, row.event_id) == (device_id, event_id) for row in self.reserved_rows):
            return True
        try:
            return self.store.has_seen(device_id, event_id)
        except sqlite3.Error:
            return False

    def _merge_reserve(self) -> None:
        if self.reserved_rows:
            with suppress(sqlite3.Error):  # still refusing: the rows stay where they are and are sent from there
                self._commit([], {})
