"""The list of revoked device certificates: written as a whole, reloaded by the broker, fresh every day.

What was learnt on Mosquitto 2.0 (ADR 0011) shapes this module. A list past its `next_update`, or from the future,
locks every device out; a file that is no list lets revoked devices in after a reload, and keeps the broker from
starting. So nothing but a complete, checked list ever takes the file's name, entries are only ever added, and a
reload is asked for only after that.
"""

import asyncio
import datetime as dt
import fcntl
import os
import shlex
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog
from cryptography import x509

from cloud.identity.authority import Authority, Revoked, write_secret
from cloud.identity.pki import BACKDATED, LEAF_DAYS, PkiError, serial_hex

_log = structlog.get_logger(__name__)

VALID: Final = dt.timedelta(days=7)
REFRESH_AFTER: Final = dt.timedelta(days=1)
LEFT_MIN: Final = dt.timedelta(days=4)
"""Less than this left means that three daily refreshes have failed: somebody has to act."""
FORGET_AFTER: Final = dt.timedelta(days=LEAF_DAYS + 1)
"""A certificate revoked this long ago has ended by itself."""
LOOK_S: Final = 60.0
RELOAD_S_MAX: Final = 10.0
SIGNALLED_S: Final = 0.2
"""Mosquitto reads the list at the end of a round of its loop; what it accepted in that round meets the old one."""
WATCHED_S: Final = 1.0
"""How long a broker that watches the file by itself (deploy/mosquitto/run.sh looks twice a second) may take."""
_PEM_END: Final = b"-----END X509 CRL-----"
_PUBLIC: Final = 0o644


class RevocationListError(RuntimeError):
    """The list can't be read, written or handed to the broker; the text names the fix."""


@dataclass(frozen=True, slots=True)
class ListState:
    """What a list file says."""

    this_update: dt.datetime
    next_update: dt.datetime
    number: int
    revoked: tuple[Revoked, ...]
    issuers: frozenset[x509.Name]


def read_list(pem: bytes) -> ListState:
    """Read a file of one or more lists; dates are those of the first to end.

    Raises:
        RevocationListError: it holds no list, or a broken one.
    """
    parts = [part + _PEM_END for part in pem.split(_PEM_END)[:-1]]
    try:
        lists = [x509.load_pem_x509_crl(part) for part in parts]
    except ValueError as error:
        raise RevocationListError(f"a revocation list is broken ({error}); make it again: fleet pki crl") from error
    if not lists:
        raise RevocationListError("the file holds no revocation list; make it again: fleet pki crl")
    entries = {f"{entry.serial_number:x}": entry for one in lists for entry in one}
    ends = [one.next_update_utc for one in lists if one.next_update_utc is not None]
    if not ends:
        raise RevocationListError("the revocation list has no end; make it again: fleet pki crl")
    return ListState(
        max(one.last_update_utc for one in lists),
        min(ends),
        max(one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in lists),
        tuple(Revoked(serial, entry.revocation_date_utc, _reason(entry)) for serial, entry in sorted(entries.items())),
        frozenset(one.issuer for one in lists),
    )


def problem_of(file: Path, now: dt.datetime) -> str:
    """What is wrong with the list in `file`, and the fix; "" if it can be used and is fresh enough."""
    try:
        state = read_list(file.read_bytes())
    except OSError as error:
        return f"{file}: {error.strerror}; make it: fleet pki crl"
    except RevocationListError as error:
        return f"{file}: {error}"
    if state.this_update > now:
        return f"{file} begins in the future: the broker refuses every device; correct the clock, then: fleet pki crl"
    if state.next_update <= now:
        return f"{file} ended {_ago(now - state.next_update)}: the broker refuses every device; now: fleet pki crl"
    if state.next_update - now < LEFT_MIN:
        return f"{file} ends in {_ago(state.next_update - now)} and was not refreshed for days; now: fleet pki crl"
    return ""


class Reload(Protocol):
    """How a broker is told that its list changed. Returns when it has read it. Raises RevocationListError."""

    async def __call__(self) -> None: ...


class SignalReload:
    """SIGHUP to the process whose id is in a file; returns after `SIGNALLED_S`, when the broker has read the list."""

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file

    async def __call__(self) -> None:
        try:
            os.kill(int(self._pid_file.read_text()), signal.SIGHUP)
        except (OSError, ValueError) as error:
            raise RevocationListError(
                f"the broker was not told of the new revocation list: {self._pid_file}: {error}; "
                "start the broker, or correct FLEET_BROKER_PID_FILE"
            ) from error
        await asyncio.sleep(SIGNALLED_S)


class CommandReload:
    """A command, run without a shell; it has to return after the reload."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    async def __call__(self) -> None:
        said = b""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                async with asyncio.timeout(RELOAD_S_MAX):
                    _, said = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        except TimeoutError as error:
            raise self._failed(f"did not end within {RELOAD_S_MAX:.0f} s") from error
        except OSError as error:
            raise self._failed(str(error)) from error
        if process.returncode:
            raise self._failed(f"exit code {process.returncode}: {said.decode(errors='replace').strip()[-200:]}")

    def _failed(self, why: str) -> RevocationListError:
        return RevocationListError(
            f"the broker was not told of the new revocation list: {shlex.join(self._command)}: {why}; "
            "correct FLEET_BROKER_RELOAD_COMMAND"
        )


class WatchedReload:
    """Nobody is told: the broker's own start script watches the file. Waits as long as that takes."""

    async def __call__(self) -> None:
        await asyncio.sleep(WATCHED_S)


