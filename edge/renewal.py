"""The certificate of a device that is renewed before it ends.

Key and certificate lie in one file, so one rename brings a new pair into use. On disk, each step whole or not at all:

    device.pem               key and chain in use
    device.pem.next-key      a new key, until its certificate came
    device.pem.next          new key and chain, until they have proved themselves

At two thirds of the certificate's life, by the cloud's signed time, a new key is made and its request sent; the same
key is asked for until an answer comes, also after a restart. Then one connection is made with the new pair. If the
cloud welcomes it, the pair replaces the old one; else the old one goes on and the new one is tried again later. The
old pair is in use until that moment, so nothing that fails here can lock the device out.
"""

import asyncio
import datetime as dt
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge import keys
from edge.identity import CertificateFacts, IdentityError, facts_of, facts_of_pem, load_tls_context
from edge.link import LinkError, Session
from fleet.clock import Clock
from fleet.credentials import (
    CertificateGrant,
    CertificateRefusal,
    CertificateRequest,
    decode_certificate_answer,
    encode_credentials,
)
from fleet.envelope import EnvelopeError
from fleet.topics import UpChannel

_log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
ASK_FIRST_S: Final = 60.0
ASK_MOST_S: Final = 3_600.0
PROVE_WITHIN_S: Final = 30.0
RETRY_FIRST_S: Final = 600.0
PROOFS_FAILED_MAX: Final = 3
"""So often a new certificate may fail while the old one works; then it is discarded and another one asked for."""
_EXPIRY_TOLD_EVERY_S: Final = 86_400.0


class TryNewCertificateError(LinkError):
    """Ends a connection so that the next one uses the new certificate, at once."""


