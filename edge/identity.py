"""Who this device is and whom it trusts: its key and certificate, the authority, the cloud's command keys."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.signing import Verifier


class IdentityError(ValueError):
    """A key or certificate cannot be used; the text names the file."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`tls` None: plain connection, for a broker on the same host. `verifiers`: key id → public command key."""

    tls: ssl.SSLContext | None = None
    verifiers: Mapping[str, Verifier] = field(default_factory=dict)


def load_tls_context(authority: Path, certificate: Path, private_key: Path) -> ssl.SSLContext:
    """TLS ≥ 1.2 with our certificate, trusting `authority` alone; raises IdentityError."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"certificate authority {authority}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(str(certificate), str(private_key))
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"certificate {certificate} with key {private_key}: {error}") from error
    return context


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
