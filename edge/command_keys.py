"""The command keys this device trusts: those of its settings, until the cloud has announced others.

An announcement comes inside a welcome: signed by a key that is trusted already, made for this device, and answering
the nonce of its last hello, so that no old one can be played again. It replaces the whole list and is durable before
it counts. Keys in the settings that changed since then are somebody's deliberate act: they win over what was announced.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from fleet.envelope import CommandKeys, EnvelopeError
from fleet.signing import Verifier, announced_keys

MakeVerifier = Callable[[bytes], Verifier]

FILE_BYTES_MAX: Final = 16_384

_log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of the file. `configured` are the ids in the settings at that time."""

    configured: tuple[str, ...]
    announced: CommandKeys


_decoder = msgspec.json.Decoder(_Kept)


def ed25519_verifier(raw: bytes) -> Verifier:
    """A verifier from a raw public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415  # large, once

    return Ed25519PublicKey.from_public_bytes(raw)


class TrustedKeys:
    """What this device trusts now; one per device, shared by both directions of its link."""

    def __init__(
        self,
        configured: Mapping[str, Verifier],
        path: Path | None = None,
        make_verifier: MakeVerifier = ed25519_verifier,
    ) -> None:
        """`path`: where announcements are kept; None keeps them in memory alone."""
        self.verifiers: Mapping[str, Verifier] = dict(configured)
        self.version = 0
        """Of the latest announcement; 0: none yet."""
        self.counts: Counter[str] = Counter()
        self._configured = tuple(sorted(configured))
        self._path = path
        self._make_verifier = make_verifier
        self._overruled: CommandKeys | None = None
        self._restore()

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the trusted keys, sorted."""
        return tuple(sorted(self.verifiers))

    async def adopt(self, announced: CommandKeys) -> bool:
        """Trust exactly these from now on; the caller has checked who signed it and that it is fresh.

        False, and nothing changed, if it is no news, not usable, or cannot be made durable now.
        """
        if announced.version <= self.version and announced != self._overruled:
            if announced.version < self.version:
                self.counts["keys_outdated"] += 1
            return False
        try:
            verifiers = self._verifiers_of(announced)
            if self._path is not None:
                await asyncio.to_thread(_write, self._path, _Kept(self._configured, announced))
        except EnvelopeError as error:
            self.counts["keys_unusable"] += 1
            _log.error("announced command keys not taken: %s", error)
            return False
        except OSError as error:  # the disk is full: the old keys go on, the cloud announces again
            self.counts["keys_not_stored"] += 1
            _log.error("announced command keys not taken, they cannot be stored: %s", error)
            return False
        self.verifiers, self.version, self._overruled = verifiers, announced.version, None
        self.counts["keys_adopted"] += 1
        _log.info("command keys now: %s", ", ".join(self.ids))
        return True

    def _verifiers_of(self, announced: CommandKeys) -> dict[str, Verifier]:
        try:
            return {key_id: self._make_verifier(raw) for key_id, raw in announced_keys(announced).items()}
        except ValueError as error:
            raise EnvelopeError(str(error)) from error

    def _restore(self) -> None:
        if self._path is None:
            return
        try:
            content = self._path.read_bytes()[: FILE_BYTES_MAX + 1]
        except FileNotFoundError:
            return
        except OSError as error:
            self._unreadable(error)
            return
        try:
            kept = _decoder.decode(content)
            verifiers = self._verifiers_of(kept.announced)
        except (msgspec.DecodeError, UnicodeDecodeError, EnvelopeError) as error:
            self._unreadable(error)
            return
        self.version = kept.announced.version
        if kept.configured == self._configured:
            self.verifiers = verifiers
        else:
            # Word for word the same list, signed by a key that counts now, leads out of settings that were set back to
            # retired keys; anything else of that version, or of an older one, would be a way to bring keys back.
            self._overruled = kept.announced
            _log.warning("the settings name other command keys than before: they count, not those announced last")

    def _unreadable(self, error: Exception) -> None:
        self.counts["keys_unreadable"] += 1
        _log.error("%s is not readable, going on with the keys of the settings: %s", self._path, error)


def _write(path: Path, kept: _Kept) -> None:
    """Replace the file as a whole; durable when this returns."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(kept))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
