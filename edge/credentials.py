"""What an agent says of itself at the start of each connection, and who keeps its certificate valid."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from edge.identity import facts_of
from edge.journal import Journal
from edge.link import Session
from edge.records import DeviceRecord
from edge.renewal import Renewal
from edge.trusted_time import TrustedTime
from fleet.clock import Clock

_log = logging.getLogger(__name__)


class Credentials:
    """A certificate that never changes (demo, benches, plain links), or one that is renewed."""

    def __init__(self, serial: str = "", renewal: Renewal | None = None) -> None:
        """`serial`: of the certificate that never changes; empty without TLS."""
        self.renewal = renewal
        self._serial = serial

    def certificate(self) -> str:
        """Serial of the certificate that the present connection uses."""
        return self._serial if self.renewal is None else self.renewal.certificate

    def welcomed(self) -> None:
        """The cloud answered on this connection."""
        if self.renewal is not None:
            self.renewal.welcomed()

    def ended(self) -> None:
        """The connection ended or could not be made."""
        if self.renewal is not None:
            self.renewal.ended()

    def on_answer(self, data: bytes) -> None:
        """A message on `down/certificate`."""
        if self.renewal is not None:
            self.renewal.on_answer(data)

    async def run(self, session: Session, trusted_time: TrustedTime, busy: Callable[[], bool]) -> None:
        """Beside the other tasks of a connection; see Renewal.run."""
        if self.renewal is None:
            await asyncio.Event().wait()
        else:
            await self.renewal.run(session, trusted_time.latest_ms, busy)


def credentials_of(device_id: str, authority: Path, certificate: Path, private_key: Path, clock: Clock) -> Credentials:
    """Renewed if key and certificate lie in one file, as `fleet edge enrol` writes them; raises IdentityError."""
    if certificate != private_key:
        _log.warning(
            "%s: the certificate will not be renewed: %s and %s are two files; enrol the box (fleet edge enrol)",
            device_id, certificate, private_key,
        )  # fmt: skip
        return Credentials(facts_of(certificate).serial)
    return Credentials(renewal=Renewal(device_id, certificate, authority, clock))


async def boot_id_of(journal: Journal, record: DeviceRecord) -> str:
    """Random for each start, so that the cloud can tell two processes with copies of one storage.

    While a full disk keeps this start from being counted, every start would have the same number: then it is made from
    that number, or an ordinary box that starts again and again would look like two.
    """
    following = await journal.read(lambda store: store.next_record(record.device_id))
    if following.boots == record.boots:
        return hashlib.blake2b(f"{record.storage_id} {record.boots}".encode(), digest_size=16).hexdigest()
    return secrets.token_hex(16)
