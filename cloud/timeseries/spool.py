"""The durable, append-only spool of accepted telemetry.

One process writes (`append`, then `sync`, off the event loop); readers read what is synced. Only
telemetry comes here, so a full spool holds back telemetry alone: the ingester does not acknowledge it,
the devices keep it, and emergencies and events go on. It also refuses before the file system is full,
so that the state beside it can still be written.

A failed write or sync never leaves half a batch behind: the file is cut back to what was synced last and
a new segment begins, because after a failed fsync the kernel may have dropped the pages.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from cloud.timeseries import segments
from cloud.timeseries.segments import SpoolBatch

_log = structlog.get_logger(__name__)

_SEGMENT_BYTES_MAX: Final = 64 << 20
_FREE_BYTES_MIN: Final = 256 << 20
_READ_BYTES_MAX: Final = 4 << 20


class SpoolFullError(Exception):
    """The bound of the spool or of the disk is reached; nothing of the batch was written."""


class SpoolError(Exception):
    """The disk failed; nothing of the batch counts as written. Appending again may work."""


@dataclass(slots=True)
class SpoolStatistics:
    """Counters since the start, for metrics."""

    records_appended: int = 0
    batches_refused: int = 0
    """Appends refused at the bound."""
    failures: int = 0
    torn_bytes: int = 0
    """Bytes of a half-written last batch that were cut off at the start; they were never acknowledged."""
    segments_deleted: int = 0


class Spool:
    """A folder of segments.

    Args:
        directory: made if missing; belongs to this spool alone.
        consumers: everybody whose position must have passed a segment before it is deleted.
        bytes_max: bound of all segments together.
        free_bytes_min: what must stay free on the file system.
        position_min: where consumers already are by their own record; a spool that was lost starts there,
            so that positions never repeat.
    """

    def __init__(
        self,
        directory: Path,
        *,
        consumers: Sequence[str] = ("series", "twin"),
        bytes_max: int = 4_000_000_000,
        free_bytes_min: int = _FREE_BYTES_MIN,
        segment_bytes_max: int = _SEGMENT_BYTES_MAX,
        position_min: int = 0,
    ) -> None:
        self.statistics = SpoolStatistics()
        self._directory = directory
        self._bytes_max = bytes_max
        self._free_bytes_min = free_bytes_min
        self._segment_bytes_max = segment_bytes_max
        self._released = dict.fromkeys(consumers, 0)
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self._starts = segments.segment_positions(directory)
        self._file = -1
        end = self._recover()
        if end < position_min or not self._starts:
            end = max(end, position_min)
            self._begin_segment(end)
        else:
            self._open_last()
        self._appended = self._synced = end

    # --- where it stands ---------------------------------------------------------------------------------------

    @property
    def first_position(self) -> int:
        """Position of the oldest byte that is still here."""
        return self._starts[0]

    @property
    def synced_position(self) -> int:
        """Everything before this is durable and may be read."""
        return self._synced

    @property
    def used_bytes(self) -> int:
        """Size of all segments."""
        return self._appended - self._starts[0]

    @property
    def fill_ratio(self) -> float:
        """Used share of `bytes_max`; an alarm belongs to 0.8."""
        return self.used_bytes / self._bytes_max

    @property
    def spare_bytes(self) -> int:
        """What may still be written to its file system before it refuses; below 0 it refuses now."""
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize - self._free_bytes_min

    # --- writing -----------------------------------------------------------------------------------------------

    def append(self, envelopes: Sequence[bytes], received_at_ms: Sequence[int]) -> int:
        """Write one batch; it is durable only after `sync`. Returns the position behind it.

        Raises:
            SpoolFullError: at the bound; telemetry must wait, nothing else.
            SpoolError: the disk failed.
        """
        frame = segments.encode_frame(envelopes, received_at_ms)
        with self._lock:
            self._refuse_if_full(len(frame))
            try:
                if self._file < 0 or self._appended - self._starts[-1] >= self._segment_bytes_max:
                    self._roll()
                self._write(frame)
            except OSError as error:
                self._cut_back()
                raise SpoolError(f"appending to {self._directory}: {error}") from error
            self._appended += len(frame)
            self.statistics.records_appended += len(envelopes)
            return self._appended

    def sync(self) -> int:
        """Make everything appended durable (fdatasync); returns the position up to which it is.

        Raises:
            SpoolError: the disk failed; what was appended since the last sync is gone and must not be acknowledged.
        """
        with self._lock:
            if self._synced != self._appended:
                try:
                    os.fdatasync(self._file)
                except OSError as error:
                    self._abandon_unsynced()
                    raise SpoolError(f"syncing {self._directory}: {error}") from error
                self._synced = self._appended
            return self._synced

    def close(self) -> None:
        """Sync and close the file."""
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1

    # --- reading -----------------------------------------------------------------------------------------------

    def read(self, position: int, bytes_max: int = _READ_BYTES_MAX) -> SpoolBatch:
        """Synced batches from `position` (as returned by `append` or an earlier read), about `bytes_max` of them.

        There are no envelopes only at the end: damage and gaps are passed over. A position before the oldest
        segment starts there.
        """
        skipped_bytes = 0
        while True:
            batch = self._read_segment(position, bytes_max)
            skipped_bytes += batch.skipped_bytes
            if batch.envelopes or batch.next_position >= self._synced:
                return batch._replace(skipped_bytes=skipped_bytes)
            position = batch.next_position

    def _read_segment(self, position: int, bytes_max: int) -> SpoolBatch:
        """The same, from the one segment that holds `position`; may find nothing in it."""
        with self._lock:
            starts, synced = list(self._starts), self._synced
        position = max(position, starts[0])
        if position >= synced:
            return SpoolBatch([], [], position, 0)
        index = max(number for number, start in enumerate(starts) if start <= position)
        start = starts[index]
        end = min(starts[index + 1] if index + 1 < len(starts) else synced, synced)
        wanted = bytes_max
        while True:
            asked = min(end - position, wanted)
            data = self._read_bytes(start, position, asked)
            behind = end if len(data) < asked or asked == end - position else None
            batch = segments.collect(data, position, behind)
            if batch.next_position > position:
                return batch
            wanted *= 4  # one batch is larger than `bytes_max`

    # --- letting go --------------------------------------------------------------------------------------------

    def release(self, consumer: str, position: int) -> None:
        """`consumer` will not read before `position` again; deletes segments that all consumers have passed."""
        with self._lock:
            self._released[consumer] = max(self._released[consumer], position)
            passed = min(self._released.values())
            while len(self._starts) > 1 and self._starts[1] <= passed:
                segments.segment_path(self._directory, self._starts[0]).unlink(missing_ok=True)
                del self._starts[0]
                self.statistics.segments_deleted += 1

    # --- inside ------------------------------------------------------------------------------------------------

    def _recover(self) -> int:
        """Cut a half-written batch off the last segment; returns the position behind the last good one."""
        if not self._starts:
            return 0
        start = self._starts[-1]
        path = segments.segment_path(self._directory, start)
        data = path.read_bytes()
        end = 0
        for frame in segments.frames(data):
            end = frame.end
        if end < len(data):
            self.statistics.torn_bytes = len(data) - end
            _log.warning("cut a half-written batch off the spool", file=path.name, torn_bytes=len(data) - end)
            with path.open("r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())
        return start + end

    def _refuse_if_full(self, frame_bytes: int) -> None:
        disk = os.statvfs(self._directory)
        if self.used_bytes + frame_bytes > self._bytes_max:
            reason = f"spool holds {self.used_bytes} of {self._bytes_max} bytes"
        elif disk.f_bavail * disk.f_frsize - frame_bytes < self._free_bytes_min:
            reason = f"less than {self._free_bytes_min} bytes are free on its disk"
        else:
            return
        self.statistics.batches_refused += 1
        raise SpoolFullError(reason)

    def _write(self, frame: bytearray) -> None:
        rest = memoryview(frame)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _roll(self) -> None:
        """Seal the current segment and begin the next."""
        if self._file >= 0:
            os.fdatasync(self._file)
            self._synced = self._appended
            os.close(self._file)
            self._file = -1
        self._begin_segment(self._appended)

    def _begin_segment(self, position: int) -> None:
        path = segments.segment_path(self._directory, position)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o640)
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name of the file must survive as well
        finally:
            os.close(folder)
        if not self._starts or self._starts[-1] != position:
            self._starts.append(position)

    def _open_last(self) -> None:
        path = segments.segment_path(self._directory, self._starts[-1])
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.fdatasync(self._file)  # a predecessor that was killed may have written more than it synced

    def _cut_back(self) -> None:
        """After a failed write: remove the half batch; what was appended before it stays."""
        try:
            if self._file >= 0:
                os.ftruncate(self._file, self._appended - self._starts[-1])
                self.statistics.failures += 1
                return
        except OSError as error:
            _log.warning("cutting the spool back failed", error=str(error))
        self._abandon_unsynced()

    def _abandon_unsynced(self) -> None:
        """After a disk error: cut back to what was synced, and let the next append begin a new segment."""
        self.statistics.failures += 1
        _log.error("spool disk failure", directory=self._directory.name, unsynced_bytes=self._appended - self._synced)
        if self._file >= 0:
            try:
                os.ftruncate(self._file, max(0, self._synced - self._starts[-1]))
            except OSError as error:
                # Readers stop at the synced position and a restart cuts the torn batch, so going on is safe.
                _log.exception("cutting the spool back failed", error=str(error))
            os.close(self._file)
            self._file = -1
        self._appended = self._synced

    def _read_bytes(self, start: int, position: int, count: int) -> bytes:
        with segments.segment_path(self._directory, start).open("rb") as file:
            file.seek(position - start)
            return file.read(count)
