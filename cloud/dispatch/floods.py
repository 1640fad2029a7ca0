"""Keeps a mass drop from being hundreds of messages: many notices of one key become one incident with a list.

A notice waits in the outbox until its window closes, at most `SHORT_S`. More than `SHORT_MAX` of one key in
that time (or more than `LONG_MAX` in `LONG_S`) are a flood: they are withdrawn and join the flood's digest.
Digests leave `DIGESTS_AFTER_S` after the flood began, so there are three of them in ten minutes, whatever
the number of keys and devices. All of it stands in SQL, so a restart neither repeats nor forgets.

Emergencies never come here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, func, select, update

from cloud.dispatch import audience, incidents, notices
from cloud.dispatch.letters import INBOX, ORDINARY, PERSON, PERSONAL_STAGES, decode, delivery_id, encode, row_of
from cloud.dispatch.rows import insert_into
from cloud.model import Notification
from cloud.tables import notice_burst, outbox
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import Priority
from fleet.kind import Text

SHORT_S: Final = 10.0
SHORT_MAX: Final = 5
LONG_S: Final = 600.0
LONG_MAX: Final = 10
DIGESTS_AFTER_S: Final = (10.0, 120.0, 600.0)
LISTED_MAX: Final = 500
"""Entries in one digest; the count goes on, and every alarm stands in the inbox."""

PAGE_TIER: Final = "page"
INBOX_TIER: Final = "inbox"

_SHORT_MS: Final = round(SHORT_S * MILLISECONDS_PER_SECOND)
_LONG_MS: Final = round(LONG_S * MILLISECONDS_PER_SECOND)
_URGENCY: Final = {priority.value: rank for rank, priority in enumerate(Priority)}
_LISTED: Final = ("alarm_id", "order_id", "key", "device_id", "device_name", "kind", "activated_at")

# Only what no worker ever touched and what still waits for its window may be changed or taken back.
_held = (
    outbox.c.delivered_at.is_(None)
    & outbox.c.given_up_at.is_(None)
    & outbox.c.lease_token.is_(None)
    & (outbox.c.urgent == 0)
    & (outbox.c.attempts == 0)
)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth telling that may wait ten seconds. `key` is what it is grouped by."""

    tier: str
    key: str
    title: Text
    notification: Notification
    step: str = "new"
    """Tells the notices of one reference apart, for ever."""


def tier_of(notification: Notification) -> str:
    """Low priorities only appear in the application; all others are sent out."""
    return INBOX_TIER if notification.priority == Priority.LOW.value else PAGE_TIER


@dataclass(slots=True)
class _Burst:
    short_at: int
    short_count: int
    long_at: int
    long_count: int
    flood_at: int | None

    def count(self, number: int, now_ms: int) -> None:
        if not 0 <= now_ms - self.short_at < _SHORT_MS:  # also when the clock was set back
            self.short_at, self.short_count = now_ms, 0
        if not 0 <= now_ms - self.long_at < _LONG_MS:
            self.long_at, self.long_count = now_ms, 0
        self.short_count += number
        self.long_count += number

    def in_flood(self, now_ms: int) -> bool:
        return self.flood_at is not None and 0 <= now_ms - self.flood_at < _LONG_MS

    @property
    def is_many(self) -> bool:
        return self.short_count > SHORT_MAX or self.long_count > LONG_MAX

    def flood_begins(self, now_ms: int) -> int:
        return self.short_at if self.short_count > SHORT_MAX else now_ms


def tell(tx: Connection, news: Sequence[Notice], channels: Sequence[str], now_ms: int) -> None:
    """Put notices into the outbox: alone while they are few, into the flood's digest when they are many."""
    tiers: defaultdict[str, defaultdict[str, list[Notice]]] = defaultdict(lambda: defaultdict(list))
    for notice in news:
        tiers[notice.tier][notice.key].append(notice)
    for tier, by_key in tiers.items():
        _tell_tier(tx, tier, by_key, [INBOX] if tier == INBOX_TIER else channels, now_ms)


