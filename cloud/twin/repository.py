"""Rows of `device` and `twin`: the durable copy of the lanes. Statements run on SQLite and PostgreSQL alike."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select, update

from cloud.model import DeviceLane
from cloud.presence import encode as encode_presence
from cloud.tables import device, twin

_COLUMNS: Final = (
    "device_id", "kind", "state", "desk", "presence", "generation", "emergency_seq", "event_seq", "telemetry_seq",
    "online", "link_boot_epoch", "link_connection", "link_changed_at", "last_heard_at", "last_reading_at",
    "next_due_at", "version",
)  # fmt: skip
"""In the order of the rows that `save` makes; all of the table's (a test compares them)."""


def _upsert(mark: str) -> str:
    return (
        f"INSERT INTO twin ({', '.join(_COLUMNS)}) VALUES ({', '.join([mark] * len(_COLUMNS))}) "  # noqa: S608  # our own names
        f"ON CONFLICT (device_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[2:])}"
    )


_UPSERT: Final = {"qmark": _upsert("?"), "pyformat": _upsert("%s")}
"""For the drivers themselves: named parameters cost more than the row."""


def lane_rows(tx: Connection, device_ids: Sequence[str] | None = None) -> Sequence[RowMapping]:
    """Devices in service with their twin columns (None for one that never spoke); all, or the named ones."""
    columns = [twin.c[name] for name in twin.c.keys() if name not in {"device_id", "kind", "generation"}]  # noqa: SIM118
    query = select(
        device.c.device_id,
        device.c.kind,
        device.c.generation,
        device.c.storage_id,
        device.c.retired_at,
        device.c.revoked_at,
        *columns,
    )
    query = query.select_from(device.outerjoin(twin, device.c.device_id == twin.c.device_id))
    if device_ids is not None:
        query = query.where(device.c.device_id.in_(device_ids))
    return tx.execute(query).mappings().all()


def save(
    tx: Connection,
    lanes: Iterable[DeviceLane],
    encode_state: Callable[[Any], str],
    encode_desk: Callable[[Any], str],
) -> None:
    """Write the lanes as they are now, one statement for all."""
    rows = []
    for lane in lanes:
        lane.version += 1
        rows.append((
            lane.device_id, lane.kind, encode_state(lane.state), encode_desk(lane.desk), encode_presence(lane.presence),
            lane.generation, lane.emergency_seq, lane.event_seq, lane.telemetry_seq, int(lane.online),
            lane.link_boot_epoch, lane.link_connection, lane.link_changed_at, lane.last_heard_at, lane.last_reading_at,
            lane.next_due_at, lane.version,
        ))  # fmt: skip
    if rows:
        tx.exec_driver_sql(_UPSERT[tx.dialect.paramstyle], rows)


def save_generation(tx: Connection, lane: DeviceLane) -> None:
    """A storage generation was granted."""
    tx.execute(
        update(device)
        .where(device.c.device_id == lane.device_id)
        .values(storage_id=lane.storage_id, generation=lane.generation)
    )


def retire(tx: Connection, device_id: str, now_ms: int) -> None:
    """Out of service for good."""
    still_in_service = (device.c.device_id == device_id) & device.c.retired_at.is_(None)
    tx.execute(update(device).where(still_in_service).values(retired_at=now_ms))
