"""Keys of the device: made here, written so that only their owner reads them, never sent. Loads cryptography late."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


def make_key() -> bytes:
    """PEM of a fresh EC P-256 key."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # large, once
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_request(key_pem: bytes, device_id: str) -> str:
    """PEM of a certificate request signed by the key. The name in it is a wish: the cloud decides."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(_key(key_pem), hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def fingerprint_of_key(key_pem: bytes) -> str:
    """SHA-256 of the public key, hex; raises ValueError for bytes that are no key."""
    return _fingerprint(_key(key_pem).public_key())


def fingerprint_of_certificate(pem: bytes) -> str:
    """The same of the key in a certificate; raises ValueError."""
    from cryptography import x509  # noqa: PLC0415

    return _fingerprint(x509.load_pem_x509_certificate(pem).public_key())


def _key(key_pem: bytes) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    return cast("EllipticCurvePrivateKey", load_pem_private_key(key_pem, None))


def _fingerprint(public_key: object) -> str:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    if not isinstance(public_key, EllipticCurvePublicKey):
        raise ValueError("no elliptic-curve key")  # noqa: TRY004  # a wrong file, not a mistake in the code
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `content`, durably: after a crash either the old or the new file is there, never a part."""
    fresh = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        rename(fresh, path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
        raise


def rename(old: Path, new: Path) -> None:
    """Rename over what is there, durably."""
    old.replace(new)
    sync_folder(new.parent)


def remove(path: Path) -> None:
    """Remove a file if it is there, durably."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
