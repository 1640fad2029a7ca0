"""Signed, expiring commands and signed time.

The signature covers the very bytes that travel, so no canonical form is needed. Keys and the Ed25519
primitive come in as arguments: this module neither loads nor imports a cryptographic library.
"""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

import msgspec
from msgspec import Meta

from fleet.envelope import Acknowledgement, CommandKeys, DeviceId, EnvelopeError, EpochMs, KeyId, Welcome

COMMAND_BYTES_MAX: Final = 16_384
_COMMAND_CONTEXT: Final = b"fleet-command-1\x00"  # keeps a signature from being reused for another purpose
_WELCOME_CONTEXT: Final = b"fleet-welcome-1\x00"
_ACKNOWLEDGEMENT_CONTEXT: Final = b"fleet-acknowledgement-1\x00"

HexId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]


class Signer(Protocol):
    """The cloud's command key (cryptography's Ed25519PrivateKey fits)."""

    def sign(self, data: bytes, /) -> bytes: ...


class Verifier(Protocol):
    """Its public half (Ed25519PublicKey fits); raises any exception on a wrong signature."""

    def verify(self, signature: bytes, data: bytes, /) -> None: ...


PUBLIC_KEY_BYTES: Final = 32  # of Ed25519, RFC 8032


def announce_keys(version: int, public_keys: Mapping[str, bytes]) -> CommandKeys:
    """What a welcome tells devices to trust, from raw public keys by key id."""
    return CommandKeys(
        version, {key_id: base64.b64encode(public_keys[key_id]).decode() for key_id in sorted(public_keys)}
    )


def announced_keys(announcement: CommandKeys) -> dict[str, bytes]:
    """Raw public keys by key id; raises EnvelopeError if one of them is none."""
    found = {}
    for key_id, text in announcement.keys.items():
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise EnvelopeError(f"command key {key_id} is not base64") from error
        if len(raw) != PUBLIC_KEY_BYTES:
            raise EnvelopeError(f"command key {key_id} has {len(raw)} bytes, not {PUBLIC_KEY_BYTES}")
        found[key_id] = raw
    return found


class CommandOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command for one device and one storage generation, valid until `not_after` (business ms)."""

    id: HexId
    device_id: DeviceId
    generation: int
    issued_at: EpochMs
    not_after: EpochMs
    command: msgspec.Raw
    """JSON of the kind's Command model, `action` included."""


class SignedCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What travels on `down/command`: the order's bytes as text, the key that signed, the signature in base64."""

    order: str
    key_id: KeyId
    signature: Annotated[str, Meta(max_length=100)]


class BadSignatureError(EnvelopeError):
    """The bytes were not signed by a key the device trusts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_signed_decoder = msgspec.json.Decoder(SignedCommand)
_order_decoder = msgspec.json.Decoder(CommandOrder)


def sign_command(order: CommandOrder, key_id: str, signer: Signer) -> bytes:
    """Bytes for `down/command`."""
    body = msgspec.json.encode(order)
    signature = base64.b64encode(signer.sign(_COMMAND_CONTEXT + body)).decode()
    return msgspec.json.encode(SignedCommand(body.decode(), key_id, signature))


def verify_command(data: bytes, verifiers: Mapping[str, Verifier]) -> CommandOrder:
    """Check the signature, then decode what it covers. Device, generation and time are the caller's to check.

    Raises:
        BadSignatureError: with `reason` `unknown_key` or `bad_signature`.
        EnvelopeError: the bytes are no signed command.
    """
    if len(data) > COMMAND_BYTES_MAX:
        raise EnvelopeError(f"command of {len(data)} bytes, more than {COMMAND_BYTES_MAX}")
    try:
        signed = _signed_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(str(error)) from error
    if msgspec.json.encode(signed) != data:  # one command has one spelling: what differs in a bit was changed
        raise EnvelopeError("not as it was signed")
    body = signed.order.encode()
    _verify(verifiers, signed.key_id, signed.signature, _COMMAND_CONTEXT + body)
    try:
        return _order_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(str(error)) from error


def welcome_bytes(welcome: Welcome, device_id: str) -> bytes:
    """The bytes a welcome's signature covers: everything but the signature, and the device it is for."""
    unsigned: dict[str, Any] = {
        "device_id": device_id,
        "nonce": welcome.nonce,
        "time_ms": welcome.time_ms,
        "generation": welcome.generation,
        "marks": welcome.marks,
    }
    if welcome.command_keys is not None:
        unsigned["command_keys"] = welcome.command_keys
    if welcome.emergency_digest:
        unsigned["emergency_digest"] = welcome.emergency_digest
    return _WELCOME_CONTEXT + msgspec.json.encode(unsigned, order="sorted")


def sign_welcome(welcome: Welcome, device_id: str, key_id: str, signer: Signer) -> Welcome:
    """The same welcome with `signature` = `<key_id>:<base64>`."""
    signature = base64.b64encode(signer.sign(welcome_bytes(welcome, device_id))).decode()
    return msgspec.structs.replace(welcome, signature=f"{key_id}:{signature}")


def verify_welcome(welcome: Welcome, device_id: str, verifiers: Mapping[str, Verifier]) -> None:
    """Raises BadSignatureError unless a trusted key signed this welcome for this device. The nonce is not checked."""
    key_id, _, signature = welcome.signature.partition(":")
    _verify(verifiers, key_id, signature, welcome_bytes(welcome, device_id))


def acknowledgement_bytes(acknowledgement: Acknowledgement, device_id: str) -> bytes:
    """The bytes an acknowledgement's signature covers: everything but the signature, and the device it is for."""
    unsigned = msgspec.structs.replace(acknowledgement, signature="")
    return _ACKNOWLEDGEMENT_CONTEXT + msgspec.json.encode([device_id, unsigned], order="sorted")


def sign_acknowledgement(
    acknowledgement: Acknowledgement, device_id: str, key_id: str, signer: Signer
) -> Acknowledgement:
    """The same acknowledgement with its `signature`; played again it says nothing new, because marks only grow."""
    signature = base64.b64encode(signer.sign(acknowledgement_bytes(acknowledgement, device_id))).decode()
    return msgspec.structs.replace(acknowledgement, signature=f"{key_id}:{signature}")


def verify_acknowledgement(acknowledgement: Acknowledgement, device_id: str, verifiers: Mapping[str, Verifier]) -> None:
    """Raises BadSignatureError unless a trusted key signed this acknowledgement for this device."""
    key_id, _, signature = acknowledgement.signature.partition(":")
    _verify(verifiers, key_id, signature, acknowledgement_bytes(acknowledgement, device_id))


def _verify(verifiers: Mapping[str, Verifier], key_id: str, signature: str, data: bytes) -> None:
    verifier = verifiers.get(key_id)
    if verifier is None:
        raise BadSignatureError("unknown_key")
    try:
        raw = base64.b64decode(signature, validate=True)
        if base64.b64encode(raw).decode() != signature:
            raise ValueError("not canonical base64")
        verifier.verify(raw, data)
    except Exception as error:  # the library's InvalidSignature is not known here; any failure means "not signed"
        raise BadSignatureError("bad_signature") from error
