"""What a device wraps around every payload, and what the cloud answers.

The key of a message is `(device_id, boot_epoch, lane, seq)`. `seq` runs from 1 without holes per lane
and storage generation: it goes on across reboots, because it lives in the device's journal, so the
cloud accepts exactly the next one and asks again for anything else (ADR 0002). A device that lost its
storage is granted the next generation, so it never repeats a key.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from fleet.topics import DEVICE_ID_PATTERN

T = TypeVar("T")

VERSION: Final = 1
ACCEPTED_VERSIONS: Final = frozenset({1})  # the cloud takes N and N-1 during a staged rollout
MESSAGE_BYTES_MAX: Final = 65_536
READINGS_PER_MESSAGE_MAX: Final = 64

COMMAND_KEYS_MAX: Final = 8

BOOTS_PER_GENERATION: Final = 1 << 20

DeviceId = Annotated[str, Meta(pattern=DEVICE_ID_PATTERN)]
KindName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
EpochMs = Annotated[int, Meta(ge=0, le=253_402_300_799_000, description="milliseconds since the Unix epoch, UTC")]
KeyId = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}$", description="name of a command key")]
Seq = Annotated[int, Meta(ge=1, le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]  # fits every database's integers, and JSON's numbers exactly


class Lane(StrEnum):
    """One ordered stream of a device's journal; emergencies never queue behind anything."""

    EMERGENCY = "emergency"
    EVENT = "event"
    TELEMETRY = "telemetry"


class TimeQuality(StrEnum):
    """How sure a time stamp is."""

    EXACT = ""
    CORRECTED = "corrected"
    """Made before the device knew the time, corrected since."""
    UNCERTAIN = "uncertain"
    """The device did not know the time, and nobody can say by how much it was off; the order holds."""


class EnvelopeError(ValueError):
    """Bytes that are no envelope; nothing in them can be acknowledged."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One journalled message of a device.

    `occurred_at` is the device's own time in ms since the epoch. `evicted_from` is set when the
    device had to discard the messages `evicted_from … seq - 1` of this lane before this one.
    `time_quality` speaks of `occurred_at` and of the readings' times.
    """

    version: int
    kind: KindName
    device_id: DeviceId
    boot_epoch: Count
    lane: Lane
    seq: Seq
    occurred_at: EpochMs
    payload: msgspec.Raw
    evicted_from: Seq | None = None
    time_quality: TimeQuality = TimeQuality.EXACT

    @property
    def generation(self) -> int:
        """Storage generation granted by the cloud."""
        return self.boot_epoch // BOOTS_PER_GENERATION


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message that was quarantined: acknowledged, never to be sent again, with the reason."""

    lane: Lane
    seq: Seq
    reason: Annotated[str, Meta(max_length=200)]


class Acknowledgement(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="ack"
):
    """Application acknowledgement: everything up to `marks[lane]` is committed in the cloud.

    `resend` names lanes in which the cloud saw a gap: the device goes back to mark + 1.
    `replies` are command ids whose final reply is committed.
    Without a `signature` (`<key id>:<base64>`, of `signing.acknowledgement_bytes`) it speaks of telemetry alone: nobody
    but the cloud can make a device forget an event, an emergency or a reply (ADR 0015).
    """

    generation: int
    marks: dict[Lane, int]
    resend: tuple[Lane, ...] = ()
    refused: tuple[Refused, ...] = ()
    replies: tuple[str, ...] = ()
    greet: bool = False
    """Say hello: there is news that only a signed welcome may carry, such as new command keys."""
    signature: Annotated[str, Meta(max_length=150)] = ""


class CommandKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public keys (key id → raw Ed25519 key in base64) whose commands a device shall accept from now on.

    It replaces what the device trusted before. `version` grows with every change and never goes back.
    """

    version: Count
    keys: Annotated[dict[KeyId, Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=COMMAND_KEYS_MAX)]


