"""The bytes of a spool: batches in frames, frames in segment files.

    frame   = magic "GXSP" · u32 crc32 of all that follows · u32 body bytes · u32 record count · body
    body    = record count × u32 envelope bytes · record count × u64 received_at (ms) · the envelopes

All integers are little-endian. A position is the number of bytes that were ever appended before it, so
positions only grow; a segment's file name is the position of its first byte.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from isal.isal_zlib import crc32

MAGIC: Final = b"GXSP"
_HEADER: Final = struct.Struct("<4sIII")
_CHECKED: Final = struct.Struct("<II")  # the part of the header that the checksum covers
HEADER_BYTES: Final = _HEADER.size
_NO_HEADER: Final = bytes(HEADER_BYTES)
_RECORD_TABLE_BYTES: Final = 12
SUFFIX: Final = ".spool"
_NAME_DIGITS: Final = 20


class Frame(NamedTuple):
    """One appended batch. `end` is the offset behind it in the data it was found in."""

    start: int
    end: int
    record_count: int


class SpoolBatch(NamedTuple):
    """What a read found: envelopes with the ms at which they were received, and where to go on."""

    envelopes: list[bytes]
    received_at_ms: list[int]
    next_position: int
    skipped_bytes: int
    """Damaged bytes between; they stay in the file until it is released."""


def segment_path(directory: Path, position: int) -> Path:
    """File of the segment that begins at `position`."""
    return directory / f"{position:0{_NAME_DIGITS}d}{SUFFIX}"


def segment_positions(directory: Path) -> list[int]:
    """First positions of the segments present, oldest first."""
    return sorted(int(path.stem) for path in directory.glob(f"*{SUFFIX}") if path.stem.isdigit())


def encode_frame(envelopes: Sequence[bytes], received_at_ms: Sequence[int]) -> bytearray:
    """One batch as it is written; both sequences have the same length."""
    count = len(envelopes)
    if len(received_at_ms) != count:
        raise ValueError(f"{count} envelopes but {len(received_at_ms)} times")
    tables = _table("I", map(len, envelopes)), _table("Q", received_at_ms)
    frame = bytearray().join([_NO_HEADER, *tables, *envelopes])  # the hot path: every byte is copied once
    checked = _CHECKED.pack(len(frame) - HEADER_BYTES, count)
    checksum = crc32(memoryview(frame)[HEADER_BYTES:], crc32(checked))
    frame[:HEADER_BYTES] = MAGIC + checksum.to_bytes(4, "little") + checked
    return frame


def _table(code: str, numbers: Iterable[int]) -> bytes:
    """Little-endian unsigned integers, of 4 bytes (`I`) or 8 (`Q`) each."""
    table = array(code, numbers)
    if sys.byteorder == "big":
        table.byteswap()
    return table.tobytes()


def frame_at(data: bytes, offset: int) -> Frame | None:
    """The whole and undamaged frame at `offset`, else None."""
    if offset + HEADER_BYTES > len(data):
        return None
    magic, checksum, body_bytes, record_count = _HEADER.unpack_from(data, offset)
    end = offset + HEADER_BYTES + body_bytes
    if magic != MAGIC or end > len(data) or record_count * _RECORD_TABLE_BYTES > body_bytes:
        return None
    view = memoryview(data)
    if crc32(view[offset + HEADER_BYTES : end], crc32(view[offset + 8 : offset + HEADER_BYTES])) != checksum:
        return None
    return Frame(offset, end, record_count)


def frames(data: bytes, offset: int = 0) -> Iterator[Frame]:
    """Undamaged frames from `offset` on; damaged stretches are skipped by searching the next frame.

    A caller sees what was skipped by comparing one frame's end with the next one's start.
    """
    while True:
        frame = frame_at(data, offset)
        if frame is None:
            offset = data.find(MAGIC, offset + 1)
            if offset < 0:
                return
            continue
        yield frame
        offset = frame.end


def records_of(data: bytes, frame: Frame) -> tuple[list[bytes], list[int]]:
    """(envelopes, received_at in ms) of one frame."""
    count = frame.record_count
    body = frame.start + HEADER_BYTES
    numbers = struct.unpack_from(f"<{count}I{count}Q", data, body)
    position = body + count * _RECORD_TABLE_BYTES
    envelopes = []
    for length in numbers[:count]:
        envelopes.append(data[position : position + length])
        position += length
    return envelopes, list(numbers[count:])


def collect(data: bytes, position: int, behind: int | None) -> SpoolBatch:
    """Records of the whole frames in `data`, which was read at `position`.

    `behind` is where to go on when `data` reaches the end of its segment; bytes after the last whole frame
    are then damaged. None: the segment goes on and they are only incomplete.
    """
    envelopes: list[bytes] = []
    received_at_ms: list[int] = []
    end = skipped_bytes = 0
    for frame in frames(data):
        skipped_bytes += frame.start - end
        end = frame.end
        frame_envelopes, frame_times = records_of(data, frame)
        envelopes += frame_envelopes
        received_at_ms += frame_times
    if behind is None:
        return SpoolBatch(envelopes, received_at_ms, position + end, skipped_bytes)
    return SpoolBatch(envelopes, received_at_ms, behind, skipped_bytes + len(data) - end)
