"""The certificates themselves: how a root, an intermediate and a leaf look. EC P-256 and SHA-256 throughout.

Pure functions over keys and real UTC times; where the files lie is `pki_folder`'s matter.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from typing import Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT_DAYS: Final = 7300
INTERMEDIATE_DAYS: Final = 1095
LEAF_DAYS: Final = 90
BACKDATED: Final = dt.timedelta(hours=1)
"""A device whose clock is a little slow must not be locked out."""
REQUEST_BYTES_MAX: Final = 8192


class PkiError(RuntimeError):
    """Something is missing, in the way or doesn't fit together; the text names the fix."""


class RequestRefusedError(ValueError):
    """A certificate request that is not signed; the text names the fix."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS 8; encrypted if there is a passphrase."""
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM text of one certificate."""
    return certificate.public_bytes(Encoding.PEM)


def serial_hex(certificate: x509.Certificate) -> str:
    """Serial number as we write it everywhere: lower-case hex without leading zeros."""
    return f"{certificate.serial_number:x}"


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name; "" if it has none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def short_name(key: ec.EllipticCurvePrivateKey) -> str:
    """The first 8 hex digits of what identifies a key."""
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]


def make_root(name: str, key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    """Self-signed; may have intermediates below it, and those leaves only."""
    builder = _builder(name, key.public_key(), name_of(name), now, now + dt.timedelta(days=ROOT_DAYS))
    return _authority(builder, key.public_key(), path_length=1).sign(key, hashes.SHA256())


def make_intermediate(
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.Certificate:
    """Signed by the root; signs leaves and their revocation list."""
    until = min(now + dt.timedelta(days=INTERMEDIATE_DAYS), root.not_valid_after_utc)
    builder = _builder(name, public_key, root.subject, now, until)
    builder = _authority(builder, public_key, path_length=0).add_extension(_identifier_of(root), critical=False)
    return builder.sign(root_key, hashes.SHA256())


def make_leaf(
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    *,
    hosts: Sequence[str] = (),
    days: float = LEAF_DAYS,
) -> x509.Certificate:
    """A client's certificate, or a server's if `hosts` (names or addresses) are given.

    It never outlives its issuer, so that a chain ends as a whole and not at its second link.
    """
    until = min(now + dt.timedelta(days=days), issuer.not_valid_after_utc)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(name, public_key, issuer.subject, min(now, until - BACKDATED), until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_identifier_of(issuer), critical=False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def make_request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM of a certificate request, as a device makes it."""
    request = x509.CertificateSigningRequestBuilder().subject_name(name_of(name)).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def requested_key(request_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key that a request proves to hold. Nothing else of the request is used: subject and usage are ours.

    Raises:
        RequestRefusedError: not a request, another kind of key, or not signed by that key.
    """
    if len(request_pem) > REQUEST_BYTES_MAX:
        raise RequestRefusedError(f"the certificate request is larger than {REQUEST_BYTES_MAX} bytes; send a plain one")
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise RequestRefusedError("this is no PEM certificate request; make one with a P-256 key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestRefusedError("the request's key is not EC P-256; make a new P-256 key and request")
    if not valid:
        raise RequestRefusedError("the request is not signed by its own key; make it again on the device")
    return key


def load_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM text. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem)


def load_key(pem: bytes, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """A P-256 private key. Raises ValueError (also for a wrong or missing passphrase)."""
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except TypeError as error:  # a passphrase is missing, or there is one too many
        raise ValueError(str(error)) from error
    except UnsupportedAlgorithm as error:
        raise ValueError(f"no usable private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the private key is not EC P-256")  # noqa: TRY004  # a wrong file, not a mistake in the code
    return key


def same_key(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    """Whether certificate and private key belong together."""
    return cast("object", certificate.public_key()) == key.public_key()


def name_of(common: str) -> x509.Name:
    """A subject with a common name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    name: str, public_key: ec.EllipticCurvePublicKey, issuer: x509.Name, now: dt.datetime, until: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name_of(name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
    )


def _authority(
    builder: x509.CertificateBuilder, public_key: ec.EllipticCurvePublicKey, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _identifier_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject)


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