class Welcome(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="welcome"
):
    """Answer to a hello: authenticated time, the storage generation, and where each lane stands.

    `signature` (base64, Ed25519 of the cloud's command key) covers `signing.welcome_bytes`.
    """

    nonce: str
    time_ms: EpochMs
    generation: int
    marks: dict[Lane, int]
    signature: str = ""
    command_keys: CommandKeys | None = None
    """Set when the hello listed other keys than these."""
    emergency_digest: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?$")] = ""
    """`content_digest` of the emergency at `marks["emergency"]`; empty if the cloud doesn't know it."""


Downlink = Acknowledgement | Welcome


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First message of every connection; `storage_id` is made together with the journal."""

    version: int
    kind: KindName
    device_id: DeviceId
    storage_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    generation: Annotated[int, Meta(ge=0, le=2**32)]
    boots: Annotated[int, Meta(ge=0, lt=BOOTS_PER_GENERATION)]
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    firmware: Annotated[str, Meta(max_length=64)]
    boot_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$", description="random per start of the device's process")]
    certificate: Annotated[
        str, Meta(pattern=r"^[0-9a-f]{0,40}$", description="serial of the client certificate in use; empty: none")
    ] = ""
    command_keys: Annotated[
        tuple[KeyId, ...], Meta(max_length=COMMAND_KEYS_MAX, description="keys whose commands it accepts, sorted")
    ] = ()
    temporary: Annotated[
        bool, Meta(description="the storage lives in memory until the disk lets the device have its own again")
    ] = False


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Link state; `online: false` is the last will. (boot_epoch, connection) orders them: stale wills are rejected."""

    device_id: DeviceId
    boot_epoch: Count
    connection: Count
    online: bool


def boot_epoch(generation: int, boots: int) -> int:
    """Combine the granted storage generation (≥ 1) and the local boot count into one ordered number."""
    if not 0 <= boots < BOOTS_PER_GENERATION:
        raise ValueError(f"boot count {boots} is outside 0 … {BOOTS_PER_GENERATION - 1}")
    return generation * BOOTS_PER_GENERATION + boots


def content_digest(envelope: Envelope) -> str:
    """Tells whether two messages under one number are the same one; the time stamp may be corrected in between."""
    start = f"{envelope.boot_epoch} {envelope.lane.value} {envelope.seq} ".encode()
    return hashlib.blake2b(start + bytes(envelope.payload), digest_size=16).hexdigest()


_encoder = msgspec.json.Encoder()
_envelope_decoder = msgspec.json.Decoder(Envelope)
_hello_decoder = msgspec.json.Decoder(Hello)
_status_decoder = msgspec.json.Decoder(Status)
_downlink_decoder = msgspec.json.Decoder(Downlink)


def encode(message: Envelope | Hello | Status | Downlink) -> bytes:
    """JSON bytes of a message, no white space."""
    return _encoder.encode(message)


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | memoryview) -> T:
    if len(data) > MESSAGE_BYTES_MAX:
        raise EnvelopeError(f"{len(data)} bytes, more than {MESSAGE_BYTES_MAX}")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(str(error)) from error


def decode(data: bytes | memoryview) -> Envelope:
    """Decode an envelope; its payload stays raw JSON.

    Raises:
        EnvelopeError: oversized, not JSON, wrong schema, or a version this release does not accept.
    """
    envelope = _decode(_envelope_decoder, data)
    if envelope.version not in ACCEPTED_VERSIONS:
        raise EnvelopeError(
            f"envelope version {envelope.version} is not accepted (accepted: {sorted(ACCEPTED_VERSIONS)})"
        )
    return envelope


def decode_hello(data: bytes | memoryview) -> Hello:
    """Decode a hello; raises EnvelopeError."""
    return _decode(_hello_decoder, data)


def decode_status(data: bytes | memoryview) -> Status:
    """Decode a status or last will; raises EnvelopeError."""
    return _decode(_status_decoder, data)


def decode_downlink(data: bytes | memoryview) -> Downlink:
    """Decode what the cloud published on `down/ack`; raises EnvelopeError."""
    message: Downlink = _decode(_downlink_decoder, data)
    return message
