"""Who this device is and whom it trusts: its key and certificate, the authority, the cloud's command keys."""

import datetime as dt
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fleet.signing import Verifier

if TYPE_CHECKING:
    from edge.credentials import Credentials

_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name."""


class IdentityError(ValueError):
    """A key or certificate cannot be used; the text names the file."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`tls` None: plain connection, for a broker on the same host. `verifiers`: key id → public command key."""

    tls: ssl.SSLContext | None = None
    verifiers: Mapping[str, Verifier] = field(default_factory=dict)
    credentials: "Credentials | None" = None
    """Knows which certificate a connection uses, and keeps it valid; None without TLS."""

    def tls_source(self) -> ssl.SSLContext | Callable[[], ssl.SSLContext] | None:
        """What each connection uses: always the same, or what the renewal says."""
        renewal = None if self.credentials is None else self.credentials.renewal
        return self.tls if renewal is None else renewal.tls


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What matters of a certificate of ours. `serial` is lower-case hex; times are UTC."""

    serial: str
    common_name: str
    not_before: dt.datetime
    not_after: dt.datetime

    @property
    def renew_at(self) -> dt.datetime:
        """Two thirds of its life are over."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3


def load_tls_context(authority: Path, certificate: Path, private_key: Path) -> ssl.SSLContext:
    """TLS ≥ 1.2 with our certificate, trusting `authority` alone; raises IdentityError.

    Chain, signature and name of the broker's certificate are checked, its dates are not: a box may not know what year
    it is until the cloud has told it under its signature. The link checks them by that time (ADR 0012).
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"certificate authority {authority}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    try:
        context.load_cert_chain(str(certificate), str(private_key))
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"certificate {certificate} with key {private_key}: {error}") from error
    return context


def facts_of(certificate: Path) -> CertificateFacts:
    """Serial, name and dates of the first certificate in a PEM file; raises IdentityError."""
    try:
        return facts_of_pem(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise IdentityError(f"certificate {certificate}: {error}") from error


def facts_of_pem(pem: bytes) -> CertificateFacts:
    """The same of a PEM text; raises ValueError."""
    from cryptography import x509  # noqa: PLC0415  # large, once
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    found = x509.load_pem_x509_certificate(pem)
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return CertificateFacts(
        f"{found.serial_number:x}",
        str(names[0].value) if names else "",
        found.not_valid_before_utc,
        found.not_valid_after_utc,
    )


def load_verifiers(public_keys: Mapping[str, Path]) -> dict[str, Verifier]:
    """Trusted command keys from PEM files, by key id; raises IdentityError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415  # large, once
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    verifiers: dict[str, Verifier] = {}
    for key_id, path in public_keys.items():
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise IdentityError(f"command key {key_id!r} in {path}: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise IdentityError(f"command key {key_id!r} in {path} is no Ed25519 public key")
        verifiers[key_id] = key
    return verifiers
