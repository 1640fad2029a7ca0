"""Rows of `command`. Every function runs inside the caller's transaction."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, select, text, update

from cloud.signals import Topic, notify
from cloud.tables import command, device
from fleet.messages import FINAL_REPLIES, ReplyStatus

QUEUED: Final = "queued"
SENT: Final = "sent"
FINAL: Final = frozenset(status.value for status in FINAL_REPLIES)
_ORDER: Final = {QUEUED: 0, SENT: 1, ReplyStatus.ACCEPTED.value: 2, ReplyStatus.EXECUTING.value: 3}


def device_of(tx: Connection, device_id: str) -> RowMapping | None:
    """Kind, generation and retirement of a device."""
    columns = (device.c.kind, device.c.generation, device.c.retired_at)
    return tx.execute(select(*columns).where(device.c.device_id == device_id)).mappings().first()


def open_count(tx: Connection, device_id: str) -> int:
    """Commands of this device without a final answer."""
    query = select(func.count()).where(command.c.device_id == device_id, command.c.status.not_in(FINAL))
    return int(tx.execute(query).scalar_one())


def insert(tx: Connection, row: dict[str, Any]) -> None:
    """Record a queued command; the process that sends it hears of the commit."""
    tx.execute(command.insert().values(row))
    notify(tx, Topic.COMMANDS)


def queued(tx: Connection, limit: int, mine: Callable[[str], bool]) -> Sequence[RowMapping]:
    """Up to `limit` commands to be sent, oldest first, of the devices for which `mine` holds.

    All that are queued are looked at: those of others are few, because each device may have few and they expire.
    """
    query = select(command).where(command.c.status == QUEUED).order_by(command.c.issued_at)
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


def given_up(tx: Connection, command_id: str, device_id: str) -> RowMapping | None:
    """A command of that device that expired, if it is one: what the device says of it afterwards is still news."""
    found = select(command).where(command.c.id == command_id, command.c.device_id == device_id)
    return tx.execute(found.where(command.c.status == ReplyStatus.EXPIRED.value)).mappings().first()


def overdue(tx: Connection, never_accepted_before: int, unfinished_before: int) -> Sequence[RowMapping]:
    """Commands that were not accepted in time, or accepted and never finished."""
    waiting = (QUEUED, SENT)
    running = (ReplyStatus.ACCEPTED.value, ReplyStatus.EXECUTING.value)
    query = select(command).where(
        (command.c.status.in_(waiting) & (command.c.not_after < never_accepted_before))
        | (command.c.status.in_(running) & (command.c.changed_at < unfinished_before))
    )
    return tx.execute(query).mappings().all()


def next_not_after(tx: Connection) -> int | None:
    """Earliest limit of any command that is not final."""
    query = select(func.min(command.c.not_after)).where(command.c.status.not_in(FINAL))
    value = tx.execute(query).scalar_one()
    return None if value is None else int(value)


def outcome(tx: Connection, command_id: str) -> tuple[str, str] | None:
    """(status, reason) of a command."""
    row = tx.execute(text("SELECT status, reason FROM command WHERE id = :id"), {"id": command_id}).first()
    return None if row is None else (str(row[0]), str(row[1]))
