"""The keys that sign commands and welcomes: a ring in one PEM file, oldest first, replaced as a whole.

    # fleet command keys, version 1763694000000
    # 0123456789abcdef active
    -----BEGIN PRIVATE KEY-----
    …

A file with one bare key is a ring with one active key and version 0. An *active* key signs for every device that
trusts it and is announced to all; a *retired* one is announced to nobody and signs nothing but the welcome of a device
that trusts no active key yet, so that whoever was away during a rotation still learns the new one (ADR 0014).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.identity.authority import command_key_id, load_or_create_command_key, public_pem, write_secret
from fleet.envelope import COMMAND_KEYS_MAX, CommandKeys
from fleet.signing import Signer, announce_keys

__all__ = ["CommandKey", "KeyRing", "KeyRingError", "KeyRingFile", "OneKey", "public_key_of"]

_log = structlog.get_logger(__name__)

KeyState = Literal["active", "retired"]
FILE_BYTES_MAX: Final = 65_536
_VERSION: Final = re.compile(r"^# fleet command keys, version (\d{1,15})$", re.MULTILINE)
_BLOCK: Final = re.compile(
    r"(?:^# (?P<id>[a-z0-9-]{1,32}) (?P<state>active|retired)\n)?"
    r"(?P<pem>^-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\s]+?^-----END PRIVATE KEY-----$)",
    re.MULTILINE,
)


class KeyRingError(ValueError):
    """The ring cannot be read, or what was asked would leave devices without a key they trust."""


@dataclass(frozen=True, slots=True)
class CommandKey:
    """One private key."""

    id: str
    state: KeyState
    private: Ed25519PrivateKey

    @property
    def public_raw(self) -> bytes:
        """What is announced."""
        return self.private.public_key().public_bytes_raw()


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys, oldest first; at least one is active. `version` grows with every change."""

    version: int
    keys: tuple[CommandKey, ...]

    @property
    def active(self) -> tuple[CommandKey, ...]:
        """Keys that sign commands and are announced."""
        return tuple(key for key in self.keys if key.state == "active")

    @property
    def announced_ids(self) -> tuple[str, ...]:
        """What every device should trust, sorted."""
        return tuple(sorted(key.id for key in self.active))

    def for_command(self, trusted: Collection[str]) -> tuple[str, Signer]:
        """The newest active key the device trusts. One that trusts none, or never said, gets the oldest."""
        mine = [key for key in self.active if key.id in trusted]
        chosen = mine[-1] if mine else self.active[0]
        return chosen.id, chosen.private

    def for_welcome(self, trusted: Collection[str]) -> tuple[str, Signer]:
        """The same, or else the newest retired key the device trusts: a welcome can move nothing but its trust."""
        old = [key for key in self.keys if key.state == "retired" and key.id in trusted]
        if old and not any(key.id in trusted for key in self.active):
            return old[-1].id, old[-1].private
        return self.for_command(trusted)

    def announcement(self, trusted: Collection[str]) -> CommandKeys | None:
        """What to announce to a device that trusts these; None if there is no news, or none was ever made."""
        if not self.version or tuple(sorted(trusted)) == self.announced_ids:
            return None
        return announce_keys(self.version, {key.id: key.public_raw for key in self.active})

    # --- changes; each gives a new ring ------------------------------------------------------------------------

    def with_new_key(self, private: Ed25519PrivateKey, now_ms: int) -> "KeyRing":
        """One more active key, the newest. Raises KeyRingError at the bound."""
        if len(self.keys) >= COMMAND_KEYS_MAX:
            raise KeyRingError(f"there are {len(self.keys)} keys already; retire or remove one first")
        key = CommandKey(command_key_id(private.public_key()), "active", private)
        return KeyRing(self._next_version(now_ms), (*self.keys, key))

    def retired(self, key_id: str, now_ms: int) -> "KeyRing":
        """Commands are no longer signed with it, and devices drop it. Raises KeyRingError."""
        self._leave_one(key_id)
        keys = tuple(CommandKey(key.id, "retired", key.private) if key.id == key_id else key for key in self.keys)
        return KeyRing(self._next_version(now_ms), keys)

    def without(self, key_id: str, now_ms: int) -> "KeyRing":
        """It is gone: nobody can learn a new key through it any more. Raises KeyRingError."""
        self._leave_one(key_id)
        return KeyRing(self._next_version(now_ms), tuple(key for key in self.keys if key.id != key_id))

    def _leave_one(self, key_id: str) -> None:
        if key_id not in {key.id for key in self.keys}:
            known = ", ".join(key.id for key in self.keys)
            raise KeyRingError(f"there is no key {key_id!r}; the ring holds {known}")
        if not any(key.id != key_id for key in self.active):
            raise KeyRingError(f"{key_id} is the only active key; make another one first: fleet keys rotate")

    def _next_version(self, now_ms: int) -> int:
        """By the clock, so that a ring restored from a backup does not repeat a version that devices know."""
        return max(self.version + 1, now_ms)

    def text(self) -> bytes:
        """The file's content."""
        parts = [f"# fleet command keys, version {self.version}\n".encode()]
        for key in self.keys:
            pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            parts.append(f"# {key.id} {key.state}\n".encode() + pem)
        return b"".join(parts)


