"""SQL of a device's data link: where its lanes stand, what it discarded, what could not be used."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, func, select

from cloud.tables import device, gap, quarantine, twin

SHOWN_MAX: Final = 20
"""Ranges and messages listed of one device, newest first; counts count all."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Business time of a look, and how many ms what is stored may be behind the device."""

    now_ms: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class LinkRows:
    """`row` is the device with its twin's columns, None in all of them for one that never spoke."""

    row: Row[Any]
    gaps: tuple[Row[Any], ...]
    evicted_ever: int
    quarantined: tuple[Row[Any], ...]


def read_link(tx: Connection, device_id: str) -> LinkRows | None:
    """Everything about one device's link; None for an unknown device."""
    columns: tuple[ColumnElement[Any], ...] = (
        device.c.device_id, device.c.kind, device.c.storage_id, device.c.generation.label("granted_generation"),
        twin.c.presence, twin.c.state, twin.c.generation, twin.c.emergency_seq, twin.c.event_seq, twin.c.telemetry_seq,
        twin.c.link_boot_epoch, twin.c.link_connection,
    )  # fmt: skip
    joined = device.outerjoin(twin, twin.c.device_id == device.c.device_id)
    row = tx.execute(select(*columns).select_from(joined).where(device.c.device_id == device_id)).one_or_none()
    if row is None:
        return None
    gaps = select(gap).where(gap.c.device_id == device_id).order_by(gap.c.id.desc()).limit(SHOWN_MAX)
    evicted = select(func.sum(gap.c.last_seq - gap.c.first_seq + 1)).where(gap.c.device_id == device_id)
    refused = select(
        quarantine.c.id, quarantine.c.received_at, quarantine.c.topic, quarantine.c.lane, quarantine.c.seq,
        quarantine.c.reason,
    ).where(quarantine.c.device_id == device_id)  # fmt: skip
    return LinkRows(
        row,
        tuple(tx.execute(gaps)),
        int(tx.scalar(evicted) or 0),
        tuple(tx.execute(refused.order_by(quarantine.c.id.desc()).limit(SHOWN_MAX))),
    )
