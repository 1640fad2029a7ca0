"""SQL of rides. Every function runs inside the caller's transaction."""

from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from cloud.api.paging import older
from cloud.rides.lifecycle import OPEN_STATES, RideState
from cloud.tables import device, ride, twin

UNPAID: Final = "unpaid"


def bike(tx: Connection, device_id: str) -> Row[Any] | None:
    """A device in service with what its twin says: `kind, online, state`."""
    query: Select[Any] = select(device.c.kind, twin.c.online, twin.c.state)
    query = query.select_from(device.outerjoin(twin, twin.c.device_id == device.c.device_id))
    in_service = device.c.retired_at.is_(None) & device.c.revoked_at.is_(None)
    return tx.execute(query.where(device.c.device_id == device_id, in_service)).first()


def parked_bikes(tx: Connection, kind: str) -> list[Row[Any]]:
    """Bikes online and in no ride, with `device_id, state`."""
    taken = select(ride.c.device_id).where(ride.c.state.in_(OPEN_STATES))
    query = select(device.c.device_id, twin.c.state).join(twin, twin.c.device_id == device.c.device_id)
    query = query.where(device.c.kind == kind, device.c.retired_at.is_(None), device.c.revoked_at.is_(None))
    query = query.where(twin.c.online == 1)
    return list(tx.execute(query.where(device.c.device_id.not_in(taken)).order_by(device.c.device_id)))


def add(tx: Connection, **columns: Any) -> None:
    """Raises IntegrityError if the bike or the rider has an open ride."""
    tx.execute(insert(ride).values(**columns))


def one(tx: Connection, ride_id: str, person_id: str) -> Row[Any] | None:
    """A ride of that person; nobody else's is found."""
    return tx.execute(select(ride).where(ride.c.id == ride_id, ride.c.person_id == person_id)).first()


def by_command(tx: Connection, command_id: str) -> Row[Any] | None:
    """The ride that this unlock command was for."""
    return tx.execute(select(ride).where(ride.c.command_id == command_id)).first()


def open_of_person(tx: Connection, person_id: str) -> Row[Any] | None:
    """The ride that a person is in, if any."""
    return tx.execute(select(ride).where(ride.c.person_id == person_id, ride.c.state.in_(OPEN_STATES))).first()


def open_of_bike(tx: Connection, device_id: str) -> Row[Any] | None:
    """The ride that holds a bike, if any."""
    return tx.execute(select(ride).where(ride.c.device_id == device_id, ride.c.state.in_(OPEN_STATES))).first()


def latest_of_bike(tx: Connection, device_id: str) -> Row[Any] | None:
    """The ride of a bike that changed last."""
    query = select(ride).where(ride.c.device_id == device_id).order_by(ride.c.changed_at.desc(), ride.c.asked_at.desc())
    return tx.execute(query.limit(1)).first()


def of_person(tx: Connection, person_id: str, before: str | None, limit: int) -> list[Row[Any]]:
    """A person's rides, newest first; `before` is the `cloud.api.paging.mark` of one."""
    query = select(ride).where(ride.c.person_id == person_id)
    if before is not None:
        query = query.where(older(ride.c.asked_at, ride.c.id, before))
    return list(tx.execute(query.order_by(ride.c.asked_at.desc(), ride.c.id.desc()).limit(limit)))


def unpaid_of_person(tx: Connection, person_id: str) -> list[Row[Any]]:
    """Ended rides for which the union advanced money."""
    return list(tx.execute(select(ride).where(ride.c.person_id == person_id, ride.c.flagged.contains(UNPAID))))


def move(tx: Connection, ride_id: str, before: RideState, **columns: Any) -> bool:
    """Change a ride that is still in `before`; False if somebody was faster."""
    changed = tx.execute(update(ride).where(ride.c.id == ride_id, ride.c.state == before.value).values(**columns))
    return changed.rowcount == 1


def set_flags(tx: Connection, ride_id: str, flagged: str, at: int) -> None:
    """Replace what is flagged, as words joined by spaces."""
    tx.execute(update(ride).where(ride.c.id == ride_id).values(flagged=flagged, changed_at=at))


def overdue(tx: Connection, now_ms: int, limit: int) -> list[Row[Any]]:
    """Rides whose bike gave no evidence in time, earliest first."""
    query = select(ride).where(ride.c.state == RideState.UNLOCKING.value, ride.c.deadline_at < now_ms)
    return list(tx.execute(query.order_by(ride.c.deadline_at).limit(limit)))


def on_revoked_bikes(tx: Connection, limit: int) -> list[Row[Any]]:
    """Open rides on bikes that may not speak for themselves any more: revoked or retired."""
    query = select(ride).join(device, device.c.device_id == ride.c.device_id)
    unheard = device.c.revoked_at.is_not(None) | device.c.retired_at.is_not(None)
    query = query.where(ride.c.state.in_(OPEN_STATES), unheard)
    return list(tx.execute(query.order_by(ride.c.asked_at).limit(limit)))


def next_deadline(tx: Connection) -> int | None:
    """Earliest deadline of a ride that waits for evidence."""
    query = select(func.min(ride.c.deadline_at)).where(ride.c.state == RideState.UNLOCKING.value)
    value = tx.scalar(query)
    return None if value is None else int(value)
