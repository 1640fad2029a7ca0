"""The broker: reachable, TLS, ages of certificates and of the revocation list, and whether its access list is in force.

The probe speaks a few bytes of MQTT 5 itself, as our own process: one publish that must be allowed (to a device that is
none) and one that must be refused. Neither reaches anybody.
"""

import contextlib
import datetime as dt
import secrets
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Self

from cli.doctor.finding import Finding, guarded, reason_of

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

ANSWER_S_MAX: Final = 5.0
ALLOWED_TOPIC: Final = "f/0/doctor/down/ack"
FORBIDDEN_TOPIC: Final = "doctor/probe"
CERTIFICATE_DAYS_MIN: Final = 14
_CONNACK, _PUBACK = 0x20, 0x40
_NOT_AUTHORIZED: Final = 0x87
_OURS_REFUSED: Final = (
    "the broker does not take our certificate: FLEET_BROKER_CERTIFICATE_FILE must be the services' one that "
    "fleet pki service fleet.ingester makes, not ended and not revoked (fleet pki status); its log says why"
)
_REFUSALS: Final = {0x86: "bad user name or password", 0x87: "not authorized", 0x88: "server unavailable"}


def look_at_broker(settings: "CloudSettings", now: dt.datetime) -> Iterator[Finding]:
    """As our own process sees it."""
    where = f"{settings.broker_host}:{settings.broker_port}"
    start = f"start Mosquitto on {where}, or set FLEET_BROKER_HOST and FLEET_BROKER_PORT"
    try:
        socket.create_connection((settings.broker_host, settings.broker_port), timeout=ANSWER_S_MAX).close()
    except OSError as error:
        yield Finding("Broker", "problem", f"{where}: {reason_of(error)}", start)
        return
    try:
        tls = _context(settings)
    except (OSError, ValueError) as error:
        yield Finding("Broker", "problem", reason_of(error), "correct the FLEET_BROKER_…_FILE settings, or fleet pki")
        return
    if tls is None:
        yield Finding("Broker", "ok", f"{where} accepts connections, without TLS")
    try:
        with _connected(settings, tls) as link:
            if tls is not None:
                yield Finding("Broker", "ok", f"{where} accepts our certificate")
                yield from _certificate(link, now)
                yield from _access_list(link)
    except ssl.SSLError as error:
        yield Finding("Broker", "problem", f"{where}: {reason_of(error)}", _tls_fix(error, settings))
    except (OSError, RefusedError) as error:
        fix = _OURS_REFUSED if tls is not None else start
        yield Finding("Broker", "problem", f"{where} refused: {reason_of(error)}", fix)


def look_at_certificates(settings: "CloudSettings", now: dt.datetime) -> Iterator[Finding]:
    """Ours, and everything in the folder of `fleet pki` where this machine has it."""
    from cloud.identity.files import own_certificate_left, own_certificate_problem

    left = own_certificate_left(settings, now)
    if left is not None:
        wrong = own_certificate_problem(settings, now)
        fix = "fleet pki service fleet.ingester --replace, then restart" if wrong else ""
        found = wrong or f"{left.days} days left"
        yield Finding("Our certificate", "problem" if wrong else "ok", found, fix)
    if settings.pki_directory is not None:
        yield from guarded(
            "Certificates", lambda: _folder(settings, now), "fleet pki status; restore the folder from a backup"
        )


def _folder(settings: "CloudSettings", now: dt.datetime) -> Iterator[Finding]:
    from cloud.identity.pki_folder import PkiFolder
    from cloud.identity.revocation_list import problem_of

    assert settings.pki_directory is not None
    folder = PkiFolder(settings.pki_directory)
    wrong = problem_of(folder.revocation_file, now)
    if wrong:
        yield Finding("Revocation list", "problem", wrong, "fleet pki crl; then see why nothing refreshes it daily")
    else:
        yield Finding("Revocation list", "ok", "can be used and is fresh")
    soonest = None
    for one in folder.expiries(devices=False):
        days = one.days_left(now)
        if one.what == "revocation list":
            continue
        if days < one.action_days:
            state = f"{days:.0f} days left" if days > 0 else "has ended"
            yield Finding(f"Certificate: {one.what}", "problem" if days < 1 else "warning", state, one.fix)
        soonest = days if soonest is None else min(soonest, days)
    if soonest is not None:
        yield Finding("Certificates", "ok" if soonest > 0 else "problem", f"the next one ends in {soonest:.0f} days",
                      "" if soonest > 0 else "see the lines above")  # fmt: skip
    if any((folder.directory / "offline").glob("*.key")):
        fix = "carry the folder away on two media and delete it here; it is needed only to renew an intermediate"
        yield Finding("Offline keys", "warning", f"the roots' keys lie in {folder.directory / 'offline'}", fix)


