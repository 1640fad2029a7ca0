"""Where devices are, and where members of the crew are."""

import json
from collections.abc import Collection

from sqlalchemy import Connection, select

from cloud.geography import Point
from cloud.tables import crew, crew_member, crew_position, device, twin


def of_devices(tx: Connection, device_ids: Collection[str]) -> dict[str, Point]:
    """By the latest reading where the kind measures its position, else where it was put up; unknown ones are absent."""
    joined = device.outerjoin(twin, twin.c.device_id == device.c.device_id)
    columns = (device.c.device_id, device.c.latitude, device.c.longitude, twin.c.state)
    found: dict[str, Point] = {}
    for row in tx.execute(select(*columns).select_from(joined).where(device.c.device_id.in_(sorted(device_ids)))):
        reading = (json.loads(row.state) if row.state and '"latitude"' in row.state else {}).get("reading") or {}
        latitude, longitude = reading.get("latitude"), reading.get("longitude")
        if latitude is None or longitude is None:
            latitude, longitude = row.latitude, row.longitude
        if latitude is not None and longitude is not None:
            found[row.device_id] = Point(latitude, longitude)
    return found


def bases(tx: Connection, person_ids: Collection[str]) -> dict[str, Point]:
    """The home base of each one's crew; who has no crew is absent."""
    joined = crew_member.join(crew, crew.c.id == crew_member.c.crew_id)
    columns = (crew_member.c.person_id, crew.c.latitude, crew.c.longitude)
    rows = tx.execute(select(*columns).select_from(joined).where(crew_member.c.person_id.in_(sorted(person_ids))))
    return {row.person_id: Point(row.latitude, row.longitude) for row in rows}


def of_people(tx: Connection, person_ids: Collection[str], since_ms: int) -> dict[str, Point]:
    """The device they scanned last, if that was not before `since_ms`, else their crew's home base."""
    found = bases(tx, person_ids)
    columns = crew_position.c
    scanned = select(crew_position).where(columns.person_id.in_(sorted(person_ids)), columns.at >= since_ms)
    found.update({row.person_id: Point(row.latitude, row.longitude) for row in tx.execute(scanned)})
    return found
