"""The online authorities: they sign devices, and servers and processes of ours, with an intermediate's key.

Two domains that never trust each other: the *devices* root is asked only who a device is, the *services* root only who
the broker and the cloud's processes are. A device's identity is the common name of its certificate; the broker takes
it as user name and client id, and its access list allows that name its own topics only. A device's key is made on the
device: what comes here is a request, and all that is taken from it is the public key.
"""

import datetime as dt
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cloud.identity import pki
from cloud.identity.pki import LEAF_DAYS, RequestRefusedError
from fleet.topics import is_device_id

__all__ = [
    "LEAF_DAYS", "Authority", "Credentials", "DeviceAuthority", "DeviceSigner", "IssuedCertificate",
    "RequestRefusedError", "Revoked", "command_key_id", "load_or_create_command_key", "public_pem", "write_secret",
]  # fmt: skip

SERVICE_NAME_PATTERN: Final = r"^fleet\.[a-z0-9-]{1,26}$"
"""The dot keeps a service's name out of the device ids: no device can be taken for the cloud."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts of one identity: the chain (leaf first, without the root) and its key, which is secret."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """What a requester gets back. `chain` is PEM: the leaf, then its intermediate. `serial` is lower-case hex."""

    chain: bytes
    serial: str
    not_before: dt.datetime
    not_after: dt.datetime


@dataclass(frozen=True, slots=True)
class Revoked:
    """One entry of a revocation list: `serial` in lower-case hex, `reason` named as in RFC 5280 (`keyCompromise`)."""

    serial: str
    revoked_at: dt.datetime
    reason: str = "unspecified"


class DeviceSigner(Protocol):
    """Who makes a certificate out of a device's request."""

    def sign(self, csr_pem: bytes, device_id: str, now: dt.datetime) -> IssuedCertificate:
        """A 90-day certificate for `device_id`. Raises RequestRefusedError."""


class Authority:
    """An intermediate with its key; `previous` are its forerunners, whose leaves have not all ended yet.

    `now` is always real UTC time, from the composition root.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        previous: Sequence[tuple[x509.Certificate, ec.EllipticCurvePrivateKey]] = (),
    ) -> None:
        self.certificate = certificate
        self._key = key
        self._previous = tuple(previous)

    def leaf(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        now: dt.datetime,
        *,
        hosts: Sequence[str] = (),
        days: float = LEAF_DAYS,
    ) -> IssuedCertificate:
        """Sign one leaf: a client's, or with `hosts` a server's."""
        made = pki.make_leaf(name, public_key, self.certificate, self._key, now, hosts=hosts, days=days)
        chain = pki.certificate_pem(made) + pki.certificate_pem(self.certificate)
        return IssuedCertificate(chain, pki.serial_hex(made), made.not_valid_before_utc, made.not_valid_after_utc)

    def issue_client(self, name: str, now: dt.datetime, *, days: float = LEAF_DAYS) -> Credentials:
        """Key and certificate of a process of ours; of a device only in demo, benches and bulk preparation."""
        key = pki.new_key()
        return Credentials(self.leaf(name, key.public_key(), now, days=days).chain, pki.key_pem(key))

    def issue_server(self, hosts: Sequence[str], now: dt.datetime) -> Credentials:
        """Key and certificate of a broker reachable under `hosts` (names or addresses)."""
        key = pki.new_key()
        return Credentials(self.leaf(hosts[0], key.public_key(), now, hosts=hosts).chain, pki.key_pem(key))

    def revocation_list(
        self, revoked: Iterable[Revoked], *, this_update: dt.datetime, next_update: dt.datetime, number: int
    ) -> bytes:
        """PEM: one list per living issuer, each with all entries, since a leaf is looked up at its own issuer.

        Raises:
            ValueError: a serial that is no hex number, or an unknown reason.
        """
        entries = [_entry(one) for one in sorted(revoked, key=lambda one: one.serial)]
        issuers = [(self.certificate, self._key), *self._previous]
        return b"".join(
            _signed_list(certificate, key, entries, this_update, next_update, number) for certificate, key in issuers
        )


class DeviceAuthority(Authority):
    """Signs the requests of devices."""

    def sign(self, csr_pem: bytes, device_id: str, now: dt.datetime) -> IssuedCertificate:
        """A 90-day client certificate for `device_id`, whatever subject the request asks for.

        Raises:
            RequestRefusedError: no P-256 request signed by its own key, or no device id.
        """
        if not is_device_id(device_id):
            raise RequestRefusedError(f"{device_id!r} is no device id; use 1 to 32 of a-z, 0-9 and hyphen")
        return self.leaf(device_id, pki.requested_key(csr_pem), now)


def _entry(one: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16)).revocation_date(one.revoked_at)
    flag = x509.ReasonFlags(one.reason)
    if flag is not x509.ReasonFlags.unspecified:  # RFC 5280: an unspecified reason is left out
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()


def _signed_list(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    entries: Sequence[x509.RevokedCertificate],
    this_update: dt.datetime,
    next_update: dt.datetime,
    number: int,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


# --- the key that signs commands ---------------------------------------------------------------------------------


def load_or_create_command_key(path: Path) -> ed25519.Ed25519PrivateKey:
    """The key that signs commands, from `path`; made there (mode 0600) if missing.

    Raises:
        TypeError: the file holds something else.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        write_secret(fresh, _command_pem(ed25519.Ed25519PrivateKey.generate()))
        with suppress(FileExistsError):  # several processes may start at once: one key counts, and is there as a whole
            os.link(fresh, path)
        fresh.unlink()
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError(  # noqa: TRY004  # a setting that names the wrong file, not a mistake in the code
            f"{path} holds no Ed25519 private key; remove it to have one made, or point command_key_file elsewhere"
        )
    return key


def command_key_id(key: ed25519.Ed25519PublicKey) -> str:
    """A short stable name of a command key: the first 16 hex digits of its SHA-256."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    return digest.finalize().hex()[:16]


def public_pem(key: ed25519.Ed25519PublicKey) -> bytes:
    """What devices are given to check commands with."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_secret(path: Path, content: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace a file as a whole; by default only its owner can read it, from its first byte on.

    `durable` waits until the disk has it.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            fresh.unlink()
        raise


def _command_pem(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
