"""Enrolment, approval and revocation for people and boxes over HTTP."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from cloud.api.access import Person
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.enrolment import acts, repository
from cloud.enrolment.acts import Ask, EnrolmentRefusedError
from cloud.enrolment.lifecycle import EnrolmentEvent, EnrolmentState
from cloud.enrolment.schemas import (
    CertificateLine,
    EnrolmentAnswer,
    EnrolmentBody,
    IdentityAnswer,
    TraceLine,
    WaitingLine,
)
from cloud.identity import certificates, revocation
from cloud.identity.authority import RequestRefusedError
from cloud.identity.fingerprints import fingerprint_of_request, pin_of_root
from cloud.identity.revocation import Act
from cloud.members.throttle import Throttle
from cloud.ports import Database
from fleet.claim import SECRET_BYTES, Claim
from fleet.clock import Clock

T = TypeVar("T")

_log = structlog.get_logger(__name__)

FAILURES_PER_ADDRESS_MAX: Final = 10
TRACES_MAX: Final = 200
"""Refused attempts within the window that are written down; a flood of them must not fill the audit."""
WINDOW_S: Final = 900.0
TRACE_SHOWN: Final = 20
WAITING_SHOWN_MAX: Final = 200
_EVERYBODY: Final = "*"
_STATUS: Final = {
    "claim_unknown": 404, "claim_expired": 410, "claim_withdrawn": 410, "no_device": 404, "request_invalid": 422,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trust:
    """What a box is given beside its certificate. `services_root` is PEM; empty: enrolment is not set up here."""

    services_root: str = ""
    broker_host: str = ""
    broker_port: int = 8883
    command_keys: Callable[[], Mapping[str, str]] = field(default=dict)
    """Key id → PEM of every key whose commands a new box is to accept."""


class EnrolmentService:
    """Claims, requests, decisions. Signing is the registrar's work; `wake` tells it that there is some."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        real_now_ms: Callable[[], int],
        new_id: Callable[[], str],
        new_secret: Callable[[int], bytes],
        trust: Trust,
    ) -> None:
        self.wake: Callable[[], None] = lambda: None
        """Set where a registrar runs in this process."""
        self._database = database
        self._clock = clock
        self._real_now_ms = real_now_ms
        self._new_id = new_id
        self._new_secret = new_secret
        self._trust = trust
        self._by_address = Throttle(clock, failures_max=FAILURES_PER_ADDRESS_MAX, window_s=WINDOW_S)
        self._by_all = Throttle(clock, failures_max=TRACES_MAX, window_s=WINDOW_S)

    def _act(self, actor: str) -> Act:
        return Act(actor, self._real_now_ms(), self._clock.now_ms(), self._new_id)

    def authority(self) -> str:
        """PEM of the root that boxes are to trust; raises ProblemError 503."""
        if not self._trust.services_root:
            raise ProblemError(
                503, "enrolment_not_set_up", "Boxes can't be enrolled here",
                "Set FLEET_PKI_DIRECTORY or FLEET_BROKER_CA_FILE, and FLEET_DEVICES_BROKER_HOST.",
            )  # fmt: skip
        return self._trust.services_root

    # --- admins ------------------------------------------------------------------------------------------------

    async def claim(self, device_id: str, hardware_serial: str, person: Person) -> tuple[str, int]:
        """(claim to be shown once, real ms of its end). Raises ProblemError."""
        made = Claim(self._new_secret(SECRET_BYTES), pin_of_root(self.authority().encode()))
        act = self._act(person.id)
        expires_at = await self._write(lambda tx: acts.make_claim(tx, device_id, hardware_serial, made, act))
        return made.text, expires_at

    async def approve(self, device_id: str, fingerprint: str, person: Person) -> None:
        """The box that waits, if it has this fingerprint, gets its certificate. Raises ProblemError."""
        act = self._act(person.id)
        event = EnrolmentEvent.APPROVE
        await self._write(lambda tx: acts.decide(tx, device_id, event, act, fingerprint=fingerprint))
        self.wake()

    async def reject(self, device_id: str, reason: str, person: Person) -> None:
        """The box that waits gets nothing. Raises ProblemError."""
        act = self._act(person.id)
        await self._write(lambda tx: acts.decide(tx, device_id, EnrolmentEvent.REJECT, act, reason=reason))

    async def revoke(self, device_id: str, reason: str, person: Person) -> None:
        """Nobody may speak as this device any more. Raises ProblemError 404."""
        act = self._act(person.id)
        if not await self._database.write(lambda tx: revocation.revoke(tx, device_id, reason, act)):
            raise not_found("device", device_id)
        self.wake()

    async def _write(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.write(work)
        except EnrolmentRefusedError as error:
            raise _problem(error) from None

    async def waiting(self) -> list[WaitingLine]:
        """Boxes that wait for an admin, oldest first."""
        return [
            _waiting(row) for row in await self._database.read(lambda tx: repository.waiting(tx, WAITING_SHOWN_MAX))
        ]

    async def identity(self, device_id: str) -> IdentityAnswer:
        """Everything about one device's identity. Raises ProblemError 404."""
        row, waiting, issued, trace = await self._database.read(
            lambda tx: (
                repository.device_row(tx, device_id),
                repository.waiting_of(tx, device_id),
                certificates.of_device(tx, device_id),
                repository.trace(tx, device_id, TRACE_SHOWN),
            )
        )
        if row is None:
            raise not_found("device", device_id)
        now_ms = self._real_now_ms()
        lines = [certificate_line(one, now_ms) for one in issued]
        living = [one.expires_at for one in lines if one.state in {"issued", "in_use"}]
        return IdentityAnswer(
            device_id=device_id,
            revoked_at=row.revoked_at,
            revoked_reason=row.revoked_reason,
            waiting=_waiting(waiting) if waiting and now_ms - waiting.asked_at < acts.DECIDE_WITHIN_MS else None,
            certificates=lines,
            trace=[
                TraceLine(at=one.at, actor=one.actor, action=one.action, detail=json.loads(one.detail)) for one in trace
            ],
            now_ms=now_ms,
            expires_soon=bool(living) and max(living) - now_ms < certificates.EXPIRES_SOON_MS,
        )

    # --- boxes -------------------------------------------------------------------------------------------------

    async def ask(self, body: EnrolmentBody, address: str) -> EnrolmentAnswer:
        """A box asks with its claim. Raises ProblemError, after leaving a trace for the admins."""
        self._refuse_throttled(address)
        act = self._act(f"installer at {address}")
        try:
            try:
                fingerprint = fingerprint_of_request(body.request.encode())
            except RequestRefusedError as error:
                raise EnrolmentRefusedError("request_invalid", f"{error}.") from None
            wanted = Ask(
                base64.b32decode(body.secret), body.hardware_serial, body.request, fingerprint, _hash(body.poll_secret),
                address,
            )  # fmt: skip
            row = await self._database.write(lambda tx: acts.ask(tx, wanted, act))
        except IntegrityError:
            raise conflict("claim_used", "This claim is being used by another box at this moment.") from None
        except EnrolmentRefusedError as error:
            refusal = error
            self._by_address.failed(address)
            if self._by_all.wait_s(_EVERYBODY) <= 0:
                self._by_all.failed(_EVERYBODY)
                await self._database.write(lambda tx: acts.refused(tx, refusal, body.hardware_serial, address, act))
            else:
                _log.warning("refused enrolment not written down, there were too many", address=address)
            raise _problem(refusal) from None
        return await self._answer(row)

    async def progress(self, enrolment_id: str, poll_secret: str, address: str) -> EnrolmentAnswer:
        """How far a request came, for the box that knows its secret. Raises ProblemError 404, 429."""
        self._refuse_throttled(address)
        row = await self._database.read(lambda tx: repository.one(tx, enrolment_id))
        if row is None or not hmac.compare_digest(row.poll_hash, _hash(poll_secret)):
            self._by_address.failed(address)
            raise not_found("enrolment", enrolment_id)
        return await self._answer(row)

    def _refuse_throttled(self, address: str) -> None:
        wait_s = self._by_address.wait_s(address)
        if wait_s > 0:
            raise ProblemError(
                429, "too_many_attempts", "Too many attempts", f"Try again in {round(wait_s) + 1} s.",
                retry_after_s=round(wait_s) + 1,
            )  # fmt: skip

    async def _answer(self, row: Row[Any]) -> EnrolmentAnswer:
        device, certificate = await self._database.read(
            lambda tx: (
                repository.device_row(tx, row.device_id),
                certificates.for_key(tx, row.device_id, row.fingerprint),
            )
        )
        answer = EnrolmentAnswer(
            id=row.id, device_id=row.device_id, kind=device.kind if device else "", fingerprint=row.fingerprint,
            state=row.state, reason=row.reason,
        )  # fmt: skip
        if row.state != EnrolmentState.GRANTED.value or certificate is None or certificate.revoked_at is not None:
            return answer
        trust = self._trust
        return answer.model_copy(
            update={
                "chain": certificate.chain, "authority": self.authority(), "command_keys": dict(trust.command_keys()),
                "broker_host": trust.broker_host, "broker_port": trust.broker_port,
            }
        )  # fmt: skip


def certificate_line(row: Row[Any], now_ms: int) -> CertificateLine:
    """A certificate with the word for how far it came."""
    if row.revoked_at is not None:
        state = "revoked"
    elif row.expires_at <= now_ms:
        state = "expired"
    elif row.superseded_at is not None:
        state = "superseded"
    else:
        state = "issued" if row.proven_at is None else "in_use"
    return CertificateLine.model_validate({
        "serial": row.serial, "origin": row.origin, "state": state, "issued_at": row.issued_at,
        "expires_at": row.expires_at, "proven_at": row.proven_at, "revoked_at": row.revoked_at,
        "revoked_reason": row.revoked_reason,
    })  # fmt: skip


def _waiting(row: Row[Any]) -> WaitingLine:
    return WaitingLine(
        device_id=row.device_id, hardware_serial=row.hardware_serial, fingerprint=row.fingerprint, address=row.address,
        asked_at=row.asked_at,
    )  # fmt: skip


def _problem(error: EnrolmentRefusedError) -> ProblemError:
    status = _STATUS.get(error.code, 409)
    return ProblemError(status, error.code, "Not enrolled" if status != 409 else "Not possible now", str(error))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
