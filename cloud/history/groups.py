"""How many devices of a kind are in each of the groups that its boards draw over time, every business minute.

Counted here and not by the board's queries: those would read every device for every step of the time shown.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, exists, select

import devices
from cloud.history.steps import point
from cloud.synthetic import is_real
from cloud.tables import alarm, device, twin
from cloud.timeseries.points import Point
from fleet import series
from fleet.incident import ALARM_TRUE
from fleet.kind import NOT_HEARD
from fleet.panel import Group, Where

_TRUE: Final = tuple(state.value for state in ALARM_TRUE)
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class _Twin(msgspec.Struct):
    reading: dict[str, Any] | None = None


_twin: Final = msgspec.json.Decoder(_Twin)


def counted_groups(kind_name: str) -> dict[str, Group]:
    """Key → group, of all groups that are counted here."""
    panels = devices.role(kind_name, "panels").PANELS
    return {group.key: group for panel in panels for group in panel.groups if group.key}


def group_state(tx: Connection, now_ms: int) -> list[Point]:
    """One point for each group of each kind; devices that are silent or give no readings are in none."""
    groups = {name: found for name in devices.kinds() if (found := counted_groups(name))}
    counts = {(name, key): 0 for name, found in groups.items() for key in found}
    not_heard = exists().where(
        alarm.c.device_id == device.c.device_id, alarm.c.key.in_(NOT_HEARD), alarm.c.state.in_(_TRUE)
    )
    rows = tx.execute(
        select(device.c.kind, twin.c.state)
        .join(twin, twin.c.device_id == device.c.device_id)
        .where(device.c.retired_at.is_(None), is_real(device.c.device_id), device.c.kind.in_(sorted(groups)))
        .where(twin.c.last_reading_at > 0, ~not_heard)
    )
    for row in rows:
        try:
            reading = _twin.decode(row.state).reading or {}
        except msgspec.MsgspecError:  # another release's twin: the next reading replaces it
            continue
        for key, group in groups[row.kind].items():
            counts[row.kind, key] += is_in(group, reading)
    return [
        point(series.GROUP_STATE, 0, now_ms, {"kind": name, "group": key}, {"devices": count})
        for (name, key), count in sorted(counts.items())
    ]


def is_in(group: Group, reading: Mapping[str, Any]) -> bool:
    """Whether a reading meets every condition of a group; what it does not say meets none."""
    return all(_holds(where, reading.get(where.name)) for where in group.where)


def _holds(where: Where, said: Any) -> bool:
    wanted = where.value if isinstance(where.value, tuple) else (where.value,)
    return said is not None and any(_COMPARISONS[where.operator](said, value) for value in wanted)
