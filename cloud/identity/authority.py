"""A small certificate authority: EC P-256, one root, leaves for the broker, the ingester and each device.

A device's identity is the common name of its certificate; the broker takes it as the user name and its
access list allows that name its own topics only. Keys are made where they are used; this authority makes
them itself only for the demo and tests, where device and authority are one machine.
"""

import datetime as dt
import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAF_DAYS: Final = 90
ROOT_DAYS: Final = 3650
_BACKDATED: Final = dt.timedelta(hours=1)  # a device whose clock is a little slow must not be locked out


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts of one identity; the key is secret."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs leaves with its root key. `now` is real UTC time, from the composition root."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, now: dt.datetime, name: str = "fleet root") -> "Authority":
        """A new root with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + dt.timedelta(days=ROOT_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        """The root's certificate, which every party trusts."""
        return self._certificate.public_bytes(Encoding.PEM)

    def issue_client(self, common_name: str, now: dt.datetime) -> Credentials:
        """Key and certificate of a device or of the ingester."""
        return self._issue(common_name, now, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def issue_server(self, hosts: list[str], now: dt.datetime) -> Credentials:
        """Key and certificate of a broker reachable under `hosts` (names or addresses)."""
        names = [_general_name(host) for host in hosts]
        return self._issue(hosts[0], now, ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(names))

    def _issue(
        self,
        common_name: str,
        now: dt.datetime,
        usage: x509.ObjectIdentifier,
        alternative_names: x509.SubjectAlternativeName | None,
    ) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + dt.timedelta(days=LEAF_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
        )
        if alternative_names is not None:
            builder = builder.add_extension(alternative_names, critical=False)
        return Credentials(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), _pem(key))


def load_or_create_command_key(path: Path) -> ed25519.Ed25519PrivateKey:
    """The key that signs commands, from `path`; made there (mode 0600) if missing.

    Raises:
        TypeError: the file holds something else.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        write_secret(fresh, _pem(ed25519.Ed25519PrivateKey.generate()))
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


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
