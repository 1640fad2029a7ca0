"""Incidents and sites in SQL, for reading; incidents are written by dispatch."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, case, func, select, update

from cloud.api.paging import older
from cloud.tables import alarm, device, incident, incident_alarm, incident_transition, person
from fleet.incident import ALARM_TRUE, ALARM_UNSEEN, AlarmState, IncidentState

_true = alarm.c.state.in_(sorted(ALARM_TRUE))


def _lines() -> Select[Any]:
    joined = incident.outerjoin(person, person.c.id == incident.c.acknowledged_by)
    return select(*incident.c, person.c.name.label("acknowledged_by_name")).select_from(joined)


def incidents(tx: Connection, *, is_open: bool, before: str | None, limit: int) -> list[Row[Any]]:
    """Newest first."""
    statement = _lines()
    if is_open:
        statement = statement.where(incident.c.state != IncidentState.ENDED.value)
    if before is not None:
        statement = statement.where(older(incident.c.opened_at, incident.c.id, before))
    return list(tx.execute(statement.order_by(incident.c.opened_at.desc(), incident.c.id.desc()).limit(limit)))


def incident_by_id(tx: Connection, incident_id: str) -> Row[Any] | None:
    """One incident, or None."""
    return tx.execute(_lines().where(incident.c.id == incident_id)).one_or_none()


def keys_of(tx: Connection, incident_ids: Sequence[str]) -> list[Row[Any]]:
    """(incident_id, kind, key, count, open_count), the most numerous first."""
    columns = (
        incident_alarm.c.incident_id,
        func.min(alarm.c.kind).label("kind"),
        alarm.c.key,
        func.count().label("count"),
        func.sum(case((_true, 1), else_=0)).label("open_count"),
    )
    joined = incident_alarm.join(alarm, alarm.c.id == incident_alarm.c.alarm_id)
    statement = select(*columns).select_from(joined).where(incident_alarm.c.incident_id.in_(incident_ids))
    grouped = statement.group_by(incident_alarm.c.incident_id, alarm.c.key)
    return list(tx.execute(grouped.order_by(func.count().desc(), alarm.c.key)))


def transitions(tx: Connection, incident_id: str) -> list[Row[Any]]:
    """Its history, oldest first."""
    columns = incident_transition.c
    statement = select(incident_transition).where(columns.incident_id == incident_id)
    return list(tx.execute(statement.order_by(columns.number)))


def unseen_alarms(tx: Connection, incident_id: str) -> list[Row[Any]]:
    """(id, device_id) of its alarms that nobody acknowledged."""
    joined = incident_alarm.join(alarm, alarm.c.id == incident_alarm.c.alarm_id)
    statement = select(alarm.c.id, alarm.c.device_id).select_from(joined)
    chosen = statement.where(incident_alarm.c.incident_id == incident_id, alarm.c.state.in_(sorted(ALARM_UNSEEN)))
    return list(tx.execute(chosen.order_by(alarm.c.id)))


def sites(tx: Connection) -> list[Row[Any]]:
    """(site, devices, open_alarms) of every site that has a device in service."""
    is_open = alarm.c.state != AlarmState.NORMAL.value
    joined = device.outerjoin(alarm, (alarm.c.device_id == device.c.device_id) & is_open)
    columns = (
        device.c.site,
        func.count(func.distinct(device.c.device_id)).label("devices"),
        func.count(alarm.c.id).label("open_alarms"),
    )
    statement = select(*columns).select_from(joined).where(device.c.retired_at.is_(None), device.c.site != "")
    return list(tx.execute(statement.group_by(device.c.site).order_by(device.c.site)))


def set_site(tx: Connection, site: str, device_ids: Sequence[str]) -> list[str]:
    """Put devices at a site; returns the ids that exist."""
    known = list(tx.scalars(select(device.c.device_id).where(device.c.device_id.in_(device_ids))))
    tx.execute(update(device).where(device.c.device_id.in_(known)).values(site=site))
    return known
