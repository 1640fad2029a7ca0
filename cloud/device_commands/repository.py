"""Rows of `command`. Every function runs inside the caller's transaction."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, select, text, update

from cloud.signals import Topic, notify
from cloud.tables import command, device, twin
from fleet.messages import FINAL_REPLIES, ReplyStatus

QUEUED: Final = "queued"
SENT: Final = "sent"
FINAL: Final = frozenset(status.value for status in FINAL_REPLIES)
_ORDER: Final = {QUEUED: 0, SENT: 1, ReplyStatus.ACCEPTED.value: 2, ReplyStatus.EXECUTING.value: 3}


_IN_SERVICE: Final = (device.c.retired_at.is_(None), device.c.revoked_at.is_(None))


def device_of(tx: Connection, device_id: str) -> RowMapping | None:
    """Kind, generation, retirement and revocation of a device."""
    columns = (device.c.kind, device.c.generation, device.c.retired_at, device.c.revoked_at)
    return tx.execute(select(*columns).where(device.c.device_id == device_id)).mappings().first()


OPEN: Final = (QUEUED, SENT, ReplyStatus.ACCEPTED.value, ReplyStatus.EXECUTING.value)
_WAITING: Final = (QUEUED, SENT)
_RUNNING: Final = (ReplyStatus.ACCEPTED.value, ReplyStatus.EXECUTING.value)


def open_count(tx: Connection, device_id: str, *, urgent: bool) -> int:
    """Urgent, or other, commands of this device without a final answer."""
    mine = (command.c.device_id == device_id) & (command.c.urgent == int(urgent))
    return int(tx.execute(select(func.count()).where(mine, command.c.status.in_(OPEN))).scalar_one())


def open_count_of(tx: Connection, actor: str) -> int:
    """Commands of this person without a final answer, over all devices."""
    query = select(func.count()).where(command.c.actor == actor, command.c.status.in_(OPEN))
    return int(tx.execute(query).scalar_one())


def last_issued_at(tx: Connection, device_id: str) -> int:
    """When the latest command of this device was issued; 0 without any."""
    value = tx.execute(select(func.max(command.c.issued_at)).where(command.c.device_id == device_id)).scalar_one()
    return 0 if value is None else int(value)


def insert(tx: Connection, row: dict[str, Any]) -> None:
    """Record a queued command; the process that sends it hears of the commit."""
    tx.execute(command.insert().values(row))
    notify(tx, Topic.COMMANDS)


def queued(tx: Connection, limit: int, mine: Callable[[str], bool]) -> Sequence[RowMapping]:
    """Up to `limit` commands to be sent, urgent ones first, then the oldest, of the devices for which `mine` holds.

    With each come the keys its device trusts (`trusted`). What waits for a device that was retired or revoked
    meanwhile is never sent, and expires.

    All that are queued are looked at: those of others are few, because each device may have few and they expire.
    """
    query = select(command, device.c.command_keys.label("trusted")).join(
        device, device.c.device_id == command.c.device_id
    )
    query = query.where(command.c.status == QUEUED, *_IN_SERVICE).order_by(command.c.urgent.desc(), command.c.issued_at)
    return list(islice((row for row in tx.execute(query).mappings() if mine(row["device_id"])), limit))


def mark_sent(tx: Connection, ids: Sequence[str], now_ms: int) -> None:
    """They are about to leave; one that was already answered or expired stays as it is."""
    if ids:
        tx.execute(
            update(command)
            .where(command.c.id.in_(ids), command.c.status == QUEUED)
            .values(status=SENT, changed_at=now_ms)
        )


def advance(
    tx: Connection, command_id: str, status: str, reason: str, now_ms: int, *, said_by: str | None = None
) -> RowMapping | None:
    """Move a command forward; None if it is unknown, another device's, final already, or further than `status`."""
    row = tx.execute(select(command).where(command.c.id == command_id)).mappings().first()
    if row is None or row["status"] in FINAL or said_by not in {None, row["device_id"]}:
        return None
    if status not in FINAL and _ORDER[status] <= _ORDER[row["status"]]:
        return None
    tx.execute(
        update(command)
        .where(command.c.id == command_id, command.c.status == row["status"])
        .values(status=status, reason=reason, changed_at=now_ms)
    )
    if status in FINAL:
        notify(tx, Topic.SETTLED, [command_id])
    return row