def _tell_tier(
    tx: Connection, tier: str, by_key: Mapping[str, list[Notice]], channels: Sequence[str], now_ms: int
) -> None:
    bursts = _load(tx, tier, by_key, now_ms)
    rows: list[dict[str, Any]] = []
    members: list[Notice] = []
    for key, news in by_key.items():
        burst = bursts[key]
        burst.count(len(news), now_ms)
        if burst.in_flood(now_ms):
            members += news
        elif burst.is_many:
            burst.flood_at = _running_flood(tx, tier, bursts, now_ms) or burst.flood_begins(now_ms)
            members += [*_take_back(tx, tier, key, news[0].title, now_ms), *news]
        else:
            burst.flood_at = None
            for notice in news:
                people = audience.recipients(tx, notice.notification, now_ms) if PERSON in channels else ()
                rows += notices.outbox_rows(
                    notice.notification,
                    notice.step,
                    channels,
                    urgent=ORDINARY,
                    available_at=burst.short_at + _SHORT_MS,
                    recipients=people,
                )
    notices.put(tx, rows)
    _store(tx, tier, bursts)
    if members:
        flood_at = min(burst.flood_at for burst in bursts.values() if burst.flood_at is not None)
        known = incidents.open_ones(tx, [member.notification for member in members])
        same = set(known.values()) if len(known) == len(members) else set()
        # What people are told again of an open incident (a window ended, nobody mended it) is no second incident.
        reference = same.pop() if len(same) == 1 else incidents.reference_of(tier, flood_at)
        _add_to_digest(tx, reference, flood_at, members, channels=channels, now_ms=now_ms)
        new = [member.notification for member in members if member.notification.reference not in known]
        incidents.grow(tx, tier, flood_at, new, now_ms)
        incidents.told_again(tx, known, now_ms)


def _load(tx: Connection, tier: str, keys: Mapping[str, Any], now_ms: int) -> dict[str, _Burst]:
    bursts = {key: _Burst(now_ms, 0, now_ms, 0, None) for key in keys}
    columns = notice_burst.c
    for row in tx.execute(select(notice_burst).where(columns.tier == tier, columns.key.in_(sorted(keys)))):
        bursts[row.key] = _Burst(row.short_at, row.short_count, row.long_at, row.long_count, row.flood_at)
    return bursts


def _store(tx: Connection, tier: str, bursts: Mapping[str, _Burst]) -> None:
    statement = insert_into(tx, notice_burst)
    names = ("short_at", "short_count", "long_at", "long_count", "flood_at")
    statement = statement.on_conflict_do_update(
        index_elements=[notice_burst.c.tier, notice_burst.c.key],
        set_={name: statement.excluded[name] for name in names},
    )
    tx.execute(
        statement,
        [
            {"tier": tier, "key": key, **{name: getattr(burst, name) for name in names}}
            for key, burst in sorted(bursts.items())  # sorted: two writers lock rows in one order
        ],
    )


def _running_flood(tx: Connection, tier: str, bursts: Mapping[str, _Burst], now_ms: int) -> int | None:
    """Keys that drop together are one incident."""
    for burst in bursts.values():
        if burst.in_flood(now_ms):
            return burst.flood_at
    column = notice_burst.c.flood_at
    latest: int | None = tx.scalar(
        select(func.max(column)).where(notice_burst.c.tier == tier, column > now_ms - _LONG_MS, column <= now_ms)
    )
    return latest


def _take_back(tx: Connection, tier: str, key: str, title: Text, now_ms: int) -> list[Notice]:
    """Notices of this key that still wait for their window: they join the digest instead."""
    rows = tx.execute(
        select(outbox.c.id, outbox.c.channel, outbox.c.notification)
        .where(_held, outbox.c.available_at > now_ms)
        .order_by(outbox.c.id)
        .with_for_update()
    ).all()
    taken: dict[str, Notification] = {}
    for row in rows:
        notification = decode(row.notification)
        if notification.facts.get("key") != key or tier_of(notification) != tier:
            continue
        done = tx.execute(
            update(outbox)
            .where(outbox.c.id == row.id, _held)
            .values(given_up_at=now_ms, last_error="grouped: one of many")
        )
        if done.rowcount:
            taken[notification.reference] = notification
    return [Notice(tier, key, title, notification) for notification in taken.values()]


