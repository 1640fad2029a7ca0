"""Steps that no table of their own tells of: found again and again in what other tables hold.

Each look takes in what came in a while before it, so a look that was missed loses nothing, and a step found twice is
the same point. What came in while nobody looked for longer than `LOOK_BACK_MS` is not found.
"""

from typing import Final

import msgspec
from sqlalchemy import Connection, literal_column, select

from cloud.history.steps import point
from cloud.presence import decode
from cloud.tables import device, event, twin
from cloud.timeseries.points import Point
from fleet import series

LOOK_BACK_MS: Final = 6 * 3_600_000
IS_A_VISIT: Final = event.c.type == literal_column("'restocked'")
"""As the index `event_of_visits` says it: with a parameter in its place no database uses that."""
_FIRMWARE_KNOWN: Final = '%"firmware_at"%'
_LINES_MAX: Final = 1000
"""More slots than a machine has: keeps the points of two visits in one millisecond apart."""


class _Line(msgspec.Struct):
    slot: int
    sku: str
    removed_count: int = 0
    removed_reason: str = ""


class _Visit(msgspec.Struct):
    lines: list[_Line] = []


_visit: Final = msgspec.json.Decoder(_Visit)


def firmware_changes(tx: Connection, now_ms: int) -> list[Point]:
    """Devices that named another firmware than before."""
    rows = tx.execute(
        select(twin.c.device_id, device.c.kind, twin.c.presence)
        .join(device, device.c.device_id == twin.c.device_id)
        .where(twin.c.presence.like(_FIRMWARE_KNOWN))
    )
    found = [(row.device_id, row.kind, decode(row.presence)) for row in rows]
    return [
        point(
            series.FIRMWARE_STEP, 0, one.firmware_at, {"device_id": device_id, "kind": kind},
            {"firmware": one.firmware, "firmware_before": one.firmware_before},
        )
        for device_id, kind, one in found
        if one.firmware_at > now_ms - LOOK_BACK_MS
    ]  # fmt: skip


def waste(tx: Connection, now_ms: int) -> list[Point]:
    """Boxes that restockers took out, slot by slot, at the time of the visit."""
    rows = tx.execute(
        select(event.c.id, event.c.device_id, event.c.occurred_at, event.c.body)
        .join(device, device.c.device_id == event.c.device_id)
        .where(event.c.received_at > now_ms - LOOK_BACK_MS, IS_A_VISIT)
        .order_by(event.c.id)
    )
    points = []
    for row in rows:
        try:
            lines = _visit.decode(row.body).lines
        except msgspec.MsgspecError:  # another kind's event of this name
            continue
        points += [
            point(
                series.WASTE_STEP, row.id * _LINES_MAX + line.slot, row.occurred_at,
                {"device_id": row.device_id, "reason": line.removed_reason},
                {"boxes": line.removed_count, "meal": line.sku, "slot": line.slot},
            )
            for line in lines
            if line.removed_count
        ]  # fmt: skip
    return points
