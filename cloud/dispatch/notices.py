"""Notifications on their way into the outbox, and out of it again when they are no longer needed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from cloud.dispatch.rows import identity, insert_new
from cloud.model import Notification
from cloud.tables import device, outbox, person

INBOX: Final = "inbox"
"""Name of the channel that is the application itself; it exists in every configuration."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Notification)
_waiting = outbox.c.delivered_at.is_(None) & outbox.c.given_up_at.is_(None)

# Also what is in a worker's hands: its delivery can't be recalled, but a failed one is not repeated.
_withdraw: Final = (
    update(outbox)
    .where(_waiting, outbox.c.reference == bindparam("b_reference"), outbox.c.urgent == bindparam("b_urgent"))
    .values(given_up_at=bindparam("b_at"), last_error=bindparam("b_reason"))
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is, for people."""

    name: str
    latitude: float | None
    longitude: float | None

    def facts(self) -> dict[str, Any]:
        """For the facts of a notification."""
        return {"device_name": self.name, "latitude": self.latitude, "longitude": self.longitude}


def places(tx: Connection, device_ids: Iterable[str]) -> dict[str, Place]:
    """Names and positions by device id; a device without a name goes by its id."""
    wanted = sorted(set(device_ids))
    found = {identifier: Place(identifier, None, None) for identifier in wanted}
    if wanted:
        columns = (device.c.device_id, device.c.name, device.c.latitude, device.c.longitude)
        for row in tx.execute(select(*columns).where(device.c.device_id.in_(wanted))):
            found[row.device_id] = Place(row.name or row.device_id, row.latitude, row.longitude)
    return found


def person_name(tx: Connection, identifier: str) -> str:
    """A person's name, or the identifier of somebody we do not know."""
    return tx.scalar(select(person.c.name).where(person.c.id == identifier)) or identifier


def encode(notification: Notification) -> str:
    """JSON as stored in `outbox` and `inbox`."""
    return _encoder.encode(notification).decode()


def decode(text: str) -> Notification:
    """The notification from its row."""
    return _decoder.decode(text)


def outbox_rows(
    notification: Notification, step: str, channels: Sequence[str], *, urgent: bool, available_at: int
) -> list[dict[str, Any]]:
    """One row per channel; `step` tells the notifications of one reference apart, for ever."""
    body = encode(notification)
    return [
        {
            "delivery_id": identity(notification.kind_of, notification.reference, step, channel),
            "channel": channel,
            "reference": notification.reference,
            "notification": body,
            "urgent": int(urgent),
            "created_at": notification.created_at,
            "available_at": available_at,
        }
        for channel in channels
    ]


def put(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert what the outbox does not hold yet; returns how many rows are new."""
    return len(insert_new(tx, outbox, rows, [outbox.c.id]))


def withdraw(tx: Connection, references: Iterable[str], reason: str, at: int, *, urgent: bool) -> None:
    """Nobody is told any more what was not delivered until now about these calls or alarms."""
    rows = [
        {"b_reference": reference, "b_urgent": int(urgent), "b_at": at, "b_reason": f"withdrawn: {reason}"}
        for reference in references
    ]
    if rows:
        tx.execute(_withdraw, rows)