def _add_to_digest(
    tx: Connection, reference: str, flood_at: int, members: Sequence[Notice], *, channels: Sequence[str], now_ms: int
) -> None:
    age_ms = now_ms - flood_at
    stage = next(index for index, after_s in enumerate(DIGESTS_AFTER_S) if age_ms < after_s * MILLISECONDS_PER_SECOND)
    available_at = flood_at + round(DIGESTS_AFTER_S[stage] * MILLISECONDS_PER_SECOND)
    waiting = {
        row.delivery_id: row
        for row in tx.execute(
            select(outbox.c.id, outbox.c.delivery_id, outbox.c.notification)
            .where(_held, outbox.c.reference == reference)
            .with_for_update()
        )
    }
    fresh: list[dict[str, Any]] = []
    step = f"digest:{stage}" if reference.endswith(f":{flood_at}") else f"digest:{flood_at}:{stage}"
    empty = _digest(None, reference, members, stage, now_ms)
    people = audience.recipients(tx, empty, now_ms) if PERSON in channels else ()
    receivers = [(channel, "") for channel in channels if channel not in {PERSON, *PERSONAL_STAGES}]
    receivers += [(PERSON, person_id) for person_id in people]
    for channel, person_id in receivers:
        existing = waiting.get(delivery_id(empty, step, channel, person_id))
        if existing is None:
            fresh.append(row_of(empty, step, channel, urgent=ORDINARY, available_at=available_at, recipient=person_id))
        else:
            digest = _digest(existing, reference, members, stage, now_ms)
            tx.execute(update(outbox).where(outbox.c.id == existing.id).values(notification=encode(digest)))
    notices.put(tx, fresh)


def _digest(existing: Any, reference: str, members: Sequence[Notice], stage: int, now_ms: int) -> Notification:
    """The digest with these members added to those it has."""
    before = decode(existing.notification) if existing is not None else None
    facts: dict[str, Any] = (
        before.facts
        if before
        else {"flood": reference, "incident_id": reference, "stage": stage, "alarms": [], "keys": {}}
    )
    facts.pop("over", None)
    keys: dict[str, dict[str, Any]] = facts["keys"]
    for member in members:
        entry = keys.setdefault(member.key, {"zh": member.title.zh, "en": member.title.en, "count": 0})
        entry["count"] += 1
        if len(facts["alarms"]) < LISTED_MAX:
            facts["alarms"].append({name: member.notification.facts.get(name) for name in _LISTED})
    facts["count"] = sum(entry["count"] for entry in keys.values())
    priorities = [member.notification.priority for member in members] + ([before.priority] if before else [])
    more_zh, more_en = ("又有 ", " more") if stage else ("", "")
    return Notification(
        "alarm",
        reference,
        min(priorities, key=_URGENCY.__getitem__),
        "",
        f"{more_zh}{facts['count']} 项同类报警："
        + "、".join(f"{entry['zh']} {entry['count']}" for entry in keys.values()),
        f"{facts['count']}{more_en} alarms at once: "
        + ", ".join(f"{entry['en']} {entry['count']}" for entry in keys.values()),
        facts,
        before.created_at if before else now_ms,
    )


def over(tx: Connection, incident_id: str, now_ms: int) -> None:
    """All of its alarms returned: who was told of it hears that now, and what still waits says it, too.

    Nothing of this waits for the time of a digest.
    """
    columns = outbox.c
    rows = tx.execute(
        select(outbox).where(columns.reference == incident_id).order_by(columns.id).with_for_update()
    ).all()
    told: dict[tuple[str, str], Any] = {}
    for row in rows:
        digest = decode(row.notification)
        receiver = (row.channel, row.recipient)
        if row.delivered_at is not None and row.given_up_at is None:
            if digest.facts.get("over"):
                told.pop(receiver, None)
            else:
                told[receiver] = row
        elif not digest.facts.get("over"):
            is_held = (columns.id == row.id) & _held
            tx.execute(update(outbox).where(is_held).values(notification=encode(_as_over(digest, incident_id))))
    fresh = []
    for (channel, person_id), row in told.items():
        if channel in PERSONAL_STAGES:
            continue  # it was brought there for a person, who is told again as that person wants it
        notice = _as_over(decode(row.notification), incident_id)
        notice = Notification(**{**_fields(notice), "created_at": now_ms})
        fresh.append(
            row_of(notice, f"over:{now_ms}", channel, urgent=ORDINARY, available_at=now_ms, recipient=person_id)
        )
    notices.put(tx, fresh)


def _as_over(digest: Notification, incident_id: str) -> Notification:
    facts = {**digest.facts, "over": True}
    zh, en = f"已全部恢复：{digest.title_zh}", f"All over: {digest.title_en}"
    changed = {"facts": facts, "title_zh": zh, "title_en": en, "reference": incident_id}
    return Notification(**{**_fields(digest), **changed})


def _fields(notification: Notification) -> dict[str, Any]:
    return {one.name: getattr(notification, one.name) for one in fields(notification)}
