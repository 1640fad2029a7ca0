"""Signs what people approved and what devices may renew, and carries revocations to the broker.

Runs where the devices' online key is. Work comes as rows, so it does not matter which process, or which command on the
command line, made them; two registrars at once do the same work once, because a key has one certificate per device.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import IntegrityError, OperationalError

from cloud import audit
from cloud.enrolment import repository as enrolments
from cloud.enrolment.acts import DECIDE_WITHIN_MS
from cloud.enrolment.lifecycle import EnrolmentState
from cloud.identity import certificates
from cloud.identity.authority import DeviceSigner, IssuedCertificate, RequestRefusedError
from cloud.identity.pki import PkiError
from cloud.identity.revocation import Act, reinstate
from cloud.ports import Database
from cloud.tables import device
from fleet.clock import Clock

_log = structlog.get_logger(__name__)

LOOK_S: Final = 0.5
COUNT_S: Final = 60.0
PUBLISH_AGAIN_S: Final = 5.0
"""A list that could not be published is tried again after this; live sessions end meanwhile all the same."""
BATCH_MAX: Final = 100
ACTOR: Final = "registrar"
_OVERLAP_MS: Final = 60_000
"""So far back every look goes: a commit may become visible a little after the moment it names."""
_DOWN_MS: Final = 600_000
_HOUR_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Time and ids. `real_now_ms` is what certificates are dated with, `clock` is business time."""

    clock: Clock
    real_now_ms: Callable[[], int]
    new_id: Callable[[], str]

    def act(self, actor: str = ACTOR) -> Act:
        """Now, by that person."""
        return Act(actor, self.real_now_ms(), self.clock.now_ms(), self.new_id)


