"""Incidents: the alarms of one flood as one row with its list. Opened, growing, ended when all of them returned.

An incident groups, it hides nothing: each alarm keeps its own state and history. Its id is the flood's, so that a
repeated decision names the same row.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, update

from cloud.dispatch import notices
from cloud.dispatch.rows import insert_new
from cloud.model import AlarmChange, Notification
from cloud.tables import alarm, device, incident, incident_alarm, incident_transition
from fleet.incident import ALARM_TRUE, INCIDENT, AlarmEvent, IncidentEvent, IncidentState, Priority

DISPATCHER: Final = "dispatch"
_CHUNK: Final = 400
_URGENCY: Final = [priority.value for priority in Priority]
_TRUE: Final = sorted(state.value for state in ALARM_TRUE)
_COUNTED: Final = frozenset({AlarmEvent.ACTIVATE, AlarmEvent.RETURN, AlarmEvent.RETURN_LATCHED})


def reference_of(tier: str, flood_at: int) -> str:
    """The id of a flood's incident; its digests refer to it."""
    return f"flood:{tier}:{flood_at}"


def grow(tx: Connection, tier: str, flood_at: int, notifications: Sequence[Notification], now_ms: int) -> None:
    """Open the flood's incident, or add to it; work orders among the notices are no alarms and not in its list."""
    about = [one for one in notifications if one.kind_of == "alarm"]
    if not about:
        return
    incident_id = reference_of(tier, flood_at)
    first = {
        "id": incident_id, "state": IncidentState.OPEN.value, "tier": tier, "opened_at": flood_at, "changed_at": now_ms,
        "priority": min((one.priority for one in about), key=_URGENCY.index),
    }  # fmt: skip
    insert_new(tx, incident, [first], [incident.c.id])
    members = [{"incident_id": incident_id, "alarm_id": one.reference, "added_at": now_ms} for one in about]
    new = insert_new(tx, incident_alarm, members, [incident_alarm.c.alarm_id])
    if new:
        _recount(tx, incident_id, IncidentEvent.GROW, now_ms, note=f"{len(new)}")


def open_ones(tx: Connection, notifications: Sequence[Notification]) -> dict[str, str]:
    """Alarm → the open incident that it is part of, of those in `notifications` that are; the latest one."""
    wanted = sorted({one.reference for one in notifications if one.kind_of == "alarm"})
    columns = incident_alarm.c
    joined = incident_alarm.join(incident, incident.c.id == columns.incident_id)
    is_open = incident.c.state != IncidentState.ENDED.value
    found: dict[str, str] = {}
    for chunk in _chunks(wanted):
        statement = select(columns.alarm_id, columns.incident_id).select_from(joined)
        mine = statement.where(columns.alarm_id.in_(chunk), is_open)
        rows = tx.execute(mine.order_by(incident.c.opened_at, incident.c.id))
        found.update({row.alarm_id: row.incident_id for row in rows})
    return found


def told_again(tx: Connection, known: Mapping[str, str], now_ms: int) -> None:
    """People are told again of alarms that are part of an open incident: what was seen has to be seen once more."""
    for incident_id in sorted(set(known.values())):
        state = tx.scalar(select(incident.c.state).where(incident.c.id == incident_id))
        if state == IncidentState.ACKNOWLEDGED.value:
            count = sum(1 for one in known.values() if one == incident_id)
            _recount(tx, incident_id, IncidentEvent.GROW, now_ms, note=f"{count} told again")


def on_alarms(tx: Connection, changes: Sequence[AlarmChange], now_ms: int) -> dict[str, bool]:
    """Alarms returned or came back: incidents whose count changed by that, and whether they ended by it."""
    touched = _incidents_of(tx, {change.alarm_id for change in changes if change.event in _COUNTED})
    moved = {incident_id: _recount(tx, incident_id, None, now_ms) for incident_id in touched}
    return {incident_id: after == IncidentState.ENDED.value for incident_id, after in moved.items() if after}


def acknowledge(tx: Connection, incident_id: str, actor: str, note: str, at: int) -> bool:
    """A person has seen it; False if there is no such incident. Its alarms are acknowledged in their lanes."""
    row = tx.execute(select(incident).where(incident.c.id == incident_id)).one_or_none()
    if row is None:
        return False
    values = {"acknowledged_at": at, "acknowledged_by": actor}
    _move(tx, row, IncidentEvent.ACKNOWLEDGE, at, actor, note, values)
    notices.withdraw(tx, [incident_id], "acknowledged", at, urgent=False)
    return True


def _incidents_of(tx: Connection, alarm_ids: set[str]) -> list[str]:
    columns = incident_alarm.c
    found: set[str] = set()
    for chunk in _chunks(sorted(alarm_ids)):
        found.update(tx.scalars(select(columns.incident_id).where(columns.alarm_id.in_(chunk)).distinct()))
    return sorted(found)


def _recount(tx: Connection, incident_id: str, event: IncidentEvent | None, now_ms: int, note: str = "") -> str:
    """Count what is true now; the state after it, or an empty text if nothing changed."""
    row = tx.execute(select(incident).where(incident.c.id == incident_id).with_for_update()).one()
    members = select(alarm.c.state, alarm.c.priority, device.c.site, func.count().label("number")).select_from(
        incident_alarm.join(alarm, alarm.c.id == incident_alarm.c.alarm_id).outerjoin(
            device, device.c.device_id == alarm.c.device_id
        )
    )
    members = members.where(incident_alarm.c.incident_id == incident_id)
    counts: defaultdict[str, int] = defaultdict(int)
    sites: set[str] = set()
    priorities = {row.priority}
    for state, priority, site, number in tx.execute(members.group_by(alarm.c.state, alarm.c.priority, device.c.site)):
        counts[state] += number
        sites.add(site or "")
        priorities.add(priority)
    is_true = sum(counts[state] for state in _TRUE)
    values: dict[str, Any] = {
        "alarm_count": sum(counts.values()),
        "open_count": is_true,
        "site": sites.pop() if len(sites) == 1 else "",
        "priority": min(priorities, key=_URGENCY.index),
    }
    if event is None and not is_true and row.state != IncidentState.ENDED.value:
        event = IncidentEvent.END
        values["ended_at"] = now_ms
    elif event is None and is_true and row.state == IncidentState.ENDED.value:
        event = IncidentEvent.GROW
        note = "an alarm of it came back"
    if event is IncidentEvent.GROW:
        values["ended_at"] = None
    if event is not None:
        _move(tx, row, event, now_ms, DISPATCHER, note, values)
        return INCIDENT.next(IncidentState(row.state), event).value
    if row.open_count != is_true:
        tx.execute(update(incident).where(incident.c.id == incident_id).values(changed_at=now_ms, **values))
        return "counted"
    return ""


def _move(
    tx: Connection, row: Any, event: IncidentEvent, at: int, actor: str, note: str, values: dict[str, Any]
) -> None:
    before = IncidentState(row.state)
    after = INCIDENT.next(before, event)
    tx.execute(update(incident).where(incident.c.id == row.id).values(state=after.value, changed_at=at, **values))
    columns = incident_transition.c
    number = tx.scalar(select(func.max(columns.number)).where(columns.incident_id == row.id)) or 0
    step = {"incident_id": row.id, "number": number + 1, "event": event.value, "before": before.value,
            "after": after.value, "at": at, "actor": actor, "note": note}  # fmt: skip
    tx.execute(insert(incident_transition), [step])


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
