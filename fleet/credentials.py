"""How a device's certificate is renewed over its own connection: asked on `up/certificate`, answered on `down/…`.

The device makes a new key and a certificate request; the cloud answers with a certificate for that very key, the same
one however often the request is repeated. Nothing here is secret: a grant is worth nothing without the key.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fleet.envelope import DeviceId, EnvelopeError

REQUEST_CHARACTERS_MAX: Final = 4_096
CHAIN_CHARACTERS_MAX: Final = 16_384
REASON_CHARACTERS_MAX: Final = 300
MESSAGE_BYTES_MAX: Final = 32_768

Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the public key (DER)")]


class CertificateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device asks for a certificate for a key of its own; `request` is a PEM certificate request (PKCS 10)."""

    device_id: DeviceId
    request: Annotated[str, Meta(max_length=REQUEST_CHARACTERS_MAX)]


class CertificateGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="granted"):
    """The certificate for the key with this fingerprint: PEM, the leaf first, then what leads to the root."""

    fingerprint: Fingerprint
    chain: Annotated[str, Meta(max_length=CHAIN_CHARACTERS_MAX)]


class CertificateRefusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="refused"):
    """No certificate for that key, and why; asking again before `retry_after_s` (real seconds) is of no use."""

    fingerprint: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$", description="empty: the request was unreadable")]
    reason: Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)]
    retry_after_s: Annotated[int, Meta(ge=0, le=31_536_000)]


CertificateAnswer = CertificateGrant | CertificateRefusal

_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(CertificateRequest)
_answer_decoder = msgspec.json.Decoder(CertificateAnswer)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode_credentials(message: CertificateRequest | CertificateAnswer) -> bytes:
    """JSON bytes of a message."""
    return _encoder.encode(message)


def decode_certificate_request(data: bytes | memoryview) -> CertificateRequest:
    """Decode what a device sent on `up/certificate`; raises EnvelopeError."""
    _refuse_oversized(data)
    try:
        return _request_decoder.decode(data)
    except _UNREADABLE as error:
        raise EnvelopeError(str(error)) from error


def decode_certificate_answer(data: bytes | memoryview) -> CertificateAnswer:
    """Decode what the cloud sent on `down/certificate`; raises EnvelopeError."""
    _refuse_oversized(data)
    try:
        answer: CertificateAnswer = _answer_decoder.decode(data)
    except _UNREADABLE as error:
        raise EnvelopeError(str(error)) from error
    return answer


def _refuse_oversized(data: bytes | memoryview) -> None:
    if len(data) > MESSAGE_BYTES_MAX:
        raise EnvelopeError(f"{len(data)} bytes, more than {MESSAGE_BYTES_MAX}")
