"""Alarms in SQL, for reading; their only writer is dispatch, inside the pipeline's commit."""

from typing import Any, Final

from sqlalchemy import Connection, Row, Select, case, func, select, tuple_

from cloud.api.paging import mark, older, place_of
from cloud.tables import (
    alarm,
    alarm_transition,
    device,
    hiding,
    incident,
    incident_alarm,
    maintenance_window,
    person,
    work_order,
)
from fleet.incident import AlarmState, AlarmView, IncidentState, Priority

_ranks: Final = {
    (priority.value, seen): number + len(Priority) * seen
    for number, priority in enumerate(Priority)
    for seen in (False, True)
}
_is_seen = alarm.c.state.in_((AlarmState.ACKNOWLEDGED.value, AlarmState.LATCHED_ACKNOWLEDGED.value))
_IS_SEEN: Final = frozenset({AlarmState.ACKNOWLEDGED.value, AlarmState.LATCHED_ACKNOWLEDGED.value})
_is_shown = alarm.c.view == AlarmView.SHOWN.value
# By name, not as "anything but normal": so the index finds the few among all that ever were.
_is_open = alarm.c.state.in_([state.value for state in AlarmState if state is not AlarmState.NORMAL])
_hider = person.alias("hider")
_open_incident = (
    select(func.max(incident_alarm.c.incident_id))
    .join(incident, incident.c.id == incident_alarm.c.incident_id)
    .where(incident_alarm.c.alarm_id == alarm.c.id, incident.c.state != IncidentState.ENDED.value)
    .correlate(alarm)
    .scalar_subquery()
)
_rank = case(
    *(
        ((alarm.c.priority == priority) & (_is_seen if seen else ~_is_seen), rank)
        for (priority, seen), rank in _ranks.items()
    ),
    else_=len(_ranks),
)


def _lines() -> Select[Any]:
    joined = (
        alarm.outerjoin(device, device.c.device_id == alarm.c.device_id)
        .outerjoin(person, person.c.id == alarm.c.acknowledged_by)
        .outerjoin(_hider, _hider.c.id == alarm.c.hidden_by)
    )
    columns = (
        *alarm.c,
        device.c.name.label("device_name"),
        func.coalesce(device.c.site, "").label("site"),
        person.c.name.label("acknowledged_by_name"),
        func.coalesce(_hider.c.name, alarm.c.hidden_by).label("hidden_by_name"),
        _open_incident.label("incident_id"),
    )
    return select(*columns).select_from(joined)


def _chosen(statement: Select[Any], wanted: dict[str, str]) -> Select[Any]:
    for column, value in wanted.items():
        if column == "site":
            statement = statement.where(device.c.site == value)
        elif column == "hidden":
            statement = statement.where(_is_open, ~_is_shown if value == "yes" else _is_shown)
        elif column == "incident_id":
            members = select(incident_alarm.c.alarm_id).where(incident_alarm.c.incident_id == value)
            statement = statement.where(alarm.c.id.in_(members))
        else:
            statement = statement.where(alarm.c[column] == value)
    return statement


def alarms(tx: Connection, *, wanted: dict[str, str], is_open: bool, before: str | None, limit: int) -> list[Row[Any]]:
    """Newest first. `wanted`: `state`, `kind`, `priority`, `device_id`, `view`, `site`, `hidden` (yes, no) → value."""
    statement = _chosen(_lines(), wanted)
    if is_open:
        statement = statement.where(_is_open)
    if before is not None:
        statement = statement.where(older(alarm.c.activated_at, alarm.c.id, before))
    return list(tx.execute(statement.order_by(alarm.c.activated_at.desc(), alarm.c.id.desc()).limit(limit)))


def open_alarms(tx: Connection, after: str | None, limit: int, wanted: dict[str, str] | None = None) -> list[Row[Any]]:
    """What is shown and not back to normal, in the order in which it needs people: see `urgency_of`.

    `after` is a mark of it. What belongs to an open incident stands there, unless `wanted` asks for it.
    """
    place = (_rank, -alarm.c.activated_at, alarm.c.id)
    statement = _chosen(_lines().where(_is_open), wanted or {})
    if not {"hidden", "view"} & (wanted or {}).keys():
        statement = statement.where(_is_shown)
    if not wanted:
        statement = statement.where(_open_incident.is_(None))
    if after is not None:
        rank, activated_at, alarm_id = place_of(after, 2)
        statement = statement.where(tuple_(*place) > tuple_(rank, -activated_at, alarm_id))
    return list(tx.execute(statement.order_by(*place).limit(limit)))