def cancel_queued(tx: Connection, command_id: str, now_ms: int) -> RowMapping | None:
    """End a command that was not sent; None if it is unknown, or further than that."""
    row = tx.execute(select(command).where(command.c.id == command_id)).mappings().first()
    ended = tx.execute(
        update(command)
        .where(command.c.id == command_id, command.c.status == QUEUED)
        .values(status=ReplyStatus.REFUSED.value, reason="cancelled", changed_at=now_ms)
    )
    if row is None or not ended.rowcount:
        return None
    notify(tx, Topic.SETTLED, [command_id])
    return row


def given_up(tx: Connection, command_id: str, device_id: str) -> RowMapping | None:
    """A command of that device that expired, if it is one: what the device says of it afterwards is still news."""
    found = select(command).where(command.c.id == command_id, command.c.device_id == device_id)
    return tx.execute(found.where(command.c.status == ReplyStatus.EXPIRED.value)).mappings().first()


def overdue(tx: Connection, never_accepted_before: int, unfinished_before: int) -> Sequence[RowMapping]:
    """Commands that were not accepted in time, or accepted and never finished."""
    query = select(command).where(
        command.c.status.in_((*_WAITING, *_RUNNING)),  # said once more for the index: SQLite looks into no OR
        (command.c.status.in_(_WAITING) & (command.c.not_after < never_accepted_before))
        | (command.c.status.in_(_RUNNING) & (command.c.changed_at < unfinished_before)),
    )
    return tx.execute(query).mappings().all()


def follow_clock(tx: Connection, now_ms: int, ahead_ms_max: int) -> int:
    """Commands issued in the future were issued before the clock was set back: they keep what time they had left.

    Returns how many there were.
    """
    latest_ms = now_ms + ahead_ms_max
    ahead = command.c.status.in_(OPEN) & ((command.c.issued_at > latest_ms) | (command.c.changed_at > latest_ms))
    left_ms = command.c.not_after - command.c.issued_at
    moved = tx.execute(
        update(command).where(ahead).values(issued_at=now_ms, changed_at=now_ms, not_after=now_ms + left_ms)
    )
    return moved.rowcount


def save_trusted(tx: Connection, device_id: str, key_ids: str) -> None:
    """The keys a device says it trusts, joined by spaces."""
    changed = (device.c.device_id == device_id) & (device.c.command_keys != key_ids)
    tx.execute(update(device).where(changed).values(command_keys=key_ids))


def not_informed(tx: Connection, announced: str, limit: int) -> Sequence[RowMapping]:
    """Devices in service and connected that do not trust exactly the announced keys, in any order."""
    query = (
        select(device.c.device_id, device.c.generation)
        .join(twin, twin.c.device_id == device.c.device_id)
        .where(twin.c.online == 1, *_IN_SERVICE)
        .where(device.c.command_keys != announced, device.c.command_keys != "")
    )
    return tx.execute(query.limit(limit)).mappings().all()


def trusted_by_devices(tx: Connection) -> Sequence[RowMapping]:
    """(device_id, kind, command_keys, online, last_heard_at) of every device in service, by id."""
    columns = (device.c.device_id, device.c.kind, device.c.command_keys, twin.c.online, twin.c.last_heard_at)
    query = select(*columns).select_from(device.outerjoin(twin, twin.c.device_id == device.c.device_id))
    return tx.execute(query.where(device.c.retired_at.is_(None)).order_by(device.c.device_id)).mappings().all()


def next_overdue_at(tx: Connection, grace_ms: int, unfinished_ms: int) -> int | None:
    """When `overdue` finds something next: `grace_ms` after a limit, `unfinished_ms` after the last progress."""
    limit = select(func.min(command.c.not_after)).where(command.c.status.in_(_WAITING))
    progress = select(func.min(command.c.changed_at)).where(command.c.status.in_(_RUNNING))
    waits = (limit, grace_ms), (progress, unfinished_ms)
    return min((found + wait_ms for query, wait_ms in waits if (found := tx.scalar(query)) is not None), default=None)


def outcome(tx: Connection, command_id: str) -> tuple[str, str] | None:
    """(status, reason) of a command."""
    row = tx.execute(text("SELECT status, reason FROM command WHERE id = :id"), {"id": command_id}).first()
    return None if row is None else (str(row[0]), str(row[1]))
