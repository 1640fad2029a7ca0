"""Room for emergencies when the disk is full: a preallocated file outside the database, and memory behind it.

Records lie one after another: magic, length, checksum, JSON. A record that does not add up is skipped: it is an
interrupted write, or the card changed its bits; what follows it is still found by its magic.
"""

import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from edge.records import JournalFullError, Row
from fleet.envelope import Lane
from fleet.milestones import reached

RESERVE_BYTES: Final = 256 * 1024
MEMORY_ROWS_MAX: Final = 256
_MAGIC: Final = b"EMR1"
_HEADER_BYTES: Final = 12

_log = logging.getLogger(__name__)


class ReservedRow(msgspec.Struct, frozen=True):
    """An emergency that the database could not take, with the seq it already travels under."""

    device_id: str
    storage_id: str
    lane: Lane
    seq: int
    boots: int
    occurred_at: int
    payload: bytes
    event_id: str | None
    clock: int = 0

    @property
    def row(self) -> Row:
        """The same as the database's rows."""
        return Row(self.lane, self.seq, self.boots, self.occurred_at, self.payload, self.event_id, self.clock)


_decoder = msgspec.json.Decoder(ReservedRow)


class Reserve:
    """The open file; every append is durable when it returns."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        """Open the file, allocating all of it if it is new; raises OSError if the disk has no room for it."""
        self._size = size
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        self.rows: list[ReservedRow] = []
        self.skipped = 0
        """Records that could not be read."""
        self._end = 0
        self._used = 0
        try:
            missing = size - os.fstat(self._file).st_size
            if missing > 0:  # written, not only declared: a sparse file would need the disk when it matters
                os.pwrite(self._file, bytes(missing), size - missing)
                os.fsync(self._file)
            self._load(os.pread(self._file, size, 0))
        except OSError:
            os.close(self._file)
            raise

    def _load(self, content: bytes) -> None:
        self._used = len(content.rstrip(b"\x00"))
        place = 0
        while (found := content.find(_MAGIC, place)) >= 0:
            row, end = _record_at(content, found)
            self.skipped += row is None or content[place:found].strip(b"\x00") != b""
            if row is not None:
                self.rows.append(row)
                self._end = end
            place = end
        self.skipped += place < self._used and content[place : self._used].strip(b"\x00") != b""
        if self.skipped:
            _log.error("%d records of the emergency reserve cannot be read", self.skipped)

    def append(self, row: ReservedRow) -> None:
        """Keep `row`; raises JournalFullError when the reserve is used up or the disk refuses even this."""
        body = msgspec.json.encode(row)
        record = _MAGIC + len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body
        if self._end + len(record) > self._size:
            raise JournalFullError(f"the emergency reserve of {self._size} bytes is used up")
        try:
            os.pwrite(self._file, record, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            raise JournalFullError(f"the emergency reserve cannot be written: {error}") from error
        reached("edge.reserve.after_write")
        self._end += len(record)
        self._used = max(self._used, self._end)
        self.rows.append(row)

    def clear(self) -> None:
        """Forget everything, after the database took it; what a broken disk keeps is recognised by its event ids."""
        with suppress(OSError):
            os.pwrite(self._file, bytes(self._used), 0)
            os.fdatasync(self._file)
        self._end = self._used = 0
        self.rows.clear()

    def close(self) -> None:
        """Close the file; what it holds stays."""
        os.close(self._file)


def _record_at(content: bytes, place: int) -> tuple[ReservedRow | None, int]:
    """(the record that begins at `place` or None, where to look for the next one)."""
    start = place + _HEADER_BYTES
    body = content[start : start + int.from_bytes(content[place + 4 : place + 8], "big")]
    end = start + len(body)
    if not body or zlib.crc32(body) != int.from_bytes(content[place + 8 : start], "big"):
        return None, place + len(_MAGIC)
    try:
        return _decoder.decode(body), end
    except msgspec.MsgspecError:
        return None, place + len(_MAGIC)


class EmergencyReserve:
    """The file if it can be had, and memory while it cannot: then nothing is acknowledged to the hardware."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Reserve | None = None
        self._in_memory: list[ReservedRow] = []
        self._told = ""
        self._open()

    @property
    def rows(self) -> list[ReservedRow]:
        """Emergencies that wait outside the database, oldest first."""
        return [*(self._file.rows if self._file else ()), *self._in_memory]

    @property
    def in_memory(self) -> tuple[ReservedRow, ...]:
        """Those that neither the database nor the file took: a power cut loses them, so the hardware repeats them."""
        return tuple(self._in_memory)

    @property
    def skipped(self) -> int:
        """Records of the file that could not be read."""
        return self._file.skipped if self._file else 0

    def _open(self) -> None:
        if self._file is not None:
            return
        try:
            self._file = Reserve(self._path)
        except OSError as error:
            if str(error) != self._told:
                self._told = str(error)
                _log.error("no emergency reserve, emergencies are kept in memory: %s", error)

    def keep(self, row: ReservedRow) -> bool:
        """Keep `row`; whether it is durable. Raises JournalFullError when there is not even memory for it."""
        self.harden()
        if not self._in_memory and self._file is not None:
            try:
                self._file.append(row)
            except JournalFullError as error:
                _log.error("%s", error)
            else:
                return True
        if len(self._in_memory) >= MEMORY_ROWS_MAX:
            raise JournalFullError(f"{MEMORY_ROWS_MAX} emergencies are in memory, there is no room for more")
        self._in_memory.append(row)
        return False

    def harden(self) -> None:
        """Put what is in memory into the file, as far as it takes it."""
        self._open()
        with suppress(JournalFullError):
            while self._in_memory and self._file is not None:
                self._file.append(self._in_memory[0])
                del self._in_memory[0]

    def find(self, device_id: str, event_id: str) -> bool | None:
        """Whether this event is durable here; None if it is not here at all."""
        if any((row.device_id, row.event_id) == (device_id, event_id) for row in self._in_memory):
            self.harden()
            return not any((row.device_id, row.event_id) == (device_id, event_id) for row in self._in_memory)
        return True if any((row.device_id, row.event_id) == (device_id, event_id) for row in self.rows) else None

    def clear(self) -> None:
        """The database took everything."""
        if self._file is not None:
            self._file.clear()
        self._in_memory.clear()

    def take_over(self, rows: tuple[ReservedRow, ...]) -> None:
        """What an earlier journal of this process had in memory."""
        self._in_memory += rows
        self.harden()

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._file is not None:
            self._file.close()