def urgency_of(row: Row[Any]) -> str:
    """The mark of an open alarm: what nobody has seen first, then by priority, then the newest."""
    return mark(_ranks[row.priority, row.state in _IS_SEEN], row.activated_at, row.id)


def alarm_by_id(tx: Connection, alarm_id: str) -> Row[Any] | None:
    """One alarm, or None."""
    return tx.execute(_lines().where(alarm.c.id == alarm_id)).one_or_none()


def transitions(tx: Connection, alarm_id: str) -> list[Row[Any]]:
    """Its history, oldest first."""
    columns = alarm_transition.c
    joined = alarm_transition.outerjoin(person, person.c.id == columns.actor)
    name = func.coalesce(person.c.name, columns.actor).label("actor_name")
    found = select(*columns, name).select_from(joined).where(columns.alarm_id == alarm_id)
    return list(tx.execute(found.order_by(columns.id)))


def devices_of_alarms(tx: Connection, alarm_ids: list[str]) -> dict[str, str]:
    """Alarm id → device id, of those that exist."""
    rows = tx.execute(select(alarm.c.id, alarm.c.device_id).where(alarm.c.id.in_(alarm_ids)))
    return {row.id: row.device_id for row in rows}


def hidings(tx: Connection, limit: int) -> list[Row[Any]]:
    """Shelves, windows and outages that are not over, the one that ends first at the top."""
    joined = hiding.outerjoin(device, device.c.device_id == hiding.c.device_id).outerjoin(
        person, person.c.id == hiding.c.actor
    )
    columns = (
        *hiding.c,
        device.c.name.label("device_name"),
        device.c.kind.label("kind"),
        func.coalesce(person.c.name, hiding.c.actor).label("actor_name"),
    )
    statement = select(*columns).select_from(joined).where(hiding.c.ended_at.is_(None))
    return list(
        tx.execute(statement.order_by(hiding.c.until_at.is_(None), hiding.c.until_at, hiding.c.id).limit(limit))
    )


def hiding_by_id(tx: Connection, hiding_id: str) -> Row[Any] | None:
    """A shelf, window or outage that is not over, or None."""
    columns = hiding.c
    return tx.execute(select(hiding).where(columns.id == hiding_id, columns.ended_at.is_(None))).one_or_none()


def window_devices(tx: Connection, scope: str, target: str) -> list[str]:
    """Devices in service that a window covers."""
    column = {"device": device.c.device_id, "kind": device.c.kind, "site": device.c.site}[scope]
    statement = select(device.c.device_id).where(column == target, device.c.retired_at.is_(None))
    return list(tx.scalars(statement.order_by(device.c.device_id)))


def windows(tx: Connection, window_id: str | None, limit: int) -> list[Row[Any]]:
    """Newest first, or the one."""
    covered = (
        select(func.count(func.distinct(hiding.c.device_id)))
        .where(hiding.c.window_id == maintenance_window.c.id)
        .correlate(maintenance_window)
        .scalar_subquery()
    )
    columns = maintenance_window.c
    statement = select(*columns, covered.label("device_count"))
    if window_id is not None:
        statement = statement.where(columns.id == window_id)
    return list(tx.execute(statement.order_by(columns.created_at.desc(), columns.id).limit(limit)))


def devices_in_window(tx: Connection, window_id: str) -> list[str]:
    """Devices for which the window is not over."""
    columns = hiding.c
    statement = select(columns.device_id).where(columns.window_id == window_id, columns.ended_at.is_(None))
    return list(tx.scalars(statement.order_by(columns.device_id)))


def order_of(tx: Connection, cause: str) -> str | None:
    """The work order made for a cause."""
    found: str | None = tx.scalar(select(work_order.c.id).where(work_order.c.cause == cause))
    return found