class Renewal:
    """Which certificate the next connection uses, and how the next certificate comes about."""

    def __init__(self, device_id: str, identity: Path, authority: Path, clock: Clock) -> None:
        """`identity` holds key and chain. `clock` is monotonic time alone: what time it is the cloud says.

        Raises:
            IdentityError: the pair in use cannot be used.
        """
        self.changed = 0
        """How often a new certificate came into use."""
        self._device_id = device_id
        self._identity = identity
        self._authority = authority
        self._clock = clock
        self._next_key = identity.with_name(f"{identity.name}.next-key")
        self._next = identity.with_name(f"{identity.name}.next")
        self._context, self._facts = self._load(identity)
        self._candidate: tuple[ssl.SSLContext, CertificateFacts] | None = None
        self._trying = False
        self._suspect = False
        self._failures = 0
        self._try_at_s = 0.0
        self._ask_at_s = 0.0
        self._ask_pause_s = ASK_FIRST_S
        self._expiry_told_s = float("-inf")
        self._wake = asyncio.Event()
        self._take_up()

    @property
    def facts(self) -> CertificateFacts:
        """Of the certificate of the present connection."""
        return self._candidate[1] if self._trying and self._candidate is not None else self._facts

    @property
    def certificate(self) -> str:
        """Its serial, as the hello tells it."""
        return self.facts.serial

    # --- connections -------------------------------------------------------------------------------------------

    def tls(self) -> ssl.SSLContext:
        """For the connection that is about to be made."""
        self._trying = self._candidate is not None and self._may_try()
        return self._candidate[0] if self._trying and self._candidate is not None else self._context

    def _may_try(self) -> bool:
        return not self._suspect and self._clock.monotonic_s() >= self._try_at_s

    def welcomed(self) -> None:
        """The cloud answered on this connection under its signature."""
        self._wake.set()  # now the time is known
        if self._trying:
            self._promote()
        elif self._suspect:  # the old certificate works where the new one did not
            self._suspect = False
            self._failures += 1
            self._try_at_s = self._clock.monotonic_s() + RETRY_FIRST_S * 2.0 ** (self._failures - 1)
            _log.warning(
                "%s: the new certificate %s was not taken, the old one goes on; next attempt in %.0f s",
                self._device_id, self._candidate[1].serial if self._candidate else "", RETRY_FIRST_S,
            )  # fmt: skip
            if self._failures >= PROOFS_FAILED_MAX:
                self._discard("it failed while the old one worked")

    def ended(self) -> None:
        """The connection ended or could not be made."""
        if self._candidate is None:
            return
        # Without a network both fail: they take turns until one of them is welcomed.
        self._suspect, self._trying = self._trying, False

    # --- asking and proving, beside the other tasks of a connection ---------------------------------------------

    async def run(self, session: Session, trusted_ms: Callable[[], int | None], busy: Callable[[], bool]) -> None:
        """Until the connection ends.

        Args:
            session: the present connection.
            trusted_ms: the cloud's time, None before the first welcome.
            busy: whether the connection must not be ended now (an emergency waits).

        Raises:
            TryNewCertificateError: a new certificate is to be tried now.
            LinkError: the connection broke, or the new certificate brought no welcome in time.
        """
        if self._trying:
            with suppress(TimeoutError):
                async with asyncio.timeout(PROVE_WITHIN_S):
                    while self._trying:
                        self._wake.clear()
                        await self._wake.wait()
            if self._trying:
                raise LinkError(f"no welcome within {PROVE_WITHIN_S:.0f} s with the new certificate")
        while True:
            self._wake.clear()
            if self._candidate is not None and self._may_try() and not busy():
                raise TryNewCertificateError("a new certificate is tried")
            now_ms = trusted_ms()
            if now_ms is not None and self._candidate is None:
                await self._ask_if_due(session, dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def _ask_if_due(self, session: Session, now: dt.datetime) -> None:
        if now < self._facts.renew_at and not self._next_key.exists():
            return
        now_s = self._clock.monotonic_s()
        self._tell_of_expiry(now, now_s)
        if now_s < self._ask_at_s:
            return
        self._ask_at_s = now_s + self._ask_pause_s
        self._ask_pause_s = min(ASK_MOST_S, 2 * self._ask_pause_s)
        try:
            request = keys.make_request(self._key_to_certify(), self._device_id)
        except OSError as error:
            _log.error("%s: no new certificate: %s cannot be written (%s)", self._device_id, self._next_key, error)
            return
        _log.info("%s: certificate ends on %s, asking for the next", self._device_id, f"{self._facts.not_after:%F}")
        message = CertificateRequest(self._device_id, request)
        await session.publish(UpChannel.CERTIFICATE, encode_credentials(message))

    def _tell_of_expiry(self, now: dt.datetime, now_s: float) -> None:
        left_days = (self._facts.not_after - now).total_seconds() / 86_400
        if left_days < 14 and now_s - self._expiry_told_s >= _EXPIRY_TOLD_EVERY_S:
            self._expiry_told_s = now_s
            _log.warning(
                "%s: the certificate ends in %.0f days and the cloud has not renewed it; see the device's page",
                self._device_id, max(0.0, left_days),
            )  # fmt: skip

    def _key_to_certify(self) -> bytes:
        with suppress(FileNotFoundError, ValueError):
            known = self._next_key.read_bytes()
            keys.fingerprint_of_key(known)
            return known
        fresh = keys.make_key()
        keys.write_whole(self._next_key, fresh)
        return fresh

    def on_answer(self, data: bytes) -> None:
        """A message on `down/certificate`; what is not for the key that waits is ignored."""
        try:
            answer = decode_certificate_answer(data)
        except EnvelopeError as error:
            _log.warning("%s: unreadable answer about a certificate: %s", self._device_id, error)
            return
        try:
            key = self._next_key.read_bytes()
            if self._candidate is not None or answer.fingerprint not in {keys.fingerprint_of_key(key), ""}:
                return
        except (OSError, ValueError):
            return
        if isinstance(answer, CertificateRefusal):
            self._refused(answer)
        else:
            self._granted(answer, key)

    def _refused(self, refusal: CertificateRefusal) -> None:
        _log.error("%s: the cloud does not renew the certificate: %s", self._device_id, refusal.reason)
        self._ask_at_s = self._clock.monotonic_s() + max(ASK_FIRST_S, min(refusal.retry_after_s, ASK_MOST_S))

    def _granted(self, grant: CertificateGrant, key: bytes) -> None:
        chain = grant.chain.encode()
        try:
            facts = facts_of_pem(chain)
            if facts.common_name != self._device_id:
                raise ValueError(f"it is for {facts.common_name!r}")
            if keys.fingerprint_of_certificate(chain) != grant.fingerprint:
                raise ValueError("it is for another key")
            keys.write_whole(self._next, key + chain)
            keys.remove(self._next_key)
        except (OSError, ValueError) as error:
            _log.error("%s: the new certificate cannot be used: %s", self._device_id, error)
            return
        self._ask_pause_s = ASK_FIRST_S
        self._take_up()
        self._wake.set()

    # --- the files ---------------------------------------------------------------------------------------------

    def _load(self, path: Path) -> tuple[ssl.SSLContext, CertificateFacts]:
        return load_tls_context(self._authority, path, path), facts_of(path)

    def _take_up(self) -> None:
        """Make a candidate of what lies on the disk, also after a crash at any step."""
        if not self._next.exists():
            return
        try:
            self._candidate = self._load(self._next)
        except IdentityError as error:
            self._discard(str(error))
            return
        self._suspect, self._failures, self._try_at_s = False, 0, 0.0
        if self._next_key.exists():
            keys.remove(self._next_key)

    def _discard(self, reason: str) -> None:
        _log.error("%s: the new certificate is discarded: %s", self._device_id, reason)
        self._candidate, self._suspect, self._trying, self._failures = None, False, False, 0
        with suppress(OSError):
            keys.remove(self._next)

    def _promote(self) -> None:
        assert self._candidate is not None
        try:
            keys.rename(self._next, self._identity)
        except OSError as error:  # it stays the candidate, and is tried first after a restart
            _log.error("%s: the new certificate could not be put in place: %s", self._device_id, error)
            self._wake.set()
            self._trying, self._try_at_s = False, self._clock.monotonic_s() + RETRY_FIRST_S
            return
        self._context, self._facts = self._candidate
        self._candidate, self._trying, self._suspect, self._failures = None, False, False, 0
        self.changed += 1
        self._wake.set()
        _log.info(
            "%s: certificate %s in use until %s", self._device_id, self._facts.serial, f"{self._facts.not_after:%F}"
        )
