"""Rows of `certificate` and `renewal`: what was issued, what proved itself, what is asked for. Times are real ms.

issued ─► proven (its device was heard with it) ─► superseded (a later one is proven)
   └──────────┴─────────────┴─► revoked, or over by its date
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, exists, func, select, text, update

from cloud.identity.authority import LEAF_DAYS
from cloud.tables import certificate, device, renewal

DAY_MS: Final = 86_400_000
ISSUED_PER_DAY_MAX: Final = 4
"""Renewals of one device within a day: a device that has lost its mind must not fill the table."""
EXPIRES_SOON_MS: Final = 14 * DAY_MS
OPEN_REQUESTS_MAX: Final = 200

_c = certificate.c
_ASK: Final = text("""
    INSERT INTO renewal (device_id, fingerprint, request, asked_at) VALUES (:device_id, :fingerprint, :request, :at)
    ON CONFLICT (device_id) DO UPDATE SET fingerprint = excluded.fingerprint, request = excluded.request,
        asked_at = excluded.asked_at, answered_at = NULL, refused = '', retry_after_s = 0
    WHERE renewal.fingerprint <> excluded.fingerprint OR renewal.answered_at IS NULL OR renewal.refused <> ''
""")


_ADOPT: Final = text("""
    INSERT INTO certificate (serial, device_id, fingerprint, origin, chain, issued_at, expires_at, proven_at)
    SELECT :serial, :device_id, :serial, 'prepared', '', :at, :until, :at
    WHERE NOT EXISTS (SELECT 1 FROM certificate WHERE device_id = :device_id)
    ON CONFLICT DO NOTHING
""")
_PREPARED: Final = text("""
    INSERT INTO certificate (serial, device_id, fingerprint, origin, chain, issued_at, expires_at)
    VALUES (:serial, :device_id, :serial, 'prepared', '', :at, :until) ON CONFLICT DO NOTHING
