"""Frames on a serial line: COBS, zero-delimited, with a CRC-16.

    frame = COBS( type:1 | body | crc16:2 ) 0x00

A receiver that lost its place is back in step at the next zero byte, whatever was dropped. The
consistent-overhead encoding is Cheshire and Baker's (1999); the checksum is
CRC-16/CCITT-FALSE. Its start value is not 0: a register at 0 (where every correct frame leaves it) would take
two frames whose delimiter was lost for one long correct frame.
"""

import binascii
from dataclasses import dataclass, field
from typing import Final

FRAME_BYTES_MAX: Final = 1024
_DELIMITER: Final = b"\x00"
_CHECKSUM_START: Final = 0xFFFF


def encode_frame(frame_type: int, body: bytes = b"") -> bytes:
    """One frame on the wire. `frame_type` is 0 … 255; body up to FRAME_BYTES_MAX - 3 bytes."""
    content = bytes((frame_type,)) + body
    if len(content) + 2 > FRAME_BYTES_MAX:
        raise ValueError(f"frame of {len(content) + 2} bytes, more than {FRAME_BYTES_MAX}")
    content += binascii.crc_hqx(content, _CHECKSUM_START).to_bytes(2, "big")
    return _cobs_encode(content) + _DELIMITER


def _cobs_encode(data: bytes) -> bytes:
    encoded = bytearray()
    for block in data.split(_DELIMITER):  # each zero is implied by the code byte of the block before it
        position = 0
        while len(block) - position >= 254:
            encoded.append(0xFF)
            encoded += block[position : position + 254]
            position += 254
        encoded.append(len(block) - position + 1)
        encoded += block[position:]
    return bytes(encoded)


def _cobs_decode(data: bytes) -> bytes:
    decoded = bytearray()
    position = 0
    while position < len(data):
        code = data[position]
        end = position + code
        if code == 0 or end > len(data):
            raise ValueError("truncated block")
        decoded += data[position + 1 : end]
        position = end
        if code < 0xFF and position < len(data):
            decoded.append(0)
    return bytes(decoded)


@dataclass
class FrameReader:
    """Cuts a byte stream into frames. Noise, half frames and wrong checksums are counted, never raised."""

    errors: int = 0
    _pending: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Frames completed by `data`, as (type, body)."""
        self._pending += data
        *complete, rest = bytes(self._pending).split(_DELIMITER)
        frames: list[tuple[int, bytes]] = []
        for raw in complete:
            if not raw:
                continue
            frame = self._open(raw)
            if frame is None:
                self.errors += 1
            else:
                frames.append(frame)
        if len(rest) > FRAME_BYTES_MAX + FRAME_BYTES_MAX // 254 + 1:  # noise without a delimiter must not grow
            self.errors += 1
            rest = b""
        self._pending = bytearray(rest)
        return frames

    @staticmethod
    def _open(raw: bytes) -> tuple[int, bytes] | None:
        try:
            content = _cobs_decode(raw)
        except ValueError:
            return None
        if len(content) < 3 or binascii.crc_hqx(content[:-2], _CHECKSUM_START) != int.from_bytes(content[-2:], "big"):
            return None
        return content[0], content[1:-2]
