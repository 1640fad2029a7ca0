r"""An archive that only the holder of a key file reads: AES-256-GCM over blocks of 64 KiB, each of them vouched for.

    "fleet-sealed-1\n" · 16 bytes of salt · blocks of (64 KiB + 16), the last one shorter or empty

Each archive has a key of its own, derived from the key file and the salt; the nonce of a block is its number, and
whether it is the last one is authenticated with it, so nothing can be cut off, swapped or repeated.
"""

import base64
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

MAGIC: Final = b"fleet-sealed-1\n"
BLOCK_BYTES: Final = 65_536
TAG_BYTES: Final = 16
SALT_BYTES: Final = 16
KEY_BYTES: Final = 32


class SealError(ValueError):
    """The key is none, is another one, or the archive was changed."""


def make_key(path: Path) -> None:
    """A new key file; never replaces one: archives would be lost."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")


def read_key(path: Path) -> bytes:
    """Raises SealError."""
    try:
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except (OSError, ValueError) as error:
        raise SealError(f"{path} can't be read as a key ({error}); make one: fleet backup key {path}") from None
    if len(key) != KEY_BYTES:
        raise SealError(f"{path} is no key of fleet backup; make one: fleet backup key FILE")
    return key


@contextmanager
def seal(raw: IO[bytes], key: bytes) -> Iterator["_Sealing"]:
    """What is written to the result stands sealed in `raw`; its end is written when the block ends well."""
    salt = secrets.token_bytes(SALT_BYTES)
    raw.write(MAGIC + salt)
    sealing = _Sealing(raw, _Blocks(key, salt))
    yield sealing
    sealing.finish()


def open_sealed(raw: IO[bytes], key: bytes) -> IO[bytes]:
    """A stream of what was sealed; reading raises SealError at the first block that is not what was written."""
    if raw.read(len(MAGIC)) != MAGIC:
        raise SealError("is not sealed by fleet backup")
    opening: Any = _Opening(raw, _Blocks(key, raw.read(SALT_BYTES)))
    return io.BufferedReader(opening, BLOCK_BYTES)


class _Blocks:
    def __init__(self, key: bytes, salt: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        self._cipher = AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"fleet backup").derive(key))
        self._number = 0

    def _nonce(self) -> bytes:
        self._number += 1
        return self._number.to_bytes(12, "big")

    def close(self, block: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(), block, b"last" if last else b"more")

    def open(self, block: bytes, *, last: bool) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(self._nonce(), block, b"last" if last else b"more")
        except (InvalidTag, ValueError):
            raise SealError("the key is another one, or the archive was changed or cut off") from None


class _Sealing(io.RawIOBase):
    def __init__(self, raw: IO[bytes], blocks: _Blocks) -> None:
        super().__init__()
        self._raw, self._blocks, self._waiting = raw, blocks, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, some: bytes, /) -> int:  # type: ignore[override]  # tarfile hands over bytes
        self._waiting += some
        while len(self._waiting) > BLOCK_BYTES:
            self._raw.write(self._blocks.close(bytes(self._waiting[:BLOCK_BYTES]), last=False))
            del self._waiting[:BLOCK_BYTES]
        return len(some)

    def finish(self) -> None:
        self._raw.write(self._blocks.close(bytes(self._waiting), last=True))
        self._waiting.clear()


class _Opening(io.RawIOBase):
    def __init__(self, raw: IO[bytes], blocks: _Blocks) -> None:
        super().__init__()
        self._raw, self._blocks = raw, blocks
        self._next = raw.read(BLOCK_BYTES + TAG_BYTES)
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]  # called by BufferedReader alone
        while not self._ready and not self._ended:
            block, self._next = self._next, self._raw.read(BLOCK_BYTES + TAG_BYTES)
            self._ended = not self._next
            self._ready = self._blocks.open(block, last=self._ended)
        some, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(some)] = some
        return len(some)