class Registrar:
    """One per process that holds the key."""

    def __init__(
        self,
        database: Database,
        signer: DeviceSigner,
        around: Surroundings,
        *,
        publish_list: Callable[[], Awaitable[bool]],
        end_session: Callable[[str], Awaitable[None]],
        prepared: Callable[[float], Iterable[tuple[str, str, int, int]]] = lambda _: (),
    ) -> None:
        """`publish_list` puts what the database holds as revoked on the list; true once the broker has read it.

        `prepared` lists certificates made at a desk since that moment (file time, seconds): so they can be revoked.
        """
        self.expiring = 0
        """Devices whose certificate ends within two weeks and was not renewed."""
        self._database = database
        self._signer = signer
        self._around = around
        self._publish_list = publish_list
        self._end_session = end_session
        self._wake = asyncio.Event()
        self._carried: dict[str, int] = {}
        self._since_ms = 0
        self._counted_s = float("-inf")
        self._unended: dict[str, None] = {}
        self._ended: dict[str, int] = {}
        self._publish_again_s = float("-inf")
        self._folder_problem = ""
        self._prepared = prepared
        self._imported_s = 0.0

    def wake(self) -> None:
        """There is work: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.look()
            except OperationalError as error:
                _log.warning("registrar: the database does not answer", error=str(error))
            except PkiError as error:  # nothing is signed until it is mended; the rest of the process goes on
                if str(error) != self._folder_problem:
                    _log.error("registrar: the keys cannot be used", reason=str(error))
                self._folder_problem = str(error)
            else:
                self._folder_problem = ""
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def look(self) -> None:
        """Do once whatever is to be done; revocations first."""
        await self._carry_revocations()
        requests, approved = await self._database.read(
            lambda tx: (certificates.open_requests(tx), enrolments.approved(tx, BATCH_MAX))
        )
        for request in requests:
            await self._once(partial(self._renew, request=request))
        for enrolment in approved:
            await self._once(partial(self._grant, enrolment=enrolment))
        now_s = self._around.clock.monotonic_s()
        if now_s - self._counted_s >= COUNT_S:
            self._counted_s = now_s
            await self._count()

    async def _count(self) -> None:
        now_ms = self._around.real_now_ms()
        before = now_ms + certificates.EXPIRES_SOON_MS
        self.expiring = await self._database.read(lambda tx: certificates.expiring_count(tx, before))
        await self._database.write(lambda tx: enrolments.expire(tx, now_ms - DECIDE_WITHIN_MS, now_ms))
        made = await asyncio.to_thread(lambda: list(self._prepared(self._imported_s)))
        if made:
            await self._database.write(lambda tx: certificates.prepared(tx, made))
        self._imported_s = now_ms / 1000 - 2 * COUNT_S

    async def _once(self, work: Callable[[Connection], None]) -> None:
        try:
            await self._database.write(work)
        except IntegrityError:  # another registrar was quicker: its certificate is the one that counts
            _log.info("a certificate was issued by another process at the same moment")

    # --- signing -----------------------------------------------------------------------------------------------

    def _renew(self, tx: Connection, request: Row[Any]) -> None:
        now_ms = self._around.real_now_ms()
        if certificates.for_key(tx, request.device_id, request.fingerprint) is not None:
            certificates.answer(tx, request.device_id, request.fingerprint, now_ms)  # asked again: the same one
            return
        refusal, pause_s = self._why_not(tx, request.device_id, now_ms)
        if not refusal:
            try:
                self._issue(tx, request.device_id, request.fingerprint, request.request, "renewal")
            except RequestRefusedError as error:
                refusal, pause_s = str(error), 24 * _HOUR_S
        certificates.answer(tx, request.device_id, request.fingerprint, now_ms, refusal, pause_s)
        if refusal:
            audit.record(
                tx, self._around.clock.now_ms(), ACTOR, "certificate.refused", request.device_id, {"reason": refusal}
            )

    def _why_not(self, tx: Connection, device_id: str, now_ms: int) -> tuple[str, int]:
        row = tx.execute(select(device).where(device.c.device_id == device_id)).one_or_none()
        if row is None or row.retired_at is not None or row.revoked_at is not None:
            return f"{device_id} is not in service: enrol it anew", 24 * _HOUR_S
        if certificates.renewed_since(tx, device_id, now_ms - certificates.DAY_MS) >= certificates.ISSUED_PER_DAY_MAX:
            return f"{device_id} got {certificates.ISSUED_PER_DAY_MAX} certificates within a day: see its page", _HOUR_S
        return "", 0

    def _grant(self, tx: Connection, enrolment: Row[Any]) -> None:
        now_ms = self._around.real_now_ms()
        step = EnrolmentState.APPROVED, EnrolmentState.GRANTED
        row = tx.execute(select(device.c.retired_at).where(device.c.device_id == enrolment.device_id)).one_or_none()
        try:
            if row is None or row.retired_at is not None:
                raise RequestRefusedError(f"{enrolment.device_id} is retired; enrol the box under a new id")
            if certificates.for_key(tx, enrolment.device_id, enrolment.fingerprint) is not None:
                raise RequestRefusedError(
                    "this key was certified before: remove the files of the attempt on the box and enrol with a new key"
                )
            self._issue(tx, enrolment.device_id, enrolment.fingerprint, enrolment.request, "enrolment")
        except RequestRefusedError as error:
            enrolments.move(tx, enrolment.id, EnrolmentState.APPROVED, EnrolmentState.REJECTED, reason=str(error))
            return
        if not enrolments.move(tx, enrolment.id, *step):
            raise IntegrityError("enrolment", None, RuntimeError("it was decided anew"))
        reinstate(tx, enrolment.device_id, self._around.act())
        _log.info("device enrolled", device_id=enrolment.device_id, fingerprint=enrolment.fingerprint, at=now_ms)

    def _issue(self, tx: Connection, device_id: str, fingerprint: str, request: str, origin: str) -> None:
        now = dt.datetime.fromtimestamp(self._around.real_now_ms() / 1000, dt.UTC)
        issued: IssuedCertificate = self._signer.sign(request.encode(), device_id, now)
        certificates.store(
            tx, serial=issued.serial, device_id=device_id, fingerprint=fingerprint, origin=origin,
            chain=issued.chain.decode(), issued_at=_ms(now), expires_at=_ms(issued.not_after),
        )  # fmt: skip
        detail = {"serial": issued.serial, "origin": origin, "expires_at": _ms(issued.not_after)}
        audit.record(tx, self._around.clock.now_ms(), ACTOR, "certificate.issued", device_id, detail)

    # --- revoking ----------------------------------------------------------------------------------------------

    async def _carry_revocations(self) -> None:
        """List first, then the live session: a device that comes back meets the list."""
        now_ms = self._around.real_now_ms()
        since = self._since_ms or now_ms - _DOWN_MS
        rows, revoked = await self._database.read(
            lambda tx: (certificates.newly_revoked(tx, since - _OVERLAP_MS), _revoked_since(tx, since - _OVERLAP_MS))
        )
        fresh = [row for row in rows if row.serial not in self._carried]
        gone = [device_id for device_id, at in revoked if self._carried.get(f"device {device_id}") != at]
        carried_out = not (fresh or gone) or await self._publish()
        self._unended.update({device_id: None for device_id, at in revoked if self._ended.get(device_id) != at})
        self._ended.update(revoked)
        await self._end_sessions(list(self._unended))
        if not carried_out:  # looked for again from the same moment on, until the broker has the list
            return
        self._since_ms = now_ms
        self._carried.update({row.serial: row.revoked_at for row in fresh})
        self._carried.update({f"device {device_id}": at for device_id, at in revoked})
        self._ended = {device_id: at for device_id, at in self._ended.items() if at >= since - 2 * _OVERLAP_MS}
        self._carried = {key: at for key, at in self._carried.items() if at >= since - 2 * _OVERLAP_MS}

    async def _publish(self) -> bool:
        now_s = self._around.clock.monotonic_s()
        if now_s < self._publish_again_s:
            return False
        published = await self._publish_list()
        self._publish_again_s = float("-inf") if published else now_s + PUBLISH_AGAIN_S
        return published

    async def _end_sessions(self, device_ids: Sequence[str]) -> None:
        for device_id in device_ids:
            try:
                await self._end_session(device_id)
            except Exception as error:  # noqa: BLE001  # whatever the broker says: tried again at the next look
                _log.error("the session of a revoked device was not ended", device_id=device_id, error=str(error))
            else:
                del self._unended[device_id]


def _revoked_since(tx: Connection, since: int) -> list[tuple[str, int]]:
    query = select(device.c.device_id, device.c.revoked_at).where(device.c.revoked_at >= since)
    return [(row.device_id, row.revoked_at) for row in tx.execute(query)]


def _ms(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1000)
