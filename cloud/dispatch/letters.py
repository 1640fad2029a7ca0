"""Rows of the outbox: for whom, through which channel, how urgent, and what stands in them."""

from typing import Any, Final

import msgspec

from cloud.dispatch.rows import identity
from cloud.model import Notification

INBOX: Final = "inbox"
"""Name of the channel that is the application itself; it exists in every configuration."""
PERSON: Final = "person"
"""A notice for one person that is no emergency: what that person wants decides where it goes (`personal`)."""
PERSONAL_STAGES: Final = {"push": 0, "chat": 0, "mail": 0, "sms": 1, "voice": 2}
"""Channels that lead to one person, and when an emergency takes them: see `audience.STAGES_AFTER_S`."""

ORDINARY: Final = 0
EMERGENCY: Final = 1
FOLLOW_UP: Final = 2
"""Urgencies of rows. What became of an emergency waits behind no flood, and no emergency waits behind it."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Notification)


def encode(notification: Notification) -> str:
    """JSON as stored in `outbox` and `inbox`."""
    return _encoder.encode(notification).decode()


def decode(text: str) -> Notification:
    """The notification from its row."""
    return _decoder.decode(text)


def row_of(
    notification: Notification,
    step: str,
    channel: str,
    *,
    urgent: int,
    available_at: int,
    recipient: str = "",
    contact_id: str = "",
    stage: int = 0,
) -> dict[str, Any]:
    """One row of the outbox."""
    return {
        "delivery_id": delivery_id(notification, step, channel, contact_id or recipient),
        "channel": channel,
        "reference": notification.reference,
        "recipient": recipient,
        "contact_id": contact_id,
        "step": step,
        "stage": stage,
        "notification": encode(notification),
        "urgent": int(urgent),
        "created_at": notification.created_at,
        "available_at": available_at,
    }


def delivery_id(notification: Notification, step: str, channel: str, to: str = "") -> str:
    """The same for the same notification, channel and receiver, for ever: a repeat is known by it."""
    return identity(notification.kind_of, notification.reference, step, channel, *([to] if to else []))
