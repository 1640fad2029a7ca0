"""What every kind's messages have in common: readings, events, commands and replies.

The pydantic models are the contract. The ingester's faster decoder is derived from them and held
equal by a property test (decision 14).
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.envelope import READINGS_PER_MESSAGE_MAX, Lane

EventId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="made by the hardware, unique for ever")]
CommandId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
EpochMs = Annotated[int, Field(ge=0, le=253_402_300_799_000, description="milliseconds since the Unix epoch, UTC")]

CLOCK_SKEW_PAST_S_MAX: Final = 90 * 86_400  # a device may have been offline for long, never for a quarter
CLOCK_SKEW_FUTURE_S_MAX: Final = 300


class Message(BaseModel):
    """A strict, immutable payload: unknown fields, wrong types and absurd values are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Reading(Message):
    """One set of measured values at one moment. Kinds subclass it; every number carries its unit."""

    at: EpochMs


class Telemetry(Message):
    """Payload of the telemetry lane; `readings` are ordered by `at`, oldest first. Kinds narrow the item type."""

    readings: Annotated[tuple[Reading, ...], Field(min_length=1, max_length=READINGS_PER_MESSAGE_MAX)]


class Event(Message):
    """Something that happened once. Subclasses add `type: Literal[…]`, their lane and their facts."""

    lane: ClassVar[Lane] = Lane.EVENT
    type: str
    event_id: EventId


class Command(Message):
    """Something a device is asked to do. Subclasses add `action: Literal[…]`, the arguments and the limit."""

    lifetime_s_max: ClassVar[float] = 10.0
    """Business seconds after which the device must refuse it."""
    roles: ClassVar[frozenset[str]] = frozenset({"admin"})
    """Who may ask for it directly; product services (a ride, a purchase) have rules of their own."""
    urgent: ClassVar[bool] = False
    """Feedback to somebody who calls for help: it goes before others, and their queue being full does not stop it."""
    action: str


class ReplyStatus(StrEnum):
    """How far a command came; the last four are final."""

    ACCEPTED = "accepted"
    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    EXPIRED = "expired"


FINAL_REPLIES: Final = frozenset({ReplyStatus.SUCCEEDED, ReplyStatus.FAILED, ReplyStatus.REFUSED, ReplyStatus.EXPIRED})

Reason = Literal[
    "",
    "expired",
    "replayed",
    "bad_signature",
    "unknown_key",
    "wrong_device",
    "wrong_generation",
    "untrusted_time",
    "unknown_action",
    "invalid_arguments",
    "busy",
    "jam",
    "output_not_empty",
    "heater_fault",
    "timeout",
    "cancelled",
    "link_lost",
    "power_lost",
    "out_of_stock",
    "lot_expired",
    "locked_out",
    "hardware_silent",
    "not_possible",
    "unknown",
]


class Reply(Message):
    """A device's answer to a command, on `up/reply`; the final one is repeated until acknowledged."""

    command_id: CommandId
    device_id: str
    status: ReplyStatus
    reason: Reason = ""
    at: EpochMs
