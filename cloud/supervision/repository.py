"""Buttons, proof tests and substitute measures in SQL."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from cloud.synthetic import is_real
from cloud.tables import device, proof_test, substitute_measure, twin


def buttons(tx: Connection, kinds: Collection[str], device_id: str | None = None) -> list[Row[Any]]:
    """Devices of these kinds in service with what the rules remember of them."""
    query = select(device.c.device_id, device.c.name, device.c.kind, twin.c.desk)
    query = query.select_from(device.outerjoin(twin, twin.c.device_id == device.c.device_id))
    query = query.where(device.c.kind.in_(sorted(kinds)), device.c.retired_at.is_(None), is_real(device.c.device_id))
    if device_id is not None:
        query = query.where(device.c.device_id == device_id)
    return list(tx.execute(query.order_by(device.c.device_id)))


def last_proofs(tx: Connection, device_ids: Collection[str]) -> Mapping[str, Row[Any]]:
    """By device, the latest test that was passed."""
    latest = (
        select(func.max(proof_test.c.id))
        .where(proof_test.c.device_id.in_(sorted(device_ids)), proof_test.c.passed == 1)
        .group_by(proof_test.c.device_id)
    )
    return {row.device_id: row for row in tx.execute(select(proof_test).where(proof_test.c.id.in_(latest)))}


def proofs(tx: Connection, device_id: str, limit: int) -> list[Row[Any]]:
    """Newest first."""
    query = select(proof_test).where(proof_test.c.device_id == device_id)
    return list(tx.execute(query.order_by(proof_test.c.id.desc()).limit(limit)))


def measures(tx: Connection, device_ids: Collection[str], now_ms: int) -> Mapping[str, Row[Any]]:
    """By device, the substitute measure in force that lasts longest."""
    table = substitute_measure
    query = select(table).where(table.c.device_id.in_(sorted(device_ids)), table.c.until_at > now_ms)
    return {row.device_id: row for row in tx.execute(query.order_by(table.c.until_at))}


def add_measure(tx: Connection, **columns: Any) -> None:
    tx.execute(insert(substitute_measure).values(**columns))


def desk_of(row: Row[Any]) -> dict[str, Any]:
    """What the rules remember, as plain data; empty before its first word."""
    found: dict[str, Any] = json.loads(row.desk) if row.desk else {}
    return found
