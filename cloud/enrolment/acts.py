"""What admins and boxes do about a device's identity, each inside one transaction; web and command line share them."""

import hmac
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row

from cloud import audit
from cloud.devices import repository as device_rows
from cloud.enrolment import repository
from cloud.enrolment.lifecycle import ENROLMENT, EnrolmentEvent, EnrolmentState
from cloud.identity.revocation import Act
from fleet.claim import Claim, claim_hash

CLAIM_LIFETIME_MS: Final = 15 * 60_000
DECIDE_WITHIN_MS: Final = 24 * 3_600_000
FINGERPRINT_DIGITS_MIN: Final = 8


class EnrolmentRefusedError(ValueError):
    """Not done; the text says why and what to do. `code` is a stable word, `device_id` whom it concerns, if known."""

    def __init__(self, code: str, text: str, device_id: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.device_id = device_id


@dataclass(frozen=True, slots=True)
class NewDevice:
    """What is written down about a device that is not known yet."""

    kind: str
    name: str = ""
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What a box sends: its claim's secret, the serial on its housing, the request and the fingerprint of its key."""

    secret: bytes
    hardware_serial: str
    request: str
    fingerprint: str
    poll_hash: str
    address: str


def plain_serial(text: str) -> str:
    """A serial as it is compared: no blanks around it, capitals."""
    return text.strip().upper()


def make_claim(tx: Connection, device_id: str, hardware_serial: str, claim: Claim, act: Act) -> int:
    """A claim for one piece of hardware; returns when it ends. Raises EnrolmentRefusedError."""
    row = repository.device_row(tx, device_id)
    if row is None:
        raise EnrolmentRefusedError("no_device", f"there is no device {device_id}; enrol it with its kind", device_id)
    if row.retired_at is not None:
        raise EnrolmentRefusedError("retired", f"{device_id} is retired; enrol the box under a new id", device_id)
    expires_at = act.real_ms + CLAIM_LIFETIME_MS
    serial = plain_serial(hardware_serial)
    repository.add_claim(
        tx, id=act.new_id(), device_id=device_id, hardware_serial=serial, secret_hash=claim_hash(claim.secret),
        made_by=act.actor, made_at=act.real_ms, expires_at=expires_at,
    )  # fmt: skip
    detail = {"serial": serial, "expires_at": expires_at}
    audit.record(tx, act.at, act.actor, "device.claim", device_id, detail)
    return expires_at


def register(tx: Connection, device_id: str, new: NewDevice, act: Act) -> bool:
    """Make a device known; False if it is known already, as the same kind. Raises EnrolmentRefusedError."""
    row = repository.device_row(tx, device_id)
    if row is not None:
        if row.kind != new.kind:
            raise EnrolmentRefusedError("other_kind", f"{device_id} is a {row.kind}, not a {new.kind}", device_id)
        return False
    device_rows.add_device(
        tx, device_id=device_id, kind=new.kind, name=new.name, latitude=new.latitude, longitude=new.longitude,
        enrolled_at=act.at,
    )  # fmt: skip
    audit.record(tx, act.at, act.actor, "device.enrol", device_id, {"kind": new.kind})
    return True


def ask(tx: Connection, wanted: Ask, act: Act) -> Row[Any]:
    """A box asks with its claim; asking again with the same key finds the same request.

    Raises:
        EnrolmentRefusedError: with a text for the installer.
    """
    found = repository.claim_by_hash(tx, claim_hash(wanted.secret))
    serial = plain_serial(wanted.hardware_serial)
    if found is None:
        raise EnrolmentRefusedError(
            "claim_unknown", "This claim is not known: compare what you typed, or ask the admin for a new one.",
            repository.device_of_serial(tx, serial),
        )  # fmt: skip
    known = repository.by_claim(tx, found.id)
    if known is not None and known.fingerprint == wanted.fingerprint and found.hardware_serial == serial:
        repository.set_poll_hash(tx, known.id, wanted.poll_hash, wanted.address)  # its answer was lost
        return known
    _refuse_unusable(found, known, serial, act)
    enrolment_id = act.new_id()
    repository.use_claim(tx, found.id, act.real_ms)
    repository.add(
        tx, id=enrolment_id, claim_id=found.id, device_id=found.device_id, hardware_serial=serial,
        fingerprint=wanted.fingerprint, request=wanted.request, poll_hash=wanted.poll_hash, address=wanted.address,
        asked_at=act.real_ms, state=ENROLMENT.initial.value,
    )  # fmt: skip
    detail = {"serial": serial, "address": wanted.address, "fingerprint": wanted.fingerprint}
    audit.record(tx, act.at, act.actor, "enrolment.asked", found.device_id, detail)
    row = repository.one(tx, enrolment_id)
    assert row is not None
    return row


def _refuse_unusable(found: Row[Any], known: Row[Any] | None, serial: str, act: Act) -> None:
    device_id = found.device_id
    if known is not None or found.used_at is not None:
        raise EnrolmentRefusedError(
            "claim_used", "This claim was used already, by another key: ask the admin for a new one, and tell them "
            "if it was not you.", device_id,
        )  # fmt: skip
    if found.withdrawn_at is not None:
        raise EnrolmentRefusedError(
            "claim_withdrawn", "This claim was withdrawn, because a newer one was made: use that one.", device_id
        )
    if act.real_ms >= found.expires_at:
        raise EnrolmentRefusedError(
            "claim_expired", "This claim has ended; it was good for 15 minutes. Ask the admin for a new one.", device_id
        )
    if found.hardware_serial != serial:
        raise EnrolmentRefusedError(
            "wrong_serial", f"This claim is for another box, not for serial {serial}: read the serial on the housing, "
            "or ask the admin for a claim for this box.", device_id,
        )  # fmt: skip


def refused(tx: Connection, error: EnrolmentRefusedError, serial: str, address: str, act: Act) -> None:
    """Leave a trace of an attempt on the device's page and in the audit."""
    detail = {"code": error.code, "serial": plain_serial(serial)[:64], "address": address}
    audit.record(tx, act.at, act.actor, "enrolment.refused", error.device_id, detail)


def decide(
    tx: Connection, device_id: str, event: EnrolmentEvent, act: Act, *, fingerprint: str = "", reason: str = ""
) -> Row[Any]:
    """An admin approves or rejects the request that waits. Raises EnrolmentRefusedError."""
    row = repository.waiting_of(tx, device_id)
    if row is None or act.real_ms - row.asked_at >= DECIDE_WITHIN_MS:
        raise EnrolmentRefusedError(
            "nothing_waits", f"No box waits for approval as {device_id}; run `fleet edge enrol` on the box first.",
            device_id,
        )  # fmt: skip
    wanted = "".join(fingerprint.split()).replace(":", "").lower()
    compared = len(wanted) >= FINGERPRINT_DIGITS_MIN and hmac.compare_digest(
        row.fingerprint[: len(wanted)].encode(), wanted.encode()
    )
    if not compared and (wanted or event is EnrolmentEvent.APPROVE):  # blanks and colons alone compare nothing
        raise EnrolmentRefusedError(
            "other_fingerprint", f"The box that waits has the fingerprint {row.fingerprint}, not {wanted or 'none'}: "
            "if that is not what the box shows, reject it.", device_id,
        )  # fmt: skip
    before = EnrolmentState(row.state)
    after = ENROLMENT.next(before, event)
    decided = {"decided_by": act.actor, "decided_at": act.real_ms, "reason": reason}
    if not repository.move(tx, row.id, before, after, **decided):
        raise EnrolmentRefusedError("nothing_waits", "Somebody else decided just now.", device_id)
    detail = {"fingerprint": row.fingerprint, "serial": row.hardware_serial, "address": row.address, "reason": reason}
    audit.record(tx, act.at, act.actor, f"enrolment.{event.value}", device_id, detail)
    return row