""")


def ask(tx: Connection, device_id: str, fingerprint: str, request: str, at: int) -> None:
    """A device wants a certificate for a new key; what was answered for the same key stays answered."""
    tx.execute(_ASK, {"device_id": device_id, "fingerprint": fingerprint, "request": request, "at": at})


def open_requests(tx: Connection) -> list[Row[Any]]:
    """Requests without an answer, oldest first."""
    query = select(renewal).where(renewal.c.answered_at.is_(None)).order_by(renewal.c.asked_at)
    return list(tx.execute(query.limit(OPEN_REQUESTS_MAX)))


def answer(
    tx: Connection, device_id: str, fingerprint: str, at: int, refused: str = "", retry_after_s: int = 0
) -> None:
    """A request is answered: a certificate stands in `certificate`, or it is refused."""
    mine = (renewal.c.device_id == device_id) & (renewal.c.fingerprint == fingerprint)
    tx.execute(update(renewal).where(mine).values(answered_at=at, refused=refused[:300], retry_after_s=retry_after_s))


def answers(tx: Connection, device_ids: Sequence[str]) -> list[Row[Any]]:
    """Answered requests of these devices: (device, fingerprint, refusal, its pause, chain)."""
    same = and_(_c.device_id == renewal.c.device_id, _c.fingerprint == renewal.c.fingerprint)
    query = (
        select(renewal.c.device_id, renewal.c.fingerprint, renewal.c.refused, renewal.c.retry_after_s, _c.chain)
        .select_from(renewal.outerjoin(certificate, same))
        .where(renewal.c.device_id.in_(device_ids), renewal.c.answered_at.is_not(None))
    )
    return list(tx.execute(query))


def for_key(tx: Connection, device_id: str, fingerprint: str) -> Row[Any] | None:
    """The certificate that this device got for this key."""
    query = select(certificate).where(_c.device_id == device_id, _c.fingerprint == fingerprint)
    return tx.execute(query).one_or_none()


def store(tx: Connection, **columns: Any) -> None:
    """A certificate was issued. Raises IntegrityError if that key has one."""
    tx.execute(certificate.insert().values(**columns))


def renewed_since(tx: Connection, device_id: str, since: int) -> int:
    """How many renewals it got since then."""
    query = select(func.count()).where(_c.device_id == device_id, _c.origin == "renewal", _c.issued_at >= since)
    return tx.scalar(query) or 0


def prove(tx: Connection, device_id: str, serial: str, at: int) -> None:
    """The device was heard with this certificate: those before it have served.

    One that came by a new enrolment sits in another box or on another storage: what was issued before it is taken back.
    """
    fresh = (_c.device_id == device_id) & (_c.serial == serial) & _c.proven_at.is_(None) & _c.revoked_at.is_(None)
    if not tx.execute(update(certificate).where(fresh).values(proven_at=at)).rowcount:
        _adopt(tx, device_id, serial, at)
        return
    proven = tx.execute(select(_c.issued_at, _c.origin).where(_c.serial == serial)).one()
    older = (_c.device_id == device_id) & (_c.serial != serial) & (_c.issued_at <= proven.issued_at)
    tx.execute(update(certificate).where(older & _c.superseded_at.is_(None)).values(superseded_at=at))
    if proven.origin == "enrolment":
        # A renewal issued since then was asked for by the box before it: this one has not spoken until now.
        late = (_c.device_id == device_id) & (_c.serial != serial) & (_c.origin == "renewal")
        replaced = (older | late) & _c.revoked_at.is_(None)
        waits = (renewal.c.device_id == device_id) & renewal.c.answered_at.is_(None)
        tx.execute(update(renewal).where(waits).values(answered_at=at, refused="the device was enrolled anew"))
        tx.execute(update(certificate).where(replaced).values(revoked_at=at, revoked_reason="enrolled anew"))


def _adopt(tx: Connection, device_id: str, serial: str, at: int) -> None:
    """A device prepared elsewhere speaks for the first time: now its certificate can be revoked, too.

    Only if nothing is known of its certificates: the name it gives is its own word, and must not hide the true one.
    """
    tx.execute(_ADOPT, {"serial": serial, "device_id": device_id, "at": at, "until": at + LEAF_DAYS * DAY_MS})


def prepared(tx: Connection, made: Iterable[tuple[str, str, int, int]]) -> None:
    """(serial, device, from, until) of certificates made at a desk; those that are known already stay as they are."""
    rows = [
        {"serial": serial, "device_id": device_id, "at": at, "until": until} for serial, device_id, at, until in made
    ]
    if rows:
        tx.execute(_PREPARED, rows)


def revoke_all(tx: Connection, device_id: str, reason: str, at: int) -> int:
    """Take back everything that was issued for a device; how many there were."""
    mine = (_c.device_id == device_id) & _c.revoked_at.is_(None)
    return int(tx.execute(update(certificate).where(mine).values(revoked_at=at, revoked_reason=reason)).rowcount)


def of_device(tx: Connection, device_id: str, limit: int = 20) -> list[Row[Any]]:
    """Latest first."""
    query = select(certificate).where(_c.device_id == device_id)
    return list(tx.execute(query.order_by(_c.issued_at.desc(), _c.serial).limit(limit)))


def listed(tx: Connection, device_id: str = "", *, expiring_before: int | None = None) -> list[Row[Any]]:
    """Certificates by device, latest first; `expiring_before`: the ones that end before it with no successor."""
    query = select(certificate)
    if device_id:
        query = query.where(_c.device_id == device_id)
    if expiring_before is not None:
        query = query.where(_expiring(expiring_before))
    return list(tx.execute(query.order_by(_c.device_id, _c.issued_at.desc(), _c.serial)))


def expiring_count(tx: Connection, before: int) -> int:
    """Devices in service whose certificate ends before then, none newer being there."""
    return tx.scalar(select(func.count(func.distinct(_c.device_id))).where(_expiring(before))) or 0


def _expiring(before: int) -> Any:
    later = certificate.alias("later")
    newer = exists().where(
        later.c.device_id == _c.device_id, later.c.expires_at >= before, later.c.revoked_at.is_(None)
    )
    in_service = exists().where(
        device.c.device_id == _c.device_id, device.c.retired_at.is_(None), device.c.revoked_at.is_(None)
    )
    return (_c.expires_at < before) & _c.revoked_at.is_(None) & ~newer & in_service


def newly_revoked(tx: Connection, since: int) -> list[Row[Any]]:
    """(serial, device, revoked_at) of what was revoked at `since` or later."""
    query = select(_c.serial, _c.device_id, _c.revoked_at).where(_c.revoked_at >= since)
    return list(tx.execute(query.order_by(_c.revoked_at)))
