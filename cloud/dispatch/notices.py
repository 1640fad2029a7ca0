"""Notifications on their way into the outbox, and out of it again when they are no longer needed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, update

from cloud.dispatch import audience, quotas
from cloud.dispatch.letters import (
    EMERGENCY,
    INBOX,
    ORDINARY,
    PERSON,
    PERSONAL_STAGES,
    decode,
    delivery_id,
    encode,
    row_of,
)
from cloud.dispatch.rows import insert_new
from cloud.model import Notification
from cloud.signals import Topic, notify
from cloud.tables import device, outbox, person
from fleet.incident import Priority

__all__ = [
    "INBOX",
    "Place",
    "decode",
    "delivery_id",
    "encode",
    "hold_back",
    "outbox_rows",
    "person_name",
    "places",
    "put",
    "system",
    "tell_after_all",
    "withdraw",
]

_waiting = outbox.c.delivered_at.is_(None) & outbox.c.given_up_at.is_(None)
_OVER: Final = "withdrawn: over"


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


def outbox_rows(
    notification: Notification,
    step: str,
    channels: Sequence[str],
    *,
    urgent: int,
    available_at: int,
    recipients: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """One row per channel that many read, and one per recipient where people are told one by one (`PERSON`).

    `step` tells the notifications of one reference apart, for ever. `recipients` come from `audience.recipients`;
    they are no use for an emergency, which `audience.personal_rows` brings to each person's own channels at once.
    """
    rows = [
        row_of(notification, step, channel, urgent=urgent, available_at=available_at)
        for channel in channels
        if channel != PERSON and channel not in PERSONAL_STAGES
    ]
    if PERSON in channels:
        rows += [
            row_of(notification, step, PERSON, urgent=urgent, available_at=available_at, recipient=recipient)
            for recipient in recipients
        ]
    return rows


def put(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert what the outbox does not hold yet; returns how many rows are new.

    The commit tells the workers of other processes (`cloud.signals`).
    """
    new = len(insert_new(tx, outbox, rows, [outbox.c.id]))
    if new:
        notify(tx, Topic.OUTBOX)
    return new


def system(
    tx: Connection,
    key: str,
    title_zh: str,
    title_en: str,
    facts: Mapping[str, Any],
    now_ms: int,
    *,
    channels: Sequence[str],
    urgent: bool = True,
) -> int:
    # system(tx, key, title_zh, title_en, facts, now_ms, *, channels, urgent=True) -> rows that are new.
    # In the pipeline call `Dispatch.system(tx, key, title_zh, title_en, facts, now_ms, urgent=True)`: it knows the
    # channels. The outbox is to be woken after the commit.
    """Tell people, through every one of `channels`, that the system itself needs them; once per `key`, for ever.

    `urgent` notices leave with the emergencies: at once and before all else. `facts` may hold `device_id` (its name
    and place are added) and `error`, which people read as the reason.
    """
    device_id = str(facts.get("device_id", ""))
    place = places(tx, [device_id])[device_id].facts() if device_id else {}
    priority = Priority.EMERGENCY if urgent else Priority.HIGH
    notification = Notification(
        "system", key, priority.value, device_id, title_zh, title_en, {**place, **facts}, now_ms, "everybody"
    )
    return put(tx, audience.system_rows(tx, notification, "system", channels, urgent=urgent))


def withdraw(tx: Connection, references: Iterable[str], reason: str, at: int, *, urgent: bool) -> None:
    """Nobody is told any more what was not delivered until now about these calls or alarms.

    That includes what is in a worker's hands: it looks once more right before it sends. What was on its way already
    can't be recalled; it is counted, and if it fails it is not repeated.
    """
    about = sorted(set(references))
    if not about:
        return
    rows = (
        select(outbox.c.id)
        .where(_waiting, outbox.c.reference.in_(about), outbox.c.urgent == (EMERGENCY if urgent else ORDINARY))
        .order_by(outbox.c.id)  # rows are locked in the order in which the workers lock them
        .with_for_update()
        .cte("rows")
    )
    tx.execute(
        update(outbox)
        .where(outbox.c.id.in_(select(rows.c.id)), _waiting)
        .values(given_up_at=at, last_error=f"withdrawn: {reason}")
    )
    if not urgent:
        quotas.forget(tx, about)


def hold_back(tx: Connection, references: Iterable[str], now_ms: int) -> None:
    """Keep what still waits for its window to close, and nobody tried to send, for these alarms are over."""
    about = sorted(set(references))
    if not about:
        return
    held = (
        _waiting
        & outbox.c.reference.in_(about)
        & (outbox.c.urgent == ORDINARY)
        & (outbox.c.attempts == 0)
        & outbox.c.lease_token.is_(None)
        & (outbox.c.available_at > now_ms)
    )
    rows = select(outbox.c.id).where(held).order_by(outbox.c.id).with_for_update().cte("rows")
    tx.execute(
        update(outbox).where(outbox.c.id.in_(select(rows.c.id)), held).values(given_up_at=now_ms, last_error=_OVER)
    )


def tell_after_all(tx: Connection, references: Iterable[str]) -> None:
    """These alarms came back before anybody had seen them: what `hold_back` kept leaves when it would have left."""
    about = sorted(set(references))
    if not about:
        return
    kept = (
        outbox.c.reference.in_(about)
        & outbox.c.given_up_at.is_not(None)
        & outbox.c.delivered_at.is_(None)
        & (outbox.c.last_error == _OVER)
    )
    found = tx.execute(update(outbox).where(kept).values(given_up_at=None, last_error=None))
    if found.rowcount:
        notify(tx, Topic.OUTBOX)