# --- inside ------------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    """The broker answered, and not with a welcome."""


def _context(settings: "CloudSettings") -> ssl.SSLContext | None:
    from cloud.identity.files import broker_tls

    return broker_tls(settings)


def _connected(settings: "CloudSettings", tls: ssl.SSLContext | None) -> "_Link":
    plain = socket.create_connection((settings.broker_host, settings.broker_port), timeout=ANSWER_S_MAX)
    try:
        link = _Link(plain if tls is None else tls.wrap_socket(plain, server_hostname=settings.broker_host))
        link.connect()
    except BaseException:
        plain.close()
        raise
    return link


def _tls_fix(error: ssl.SSLError, settings: "CloudSettings") -> str:
    text = str(error)
    # An alert is said by the broker, of our certificate; one that hangs up may be quicker than its alert.
    if "alert" in text.lower() or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _OURS_REFUSED
    if "Hostname mismatch" in text or "IP address mismatch" in text:
        return (
            f"the broker's certificate does not name {settings.broker_host}: "
            f"fleet pki server --replace --host {settings.broker_host} …, then reload the broker"
        )
    if "certificate has expired" in text:
        return "the broker's certificate ended: fleet pki server --replace --host …, then reload the broker"
    if "unable to get local issuer" in text or "self-signed" in text or "unknown ca" in text:
        return "FLEET_BROKER_CA_FILE must be the services' root that signed the broker (pki/trust/services.pem)"
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return "this port speaks no TLS: name the services' port, 8884, in FLEET_BROKER_PORT"
    return "fleet broker check, fleet pki status"


def _certificate(link: "_Link", now: dt.datetime) -> Iterator[Finding]:
    ends_at = link.certificate_ends_at()
    if ends_at is None:
        return
    days = (ends_at - now).days
    fix = "fleet pki server --replace --host …, then reload the broker"
    ok = days >= CERTIFICATE_DAYS_MIN
    yield Finding("Broker's certificate", "ok" if ok else "problem", f"{days} days left", "" if ok else fix)


def _access_list(link: "_Link") -> Iterator[Finding]:
    write_again = "write it again (fleet broker config) and restart the broker"
    allowed, refused = link.publish(ALLOWED_TOPIC, 1), link.publish(FORBIDDEN_TOPIC, 2)
    if allowed >= 0x80:
        found = f"we may not write to devices ({ALLOWED_TOPIC}: {allowed:#x})"
        yield Finding("Broker's access list", "problem", found, write_again)
    elif refused != _NOT_AUTHORIZED:
        found = "is not in force: a topic of nobody was taken"
        yield Finding("Broker's access list", "problem", found, write_again)
    else:
        yield Finding("Broker's access list", "ok", "allows what is ours and refuses the rest")


class _Link:
    """A minimal MQTT 5 client on a blocking socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(b"\xe0\x00")
        self._socket.close()

    def connect(self) -> None:
        name = f"fleet.doctor-{secrets.token_hex(4)}".encode()
        body = b"\x00\x04MQTT\x05\x02\x00\x1e\x00" + len(name).to_bytes(2, "big") + name
        self._socket.sendall(bytes([0x10, len(body)]) + body)
        kind, answer = self._packet()
        if kind != _CONNACK or len(answer) < 2:
            raise RefusedError("it does not speak MQTT 5")
        if answer[1]:
            raise RefusedError(_REFUSALS.get(answer[1], f"reason code {answer[1]:#x}"))

    def certificate_ends_at(self) -> dt.datetime | None:
        found = self._socket.getpeercert() if isinstance(self._socket, ssl.SSLSocket) else None
        ends = (found or {}).get("notAfter")
        return None if ends is None else dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(str(ends)), dt.UTC)

    def publish(self, topic: str, packet_id: int) -> int:
        """An empty message at QoS 1; the reason code of its acknowledgement."""
        name = topic.encode()
        body = len(name).to_bytes(2, "big") + name + packet_id.to_bytes(2, "big") + b"\x00"
        self._socket.sendall(bytes([0x32, len(body)]) + body)
        while True:
            kind, answer = self._packet()
            if kind == _PUBACK and answer[:2] == packet_id.to_bytes(2, "big"):
                return answer[2] if len(answer) > 2 else 0

    def _packet(self) -> tuple[int, bytes]:
        kind, length = self._read(1)[0], 0
        for place in range(4):
            byte = self._read(1)[0]
            length |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                break
        return kind & 0xF0, self._read(length)

    def _read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            some = self._socket.recv(count - len(found))
            if not some:
                raise RefusedError("it closed the connection")
            found += some
        return found
