"""Brings a notice to one person as that person wants it: which channels, not at night, and not too many.

A row on the channel `person` names somebody and waits like any other row, so a flood may still take it back and an
acknowledgement withdraw it. When it is due, this turns it into rows for the person's own contact points, or puts it
with what waits for the next digest. That, and the end of the row itself, is one commit: exact through every kill.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, select, update

from cloud.dispatch import audience, notices, preferences, quotas
from cloud.dispatch.late import OWN
from cloud.dispatch.letters import ORDINARY, PERSON, row_of
from cloud.dispatch.preferences import Preferences
from cloud.model import Notification, Recipient
from cloud.ports import Database, Wake
from cloud.tables import outbox, person
from fleet.clock import Clock
from fleet.incident import Priority

DIGEST_LOOK_S: Final = 1.0
DIGEST_LISTED_MAX: Final = 20

_URGENCY: Final = {priority.value: rank for rank, priority in enumerate(Priority)}


@dataclass(slots=True)
class PersonalNotices:
    """The channel `person`; `channels` are those of the installation."""

    database: Database
    clock: Clock
    channels: Collection[str]
    wake_outbox: Wake = lambda: None
    name: str = PERSON

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        """Route one row. A repeat changes nothing."""
        now_ms = self.clock.now_ms()
        await self.database.write(
            lambda tx: route(tx, notification, recipient.person_id, delivery_id, self.channels, now_ms=now_ms)
        )
        self.wake_outbox()

    async def run(self) -> None:
        """Send digests when they are due, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(DIGEST_LOOK_S)

    async def look(self) -> int:
        """Look once; how many digests went."""
        now_ms = self.clock.now_ms()
        people = await self.database.read(lambda tx: quotas.due(tx, now_ms))
        for person_id in people:
            await self.database.write(partial(send_digest, person_id=person_id, channels=self.channels, now_ms=now_ms))
        if people:
            self.wake_outbox()
        return len(people)


def route(
    tx: Connection,
    notification: Notification,
    person_id: str,
    delivery_id: str,
    channels: Collection[str],
    *,
    now_ms: int,
) -> str:
    """What becomes of a notice for one person: `sent`, `collected`, or why it stays in the inbox alone."""
    if not _end_row(tx, delivery_id, now_ms):
        return "not waiting any more"
    if not _is_enabled(tx, person_id):
        return "disabled"
    wishes = preferences.load(tx, person_id)
    ways = _ways(tx, person_id, wishes, notification.priority, channels)
    if not ways:
        return "not wanted"
    quota = quotas.load(tx, person_id)
    free_at = max(quota.free_at(now_ms), wishes.quiet_ends_at(now_ms) or now_ms)
    if free_at > now_ms or quota.digest_due_at is not None:
        quota.collect(notification, free_at)
        quotas.store(tx, person_id, quota)
        return "collected"
    quota.tell(now_ms)
    quotas.store(tx, person_id, quota)
    _put(tx, notification, delivery_id, ways, now_ms)
    return "sent"


def send_digest(tx: Connection, person_id: str, channels: Collection[str], *, now_ms: int) -> bool:
    """What waited for this person, as one notice; False: nothing to say, or it is still quiet."""
    quota = quotas.load(tx, person_id)
    wishes = preferences.load(tx, person_id)
    if quota.digest_due_at is None:
        return False
    free_at = max(quota.free_at(now_ms), wishes.quiet_ends_at(now_ms) or now_ms)
    if free_at > now_ms:
        quota.digest_due_at = free_at
        quotas.store(tx, person_id, quota)
        return False
    notification = _digest(person_id, quota, now_ms)
    ways = _ways(tx, person_id, wishes, notification.priority, channels) if _is_enabled(tx, person_id) else []
    quota.empty()
    if ways:
        quota.tell(now_ms)
        _put(tx, notification, "digest", ways, now_ms)
    quotas.store(tx, person_id, quota)
    return bool(ways)


def _digest(person_id: str, quota: quotas.Quota, now_ms: int) -> Notification:
    priority = min((entry[1] for entry in quota.digest), key=lambda one: _URGENCY.get(one, len(_URGENCY)))
    listed = [
        {"reference": reference, "priority": own, "zh": zh, "en": en}
        for reference, own, zh, en in quota.digest[:DIGEST_LISTED_MAX]
    ]
    count = quota.digest_count
    first = listed[0]
    zh, en = (f"{first['zh']}", f"{first['en']}")
    if count > 1:
        zh, en = f"{zh}，另有 {count - 1} 条", f"{en}, and {count - 1} more"
    facts: dict[str, Any] = {"count": count, "notices": listed}
    return Notification("digest", f"digest:{person_id}:{now_ms}", priority, "", zh, en, facts, now_ms)


def _put(
    tx: Connection, notification: Notification, step: str, ways: Collection[audience.Contact], now_ms: int
) -> None:
    rows = [
        row_of(
            notification, f"{OWN}{step}", way.channel, urgent=ORDINARY, available_at=now_ms, recipient=way.person_id,
            contact_id=way.id,
        )
        for way in ways
    ]  # fmt: skip
    notices.put(tx, [{**row, "created_at": now_ms} for row in rows])  # its window begins now, not with the alarm


def _ways(
    tx: Connection, person_id: str, wishes: Preferences, priority: str, channels: Collection[str]
) -> list[audience.Contact]:
    wanted = set(wishes.channels_of(priority)) & set(channels)
    ways = audience.contacts(tx, [person_id], wanted)
    return [way for way in ways if way.works] or ways  # with none that works each is tried: it may work again


def _is_enabled(tx: Connection, person_id: str) -> bool:
    return bool(tx.scalar(select(person.c.id).where(person.c.id == person_id, person.c.disabled_at.is_(None))))


def _end_row(tx: Connection, delivery_id: str, now_ms: int) -> bool:
    c = outbox.c
    waits = (c.delivery_id == delivery_id) & c.delivered_at.is_(None) & c.given_up_at.is_(None)
    ended = {"delivered_at": now_ms, "lease_token": None, "lease_until": None, "last_error": None}
    return bool(tx.execute(update(outbox).where(waits).values(**ended)).rowcount)