class RevocationList:
    """The file that the broker's `crlfile` names. One per process; other processes may write it as well."""

    def __init__(self, authority: Callable[[], Authority], file: Path, reload: Reload) -> None:
        """`authority` is asked each time: an intermediate that was renewed meanwhile needs its list at once."""
        self.file = file
        self._authority = authority
        self._reload = reload
        self._writing = asyncio.Lock()
        self._told = 0

    async def publish(self, revoked: Iterable[Revoked], now: dt.datetime) -> ListState:
        """Add `revoked` to the list, renew its dates, and have the broker read it. `now` is real UTC time.

        Entries in the file stay until their certificates have ended anyway: neither an older database nor a
        second process can take a revocation back. Returns the list as written.

        Raises:
            RevocationListError: not written, or written and the broker not told; try again.
        """
        rows = tuple(revoked)
        async with self._writing:
            state = await asyncio.to_thread(self.write, rows, now)
            await self._reload()
            self._told = state.number
        _log.info("revocation list published", entries=len(state.revoked), until=state.next_update.isoformat())
        return state

    def written_elsewhere(self) -> bool:
        """Whether somebody else wrote the list since the broker was told last: a new intermediate, a command."""
        try:
            return self.state().number != self._told
        except RevocationListError:
            return False

    async def tell(self) -> None:
        """Have the broker read the list as it stands. Raises RevocationListError."""
        async with self._writing:
            number = self.state().number
            await self._reload()
            self._told = number

    def write(self, revoked: Iterable[Revoked], now: dt.datetime) -> ListState:
        """`publish` without telling the broker."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                return self._write(revoked, now)
        except OSError as error:
            raise RevocationListError(
                f"{self.file} can't be written: {error.strerror}; free the disk or correct the folder's rights"
            ) from error

    def state(self) -> ListState:
        """What the file says now. Raises RevocationListError."""
        try:
            return read_list(self.file.read_bytes())
        except OSError as error:
            raise RevocationListError(f"{self.file}: {error.strerror}; make it: fleet pki crl") from error

    def due(self, now: dt.datetime) -> bool:
        """Whether it has to be written again even if nothing was revoked."""
        try:
            state = self.state()
        except RevocationListError:
            return True
        stale = state.this_update > now or state.next_update - now <= VALID - REFRESH_AFTER
        return stale or self._authority().certificate.subject not in state.issuers

    def _write(self, revoked: Iterable[Revoked], now: dt.datetime) -> ListState:
        known = {one.serial: one for one in revoked}
        this_update, number = now - BACKDATED, 1
        if self.file.exists():
            try:
                before = self.state()
            except RevocationListError as error:
                # The entries of a broken file are lost here; who calls holds them in the database.
                _log.error("revocation list was unreadable and is made again", reason=str(error))
            else:
                known = {one.serial: one for one in before.revoked} | known
                number = before.number + 1
                later = before.this_update + dt.timedelta(seconds=1)
                if this_update < later <= now:
                    this_update = later
        entries = [one for one in known.values() if one.revoked_at > now - FORGET_AFTER]
        authority, until = self._authority(), now + VALID
        pem = authority.revocation_list(entries, this_update=this_update, next_update=until, number=number)
        state = read_list(pem)
        if {one.serial for one in state.revoked} != {one.serial for one in entries}:
            raise RevocationListError("the new revocation list does not read as written; the old one stays")
        write_secret(self.file, pem, _PUBLIC)
        return state

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No two processes read, add and write at once."""
        descriptor = os.open(self.file.with_name(f".{self.file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class RevocationKeeper:
    """Keeps the list fresh for as long as the process runs. `source` brings what the database knows as revoked."""

    def __init__(
        self,
        revocations: RevocationList,
        source: Callable[[], Awaitable[Iterable[Revoked]]],
        real_now: Callable[[], dt.datetime],
    ) -> None:
        self._revocations = revocations
        self._source = source
        self._real_now = real_now
        self._failure = ""

    async def run(self) -> None:
        """Publish at the start, so that the broker holds what the database holds, then daily; until cancelled."""
        await self.refresh()
        while True:
            await asyncio.sleep(LOOK_S)
            if self._failure or self._due():
                await self.refresh()
            elif self._revocations.written_elsewhere():
                await self._tell()

    def _due(self) -> bool:
        try:
            return self._revocations.due(self._real_now())
        except PkiError:
            return True  # refreshing says what is wrong

    async def _tell(self) -> None:
        try:
            await self._revocations.tell()
        except RevocationListError as error:
            _log.error("revocation list not told of", reason=str(error))
            self._failure = str(error)

    async def refresh(self) -> bool:
        """Publish now; whether the broker has it. A failure is logged once, tried again, and stands in `problem`."""
        try:
            await self._revocations.publish(await self._source(), self._real_now())
        except (RevocationListError, PkiError) as error:
            if str(error) != self._failure:
                _log.error("revocation list not refreshed", reason=str(error))
            self._failure = str(error)
            return False
        self._failure = ""
        return True

    def problem(self) -> str:
        """What people are to know, with the fix; "" when all is well."""
        return problem_of(self._revocations.file, self._real_now()) or self._failure

    def left_s(self) -> float:
        """Seconds until the list ends and every device is refused; 0 when it can't be read."""
        try:
            return (self._revocations.state().next_update - self._real_now()).total_seconds()
        except RevocationListError:
            return 0.0

    def entries(self) -> float:
        """Number of revoked certificates on the list; 0 when it can't be read."""
        try:
            return float(len(self._revocations.state().revoked))
        except RevocationListError:
            return 0.0


def revoked_of(certificate: x509.Certificate, at: dt.datetime, reason: str = "unspecified") -> Revoked:
    """The entry for one certificate."""
    return Revoked(serial_hex(certificate), at, reason)


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        return "unspecified"


def _ago(span: dt.timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