def parse_ring(content: bytes) -> KeyRing:
    """The ring in a file's content; raises KeyRingError."""
    try:
        text = content.decode("ascii").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise KeyRingError("it holds no PEM text") from None
    keys: list[CommandKey] = []
    for block in _BLOCK.finditer(text):
        try:
            private = serialization.load_pem_private_key(block["pem"].encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyRingError(f"key {len(keys) + 1} is damaged: {error}") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyRingError(f"key {len(keys) + 1} is no Ed25519 private key")
        key_id = command_key_id(private.public_key())
        if block["id"] not in {None, key_id}:
            raise KeyRingError(f"the key named {block['id']} is {key_id}: somebody edited the file")
        keys.append(CommandKey(key_id, "retired" if block["state"] == "retired" else "active", private))
    if not keys:
        raise KeyRingError("it holds no Ed25519 private key")
    if text.count("-----BEGIN") != len(keys):
        raise KeyRingError("a key in it is damaged or of another kind")
    if not any(key.state == "active" for key in keys):
        raise KeyRingError("it holds no active key")
    version = _VERSION.search(text)
    return KeyRing(int(version[1]) if version else 0, tuple(keys))


class KeyRingFile:
    """The ring of a running process: read at the start, and again whenever the file was replaced."""

    def __init__(self, path: Path) -> None:
        """Makes the file with one key if it is missing. Raises KeyRingError, OSError."""
        if not path.exists():
            load_or_create_command_key(path)
        self.path = path
        self._stamp = self._look()
        self.ring = self._read()

    def refresh(self) -> bool:
        """Whether another ring is in force than before; an unreadable file is told of, and the old ring stays."""
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            before, self.ring = self.ring, self._read()
        except (OSError, KeyRingError) as error:
            _log.error("command keys not read, going on with those before", file=str(self.path), error=str(error))
            return False
        if self.ring.version != before.version:
            _log.info("command keys changed", version=self.ring.version, keys=self.ring.announced_ids)
        return self.ring.version != before.version

    def replace(self, ring: KeyRing) -> None:
        """Put another ring in force, here and soon in every process on this file."""
        write_secret(self.path, ring.text())
        self._stamp, self.ring = self._look(), ring

    def _look(self) -> tuple[int, int, int]:
        found = self.path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> KeyRing:
        with self.path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise KeyRingError(f"{self.path} is larger than any ring of keys")
        try:
            return parse_ring(content)
        except KeyRingError as error:
            raise KeyRingError(f"{self.path}: {error}") from None

    # --- `cloud.ports.CommandKeys`, by the ring in force -------------------------------------------------------

    @property
    def version(self) -> int:
        """Of the ring in force."""
        return self.ring.version

    @property
    def announced_ids(self) -> tuple[str, ...]:
        """See KeyRing."""
        return self.ring.announced_ids

    def for_command(self, trusted: Collection[str]) -> tuple[str, Signer]:
        """See KeyRing."""
        return self.ring.for_command(trusted)

    def for_welcome(self, trusted: Collection[str]) -> tuple[str, Signer]:
        """See KeyRing."""
        return self.ring.for_welcome(trusted)

    def announcement(self, trusted: Collection[str]) -> CommandKeys | None:
        """See KeyRing."""
        return self.ring.announcement(trusted)


class OneKey:
    """A ring that never changes, of one key with a name of its own."""

    version = 0

    def __init__(self, key_id: str, signer: Signer) -> None:
        self.announced_ids = (key_id,)
        self._chosen = key_id, signer

    def refresh(self) -> bool:
        """Never."""
        return False

    def for_command(self, _trusted: Collection[str]) -> tuple[str, Signer]:
        """It."""
        return self._chosen

    def for_welcome(self, _trusted: Collection[str]) -> tuple[str, Signer]:
        """It."""
        return self._chosen

    def announcement(self, _trusted: Collection[str]) -> CommandKeys | None:
        """Nothing ever."""
        return None


def public_key_of(private_file: Path, directory: Path) -> tuple[str, Path]:
    """(key id, PEM file written into `directory`): the newest active public key of the ring in `private_file`."""
    key = KeyRingFile(private_file).ring.active[-1]
    path = directory / "command.pem"
    path.write_bytes(public_pem(key.private.public_key()))
    return key.id, path
