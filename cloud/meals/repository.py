"""SQL of purchases and of what machines offer. Every function runs inside the caller's transaction."""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update

from cloud.meals.lifecycle import FINAL, SALE, SaleState, SaleStep
from cloud.tables import device, purchase, purchase_step, twin

KIND: Final = "meal_machine"
OPEN_STATES: Final = tuple(sorted({state.value for state in SaleState} - {state.value for state in FINAL}))
NOT_YET_RESERVED: Final = (SaleState.PAYMENT_PENDING.value, SaleState.PAID.value)
NEVER_MS: Final = 253_402_300_799_000
"""Deadline of what has none any more."""


def by_id(tx: Connection, purchase_id: str) -> Row[Any] | None:
    return tx.execute(select(purchase).where(purchase.c.id == purchase_id)).one_or_none()


def by_command(tx: Connection, command_id: str) -> Row[Any] | None:
    return tx.execute(select(purchase).where(purchase.c.command_id == command_id)).one_or_none()


def add(tx: Connection, **columns: Any) -> None:
    """A purchase in its initial state; raises IntegrityError if it exists."""
    tx.execute(insert(purchase).values(state=SALE.initial.value, **columns))


def move(tx: Connection, row: Row[Any], step: SaleStep, at: int, **columns: Any) -> Row[Any]:
    """Take one step of the lifecycle and write it down; returns the purchase as it is then.

    Raises:
        IllegalTransitionError: the step is not possible; nothing was changed.
        LookupError: somebody else moved it since `row` was read.
    """
    before = SaleState(row.state)
    after = SALE.next(before, step)
    if after in FINAL:
        columns.setdefault("deadline_at", NEVER_MS)
    changed = tx.execute(
        update(purchase)
        .where(purchase.c.id == row.id, purchase.c.state == before.value)
        .values(state=after.value, changed_at=at, **columns)
    )
    if changed.rowcount != 1:
        raise LookupError(f"purchase {row.id} is no longer {before.value}")
    note(tx, row.id, step.value, before.value, after.value, at)
    moved = by_id(tx, row.id)
    assert moved is not None
    return moved


def note(tx: Connection, purchase_id: str, event: str, before: str, after: str, at: int) -> None:
    """One line of a purchase's history."""
    tx.execute(insert(purchase_step).values(purchase_id=purchase_id, event=event, before=before, after=after, at=at))


def set_command(tx: Connection, purchase_id: str, command_id: str) -> None:
    """Which dispense command asks the machine for it."""
    tx.execute(update(purchase).where(purchase.c.id == purchase_id).values(command_id=command_id))


def flag(tx: Connection, purchase_id: str, reason: str, at: int) -> None:
    """Say something about a purchase without moving it."""
    tx.execute(update(purchase).where(purchase.c.id == purchase_id).values(reason=reason, changed_at=at))


def steps(tx: Connection, purchase_id: str) -> list[Row[Any]]:
    """History, oldest first."""
    query = select(purchase_step).where(purchase_step.c.purchase_id == purchase_id)
    return list(tx.execute(query.order_by(purchase_step.c.id)))


def purchases(tx: Connection, person_id: str | None, before: tuple[int, str] | None, limit: int) -> list[Row[Any]]:
    """Newest first; of one person, or of all."""
    query = select(purchase)
    if person_id is not None:
        query = query.where(purchase.c.person_id == person_id)
    if before is not None:
        asked_at, identity = before
        query = query.where(
            (purchase.c.asked_at < asked_at) | ((purchase.c.asked_at == asked_at) & (purchase.c.id < identity))
        )
    return list(tx.execute(query.order_by(purchase.c.asked_at.desc(), purchase.c.id.desc()).limit(limit)))


def open_count(tx: Connection, person_id: str) -> int:
    """Purchases of a person that have not ended."""
    query = select(func.count()).where(purchase.c.person_id == person_id, purchase.c.state.in_(OPEN_STATES))
    return int(tx.scalar(query) or 0)


def due(tx: Connection, now_ms: int, limit: int) -> list[Row[Any]]:
    """Open purchases whose deadline has passed, the oldest first."""
    query = select(purchase).where(purchase.c.state.in_(OPEN_STATES), purchase.c.deadline_at <= now_ms)
    return list(tx.execute(query.order_by(purchase.c.deadline_at).limit(limit)))


def next_deadline(tx: Connection) -> int | None:
    """Earliest deadline of any open purchase."""
    value = tx.scalar(select(func.min(purchase.c.deadline_at)).where(purchase.c.state.in_(OPEN_STATES)))
    return None if value is None or value >= NEVER_MS else int(value)


def changed_since(tx: Connection, at: int, limit: int) -> list[Row[Any]]:
    """Purchases that changed at or after `at`, oldest change first."""
    query = select(purchase).where(purchase.c.changed_at >= at)
    return list(tx.execute(query.order_by(purchase.c.changed_at).limit(limit)))


def machines(tx: Connection, device_ids: Iterable[str] | None = None) -> list[Row[Any]]:
    """Machines in service with their twin (NULL for one that never spoke), ordered by id."""
    query = select(
        device.c.device_id, device.c.name, device.c.latitude, device.c.longitude, twin.c.state, twin.c.online,
        twin.c.last_heard_at,
    )  # fmt: skip
    query = query.select_from(device.outerjoin(twin, twin.c.device_id == device.c.device_id))
    query = query.where(device.c.kind == KIND, device.c.retired_at.is_(None))
    if device_ids is not None:
        query = query.where(device.c.device_id.in_(list(device_ids)))
    return list(tx.execute(query.order_by(device.c.device_id)))


def promised(tx: Connection) -> dict[tuple[str, str], int]:
    """(machine, meal) → boxes that are sold and that the machine has not set aside yet."""
    query = select(purchase.c.device_id, purchase.c.sku, func.count().label("boxes"))
    query = query.where(purchase.c.state.in_(NOT_YET_RESERVED)).group_by(purchase.c.device_id, purchase.c.sku)
    return {(row.device_id, row.sku): int(row.boxes) for row in tx.execute(query)}
