"""Room for emergencies when the disk is full: a preallocated file outside the database.

Records lie one after another: magic, length, checksum, JSON. Reading stops at the first that does not add up,
which is where an interrupted write ends.
"""

import os
import zlib
from pathlib import Path
from typing import Final

import msgspec

from edge.records import JournalFullError, Row
from fleet.envelope import Lane

RESERVE_BYTES: Final = 256 * 1024
_MAGIC: Final = b"EMR1"
_HEADER_BYTES: Final = 12


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

    @property
    def row(self) -> Row:
        """The same as the database's rows."""
        return Row(self.lane, self.seq, self.boots, self.occurred_at, self.payload, self.event_id)


_decoder = msgspec.json.Decoder(ReservedRow)


class Reserve:
    """The open file; every append is durable when it returns."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        """Open the file, allocating all of it if it is new; raises OSError if the disk has no room for it."""
        self._size = size
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            missing = size - os.fstat(self._file).st_size
            if missing > 0:  # written, not only declared: a sparse file would need the disk when it matters
                os.pwrite(self._file, bytes(missing), size - missing)
                os.fsync(self._file)
        except OSError:
            os.close(self._file)
            raise
        self.rows: list[ReservedRow] = []
        self._end = 0
        self._load()

    def _load(self) -> None:
        content = os.pread(self._file, self._size, 0)
        while content[self._end : self._end + 4] == _MAGIC:
            start = self._end + _HEADER_BYTES
            length = int.from_bytes(content[self._end + 4 : self._end + 8], "big")
            body = content[start : start + length]
            if len(body) < length or zlib.crc32(body) != int.from_bytes(content[self._end + 8 : start], "big"):
                return
            self.rows.append(_decoder.decode(body))
            self._end = start + length

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
        self._end += len(record)
        self.rows.append(row)

    def clear(self) -> None:
        """Forget everything, after the database took it."""
        os.pwrite(self._file, bytes(self._end), 0)
        os.fdatasync(self._file)
        self._end = 0
        self.rows.clear()

    def close(self) -> None:
        """Close the file; what it holds stays."""
        os.close(self._file)
