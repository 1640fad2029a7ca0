"""Nobody may speak as this device any more: rows, an act in its lane, and what follows from them.

The rows alone stop it: the registrar puts the certificates on the revocation list and ends the live session, and
whoever loads the lane sees that it is revoked. The act in the lane makes that true at once where the lane is in memory.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from cloud import audit
from cloud.identity import certificates
from cloud.signals import Topic, notify
from cloud.tables import claim, device, enrolment, intent

REVOKED_REASON_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something, and when: `real_ms` is the true time, `at` the business time of audit and lanes."""

    actor: str
    real_ms: int
    at: int
    new_id: Callable[[], str]


def revoke(tx: Connection, device_id: str, reason: str, act: Act) -> bool:
    """Take everything back that a device has; False if there is no such device. Repeating it changes nothing more."""
    row = tx.execute(select(device.c.revoked_at).where(device.c.device_id == device_id)).one_or_none()
    if row is None:
        return False
    reason = reason[:REVOKED_REASON_CHARACTERS_MAX]
    if row.revoked_at is None:
        values = {"revoked_at": act.real_ms, "revoked_reason": reason}
        tx.execute(update(device).where(device.c.device_id == device_id).values(values))
    taken = certificates.revoke_all(tx, device_id, reason, act.real_ms)
    unused = (claim.c.device_id == device_id) & claim.c.used_at.is_(None) & claim.c.withdrawn_at.is_(None)
    tx.execute(update(claim).where(unused).values(withdrawn_at=act.real_ms))
    waiting = (enrolment.c.device_id == device_id) & enrolment.c.state.in_(["pending", "approved"])
    decided = {
        "state": "rejected",
        "decided_by": act.actor,
        "decided_at": act.real_ms,
        "reason": "the device was revoked",
    }
    tx.execute(update(enrolment).where(waiting).values(decided))
    _tell_lane(tx, device_id, "revoke", act)
    if row.revoked_at is None or taken:
        audit.record(tx, act.at, act.actor, "device.revoke", device_id, {"reason": reason, "certificates": taken})
    return True


def retire(tx: Connection, device_id: str, real_ms: int, at: int) -> None:
    """A device is out of service: its certificates are taken back. Its lane knows already."""
    mine = (device.c.device_id == device_id) & device.c.revoked_at.is_(None)
    tx.execute(update(device).where(mine).values(revoked_at=real_ms, revoked_reason="retired"))
    taken = certificates.revoke_all(tx, device_id, "retired", real_ms)
    if taken:
        audit.record(tx, at, "system", "device.revoke", device_id, {"reason": "retired", "certificates": taken})


def reinstate(tx: Connection, device_id: str, act: Act) -> None:
    """A revoked device has a new certificate: it is believed again. What was taken back stays so."""
    revoked = (device.c.device_id == device_id) & device.c.revoked_at.is_not(None)
    if tx.execute(update(device).where(revoked).values(revoked_at=None, revoked_reason="")).rowcount:
        _tell_lane(tx, device_id, "reinstate", act)


def _tell_lane(tx: Connection, device_id: str, name: str, act: Act) -> None:
    tx.execute(
        intent.insert().values(
            id=act.new_id(), device_id=device_id, name=name, actor=act.actor, arguments=json.dumps({}), at=act.at
        )
    )
    notify(tx, Topic.INTENTS)
