"""Rows of `claim` and `enrolment`, and the trace of what was refused. Times are real ms."""

from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from cloud.enrolment.lifecycle import EnrolmentState
from cloud.tables import audit, claim, device, enrolment

TRACE_ACTIONS: Final = (
    "device.claim", "enrolment.refused", "enrolment.asked", "enrolment.approve", "enrolment.reject",
    "enrolment.expired", "certificate.issued", "certificate.refused", "device.revoke",
)  # fmt: skip


def device_row(tx: Connection, device_id: str) -> Row[Any] | None:
    return tx.execute(select(device).where(device.c.device_id == device_id)).one_or_none()


def add_claim(tx: Connection, **columns: Any) -> None:
    """A new claim; those that the device had and nobody used are withdrawn."""
    unused = (claim.c.device_id == columns["device_id"]) & claim.c.used_at.is_(None) & claim.c.withdrawn_at.is_(None)
    tx.execute(update(claim).where(unused).values(withdrawn_at=columns["made_at"]))
    tx.execute(claim.insert().values(**columns))


def claim_by_hash(tx: Connection, secret_hash: str) -> Row[Any] | None:
    return tx.execute(select(claim).where(claim.c.secret_hash == secret_hash)).one_or_none()


def device_of_serial(tx: Connection, hardware_serial: str) -> str:
    """The device for which a claim for this hardware was made last; empty if there is none."""
    query = select(claim.c.device_id).where(claim.c.hardware_serial == hardware_serial)
    return tx.scalar(query.order_by(claim.c.made_at.desc()).limit(1)) or ""


def use_claim(tx: Connection, claim_id: str, at: int) -> None:
    tx.execute(update(claim).where(claim.c.id == claim_id, claim.c.used_at.is_(None)).values(used_at=at))


def add(tx: Connection, **columns: Any) -> None:
    """Raises IntegrityError if the claim has a request already."""
    tx.execute(enrolment.insert().values(**columns))


def by_claim(tx: Connection, claim_id: str) -> Row[Any] | None:
    return tx.execute(select(enrolment).where(enrolment.c.claim_id == claim_id)).one_or_none()


def one(tx: Connection, enrolment_id: str) -> Row[Any] | None:
    return tx.execute(select(enrolment).where(enrolment.c.id == enrolment_id)).one_or_none()


def set_poll_hash(tx: Connection, enrolment_id: str, poll_hash: str, address: str) -> None:
    tx.execute(update(enrolment).where(enrolment.c.id == enrolment_id).values(poll_hash=poll_hash, address=address))


def waiting_of(tx: Connection, device_id: str) -> Row[Any] | None:
    """The latest request of a device that a person has to decide on."""
    mine = (enrolment.c.device_id == device_id) & (enrolment.c.state == EnrolmentState.PENDING.value)
    return tx.execute(select(enrolment).where(mine).order_by(enrolment.c.asked_at.desc()).limit(1)).one_or_none()


def latest_of(tx: Connection, device_id: str) -> Row[Any] | None:
    query = select(enrolment).where(enrolment.c.device_id == device_id)
    return tx.execute(query.order_by(enrolment.c.asked_at.desc()).limit(1)).one_or_none()


def waiting(tx: Connection, limit: int) -> list[Row[Any]]:
    """Requests of all devices that wait for a person, oldest first."""
    query = select(enrolment).where(enrolment.c.state == EnrolmentState.PENDING.value)
    return list(tx.execute(query.order_by(enrolment.c.asked_at).limit(limit)))


def approved(tx: Connection, limit: int) -> list[Row[Any]]:
    """Requests that may be signed, oldest first."""
    query = select(enrolment).where(enrolment.c.state == EnrolmentState.APPROVED.value)
    return list(tx.execute(query.order_by(enrolment.c.asked_at).limit(limit)))


def move(tx: Connection, enrolment_id: str, before: EnrolmentState, after: EnrolmentState, **columns: Any) -> bool:
    """One step; False if it is not in `before` any more."""
    mine = (enrolment.c.id == enrolment_id) & (enrolment.c.state == before.value)
    return bool(tx.execute(update(enrolment).where(mine).values(state=after.value, **columns)).rowcount)


def expire(tx: Connection, asked_before: int, at: int) -> int:
    """Requests on which nobody decided in time are over; how many there were."""
    old = (enrolment.c.state == EnrolmentState.PENDING.value) & (enrolment.c.asked_at < asked_before)
    values = {"state": EnrolmentState.EXPIRED.value, "decided_at": at, "reason": "nobody approved it within a day"}
    return int(tx.execute(update(enrolment).where(old).values(values)).rowcount)


def trace(tx: Connection, device_id: str, limit: int) -> list[Row[Any]]:
    """What happened around a device's identity, latest first."""
    mine = (audit.c.object == device_id) & audit.c.action.in_(TRACE_ACTIONS)
    return list(tx.execute(select(audit).where(mine).order_by(audit.c.id.desc()).limit(limit)))
