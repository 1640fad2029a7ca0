"""What the pipeline does about certificates: notes which ones proved themselves, takes requests, hands out answers.

Signing is another role's work (`cloud.identity.registrar`), maybe in another process: a request is a row, its answer
is a row, and this desk publishes the answer when it sees it. Devices repeat requests, so nothing here must be kept.
It also ends the sessions of revoked devices, each time one of them is heard.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from cloud.identity import certificates, revocation
from cloud.identity.authority import RequestRefusedError
from cloud.identity.fingerprints import fingerprint_of_request
from cloud.model import Downstream
from cloud.ports import Database, Publish
from fleet.credentials import CertificateGrant, CertificateRefusal, CertificateRequest, encode_credentials
from fleet.topics import DownChannel, down

_log = structlog.get_logger(__name__)

WAITING_MAX: Final = 1_000
"""Devices whose answer is awaited, or whose session is to end; one that is forgotten at the bound comes again."""
LOOK_S: Final = 0.5
LOOKS_MAX: Final = 120
"""After so many looks without an answer the device is left to ask again."""
ENDED_EVERY_S: Final = 0.2
"""Pause between two sessions that are ended, so that a crowd of revoked devices does not keep the broker busy."""
UNREADABLE_PAUSE_S: Final = 86_400


class IdentityDesk:
    """One per pipeline; without arguments it takes part in commits alone."""

    def __init__(
        self,
        database: Database | None = None,
        publish: Publish | None = None,
        end_session: Callable[[str], Awaitable[None]] | None = None,
        real_now_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        """`end_session` ends the live session of one device; it may raise OSError or its like, which is logged."""
        self.sessions_ended = 0
        self._database = database
        self._publish = publish
        self._end_session = end_session
        self._real_now_ms = real_now_ms
        self._waiting: dict[str, int] = {}
        self._proven: dict[str, str] = {}
        self._to_end: dict[str, None] = {}
        self._asked = asyncio.Event()
        self._heard = asyncio.Event()

    # --- in the pipeline's commit -------------------------------------------------------------------------------

    def take(self, tx: Connection, proven: Sequence[tuple[str, str]], requests: Sequence[CertificateRequest]) -> None:
        """Part of the commit: which certificates were used, and who asks for the next one."""
        if self._database is None:
            return
        now_ms = self._real_now_ms()
        for device_id, serial in proven:
            if self._proven.get(device_id) != serial:
                certificates.prove(tx, device_id, serial, now_ms)
        for request in requests:
            with suppress(RequestRefusedError):  # answered after the commit
                fingerprint = fingerprint_of_request(request.request.encode())
                certificates.ask(tx, request.device_id, fingerprint, request.request, now_ms)

    def retired(self, tx: Connection, device_id: str, at: int) -> None:
        """Part of the commit: whoever is out of service has no use for a certificate."""
        if self._database is not None:
            revocation.retire(tx, device_id, self._real_now_ms(), at)

    def committed(
        self, proven: Sequence[tuple[str, str]], requests: Sequence[CertificateRequest], to_end: Collection[str]
    ) -> None:
        """After the commit."""
        self._proven.update(proven)
        for request in requests if self._database is not None else ():
            try:
                fingerprint_of_request(request.request.encode())
            except RequestRefusedError as error:
                self._send(request.device_id, CertificateRefusal("", str(error)[:300], UNREADABLE_PAUSE_S))
                continue
            if len(self._waiting) < WAITING_MAX:
                self._waiting[request.device_id] = LOOKS_MAX
        for device_id in to_end:
            if len(self._to_end) < WAITING_MAX:
                self._to_end[device_id] = None
        if requests:
            self._asked.set()
        if to_end:
            self._heard.set()

    # --- beside it ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand out answers and end sessions, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hand_out())
            group.create_task(self._end_sessions())

    async def _hand_out(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._waiting:
                await self.look()
                await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Publish what was answered meanwhile."""
        assert self._database is not None
        wanted = sorted(self._waiting)
        try:
            rows = await self._database.read(lambda tx: certificates.answers(tx, wanted))
        except OperationalError as error:
            _log.warning("renewals not looked up", error=str(error))
            return
        for row in rows:
            if row.refused:
                self._send(row.device_id, CertificateRefusal(row.fingerprint, row.refused, row.retry_after_s))
            elif row.chain:
                self._send(row.device_id, CertificateGrant(row.fingerprint, row.chain))
            self._waiting.pop(row.device_id, None)
        for device_id in list(self._waiting):
            self._waiting[device_id] -= 1
            if self._waiting[device_id] <= 0:
                del self._waiting[device_id]

    def _send(self, device_id: str, answer: CertificateGrant | CertificateRefusal) -> None:
        if self._publish is not None:
            self._publish([Downstream(down(device_id, DownChannel.CERTIFICATE), encode_credentials(answer))])

    async def _end_sessions(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            while self._to_end:
                device_id = next(iter(self._to_end))
                del self._to_end[device_id]
                if self._end_session is not None:
                    await self._end_one(device_id, self._end_session)
                await asyncio.sleep(ENDED_EVERY_S)

    async def _end_one(self, device_id: str, end_session: Callable[[str], Awaitable[None]]) -> None:
        try:
            await end_session(device_id)
        except Exception as error:  # noqa: BLE001  # whatever the broker says: it is heard again, and ended again
            _log.error("the session of a revoked device was not ended", device_id=device_id, error=str(error))
        else:
            self.sessions_ended += 1
