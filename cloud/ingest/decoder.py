"""A fast decoder for telemetry, derived from the kind's pydantic model.

pydantic is the contract. For every reading that is made of plain fields the same rules are rebuilt as
a msgspec struct (three to five times cheaper per message); a property test holds both equal. A model
with validators of its own, or a field this file cannot translate, is decoded by pydantic itself.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta
from pydantic import Field, TypeAdapter, ValidationError, create_model

from cloud.derived_models import UntranslatableError, struct_of
from cloud.model import Inbound
from fleet import envelope as envelopes
from fleet.envelope import (
    ACCEPTED_VERSIONS,
    MESSAGE_BYTES_MAX,
    READINGS_PER_MESSAGE_MAX,
    Envelope,
    EnvelopeError,
    EpochMs,
    Lane,
    Seq,
    TimeQuality,
)
from fleet.kind import Kind
from fleet.messages import Event
from fleet.topics import UpChannel, up


class PayloadError(ValueError):
    """The envelope is sound, its payload is not what the kind defines."""


def telemetry_decoder(kind: Kind) -> Callable[[bytes], Any]:
    """Decoder of whole telemetry messages: bytes → an object with the header's fields and `payload.readings`.

    The result raises msgspec.ValidationError or msgspec.DecodeError for anything else; the caller then
    takes the slow way to learn what exactly is wrong.
    """
    try:
        reading: Any = struct_of(kind.reading)
    except UntranslatableError:
        return _slow_telemetry_decoder(kind)
    readings = Annotated[tuple[reading, ...], Meta(min_length=1, max_length=READINGS_PER_MESSAGE_MAX)]
    payload = msgspec.defstruct(
        f"{kind.name}_telemetry", [("readings", readings)], frozen=True, forbid_unknown_fields=True, gc=False
    )
    # What the caller compares anyway (the device with its topic) needs no pattern here: a regular expression
    # for each message costs as much as the rest of its header.
    header: list[Any] = [
        ("version", Literal[tuple(sorted(ACCEPTED_VERSIONS))]),
        ("kind", Literal[kind.name]),
        ("device_id", str),
        ("boot_epoch", Annotated[int, Meta(ge=0, le=2**53)]),
        ("lane", Literal["telemetry"]),
        ("seq", Seq),
        ("occurred_at", EpochMs),
        ("payload", payload),
        ("evicted_from", Union[Seq, None], None),  # noqa: UP007  # Seq is an Annotated alias at run time
        ("time_quality", TimeQuality, TimeQuality.EXACT),
    ]
    message = msgspec.defstruct(
        f"{kind.name}_telemetry_envelope", header, frozen=True, forbid_unknown_fields=True, gc=False
    )
    return msgspec.json.Decoder(message).decode


def _slow_telemetry_decoder(kind: Kind) -> Callable[[bytes], Any]:
    envelope_decoder = msgspec.json.Decoder(Envelope)
    holder = _payload_adapter(kind)

    class Whole:
        """Header and payload with the attributes of the derived struct."""

        def __init__(self, envelope: Envelope, payload: Any) -> None:
            self.__dict__.update({name: getattr(envelope, name) for name in envelope.__struct_fields__})
            self.payload = payload

    def decode(data: bytes) -> Any:
        envelope = envelope_decoder.decode(data)
        try:
            return Whole(envelope, holder(bytes(envelope.payload)))
        except PayloadError as error:
            raise msgspec.ValidationError(str(error)) from error

    return decode


def _payload_adapter(kind: Kind) -> Callable[[bytes], Any]:
    items = Annotated[tuple[kind.reading, ...], Field(min_length=1, max_length=READINGS_PER_MESSAGE_MAX)]  # type: ignore[name-defined]
    model = create_model(f"{kind.name}_telemetry", __config__=kind.reading.model_config, readings=(items, ...))

    def decode(data: bytes) -> Any:
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            raise PayloadError(first_problem(error)) from error

    return decode


def payload_decoder(kind: Kind, lane: Lane) -> Callable[[bytes], Any]:
    """Pydantic's decoder for one lane's payload; raises PayloadError with the first problem."""
    if lane is Lane.TELEMETRY:
        return _payload_adapter(kind)
    models = tuple(model for model in kind.events if model.lane is lane)
    if not models:

        def refuse(_data: bytes) -> Any:
            raise PayloadError(f"kind {kind.name} has no events in lane {lane.value}")

        return refuse
    union: Any = models[0] if len(models) == 1 else Annotated[Union[models], Field(discriminator="type")]  # noqa: UP007
    adapter: TypeAdapter[Event] = TypeAdapter(union)

    def decode(data: bytes) -> Any:
        try:
            return adapter.validate_json(data)
        except ValidationError as error:
            raise PayloadError(first_problem(error)) from error

    return decode


def first_problem(error: ValidationError) -> str:
    """One line for people: where and what."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}"[:200]


def decode_envelope(data: bytes) -> Envelope:
    """The header of any message, payload raw; raises EnvelopeError."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise EnvelopeError(f"{len(data)} bytes, more than {MESSAGE_BYTES_MAX}")
    return envelopes.decode(data)


class WholeMessage:
    """Header and payload of a telemetry message that took the slow way."""

    __slots__ = ("boot_epoch", "device_id", "kind", "occurred_at", "payload", "seq")

    def __init__(self, envelope: Any, payload: Any) -> None:
        self.boot_epoch = envelope.boot_epoch
        self.device_id = envelope.device_id
        self.kind = envelope.kind
        self.occurred_at = envelope.occurred_at
        self.seq = envelope.seq
        self.payload = payload


class _Header(msgspec.Struct):
    device_id: str


def as_inbound(envelopes: Iterable[bytes]) -> list[Inbound]:
    """Telemetry from our own spool, as the broker brought it; it asks for no PUBACK."""
    header = msgspec.json.Decoder(_Header)
    return [Inbound(up(header.decode(raw).device_id, UpChannel.TELEMETRY), raw, 0, 0) for raw in envelopes]
