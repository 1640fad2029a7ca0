"""Rows that ingest leaves: events, gaps, quarantine, intents and how far the spool is in the twins."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, select, text

from cloud.ingest.intake import Gap
from cloud.model import Accepted, Intent, Quarantined
from cloud.signals import Topic, notify
from cloud.tables import event, intent, quarantine, spool_mark

_EVENT: Final = text("""
    INSERT INTO event
        (device_id, kind, lane, boot_epoch, seq, event_id, type, occurred_at, received_at, late, body, time_quality)
    VALUES (:device_id, :kind, :lane, :boot_epoch, :seq, :event_id, :type, :occurred_at, :received_at, :late, :body,
        :time_quality)
    ON CONFLICT (device_id, event_id) DO NOTHING
""")
_GAP: Final = text("""
    INSERT INTO gap (device_id, lane, generation, first_seq, last_seq, received_at)
    VALUES (:device_id, :lane, :generation, :first_seq, :last_seq, :received_at)
    ON CONFLICT (device_id, lane, generation, first_seq) DO NOTHING
""")
_MARK: Final = text("""
    INSERT INTO spool_mark (spool, name, position) VALUES (:spool, :name, :position)
    ON CONFLICT (spool, name) DO UPDATE SET position = excluded.position
""")
_FORGET: Final = text("DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - :keep")
INTENTS_PER_BATCH_MAX: Final = 200
QUARANTINED_ROWS_MAX: Final = 4_000
QUARANTINED_BYTES_MAX: Final = 131_072


def stored_events(tx: Connection, events: Iterable[Accepted]) -> set[tuple[str, str]]:
    """(device, event id) of those that are stored already."""
    by_device: dict[str, list[str]] = {}
    for accepted in events:
        by_device.setdefault(accepted.lane.device_id, []).append(accepted.event.event_id)
    found: set[tuple[str, str]] = set()
    for device_id, event_ids in by_device.items():
        query = select(event.c.event_id).where(event.c.device_id == device_id, event.c.event_id.in_(event_ids))
        found.update((device_id, event_id) for event_id in tx.scalars(query))
    return found


def store_event(tx: Connection, accepted: Accepted, received_at: int) -> bool:
    """Insert one event; False if the hardware's event is stored already."""
    envelope = accepted.envelope
    result = tx.execute(
        _EVENT,
        {
            "device_id": accepted.lane.device_id,
            "kind": accepted.lane.kind,
            "lane": envelope.lane.value,
            "boot_epoch": envelope.boot_epoch,
            "seq": envelope.seq,
            "event_id": accepted.event.event_id,
            "type": accepted.event.type,
            "occurred_at": envelope.occurred_at,
            "received_at": received_at,
            "late": int(accepted.late),
            "body": bytes(envelope.payload).decode(),
            "time_quality": envelope.time_quality.value,
        },
    )
    return bool(result.rowcount)


def store_gaps(tx: Connection, gaps: Iterable[Gap], received_at: int) -> None:
    """What devices declared as evicted."""
    rows = [
        {
            "device_id": gap.device_id,
            "lane": gap.lane.value,
            "generation": gap.generation,
            "first_seq": gap.first_seq,
            "last_seq": gap.last_seq,
            "received_at": received_at,
        }
        for gap in gaps
    ]
    if rows:
        tx.execute(_GAP, rows)


def store_quarantined(tx: Connection, quarantined: Iterable[Quarantined]) -> None:
    """Bytes and reason of what could not be used; bounded, so that a flood of rubbish never fills the disk.

    Of a message larger than `QUARANTINED_BYTES_MAX` the beginning is kept; beyond `QUARANTINED_ROWS_MAX` rows the
    oldest give way.
    """
    rows = [
        {
            "received_at": item.received_at,
            "topic": item.topic,
            "device_id": item.device_id,
            "lane": None if item.lane is None else item.lane.value,
            "seq": item.seq,
            "reason": _reason_of(item),
            "payload": item.payload[:QUARANTINED_BYTES_MAX],
        }
        for item in quarantined
    ]
    if rows:
        tx.execute(quarantine.insert(), rows)
        tx.execute(_FORGET, {"keep": QUARANTINED_ROWS_MAX})


def _reason_of(item: Quarantined) -> str:
    reason = item.reason.replace("\x00", "�")
    if len(item.payload) > QUARANTINED_BYTES_MAX:
        reason += f" (the first {QUARANTINED_BYTES_MAX} of {len(item.payload)} bytes are kept)"
    return reason


def waiting_intents(tx: Connection) -> list[Intent]:
    """People's acts that no lane has taken yet, oldest first."""
    query = (
        select(intent).where(intent.c.done_at.is_(None)).order_by(intent.c.at, intent.c.id).limit(INTENTS_PER_BATCH_MAX)
    )
    return [
        Intent(row["id"], row["device_id"], row["name"], row["actor"], msgspec.json.decode(row["arguments"]), row["at"])
        for row in tx.execute(query).mappings()
    ]


def answer_intents(tx: Connection, answers: Sequence[tuple[Intent, str | None, str | None]], now_ms: int) -> None:
    """(intent, JSON answer, refusal) of acts that are part of this commit."""
    if answers:
        tx.execute(
            text(
                "UPDATE intent SET answer = :answer, refused = :refused, done_at = :at "
                "WHERE id = :id AND done_at IS NULL"
            ),
            [{"answer": answer, "refused": refused, "at": now_ms, "id": item.id} for item, answer, refused in answers],
        )
        notify(tx, Topic.ANSWERED, [item.id for item, _, _ in answers])


def spool_position(tx: Connection, spool: str, name: str) -> int:
    """How far the spool is processed for `name` (`twin`, `series`); 0 at first."""
    query = select(spool_mark.c.position).where(spool_mark.c.spool == spool, spool_mark.c.name == name)
    return int(tx.execute(query).scalar() or 0)


def save_spool_position(tx: Connection, spool: str, name: str, position: int) -> None:
    """Remember it."""
    tx.execute(_MARK, {"spool": spool, "name": name, "position": position})
