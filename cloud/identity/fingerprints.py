"""Names of keys: the SHA-256 of the public key, as people compare it and rows hold it."""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.identity.pki import requested_key
from fleet.claim import pin_of


def fingerprint_of_request(request_pem: bytes) -> str:
    """Of the key that a certificate request proves to hold, hex; raises RequestRefusedError."""
    return hashlib.sha256(
        requested_key(request_pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def pin_of_root(root_pem: bytes) -> bytes:
    """The pin that claims carry of a root certificate; raises ValueError."""
    return pin_of(x509.load_pem_x509_certificate(root_pem).public_bytes(Encoding.DER))
