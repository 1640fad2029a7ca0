"""What `fleet broker check` looks at: the files the broker reads, and who its two ports let in."""

import datetime as dt
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cli.broker_configuration import BrokerTls
from cli.doctor.finding import Finding

ANSWER_S_MAX: Final = 5.0
ACT_DAYS: Final = 14
_CONNECT: Final = b"\x10\x18\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x0bfleet.check"
"""An MQTT 5 CONNECT with a clean start and client id `fleet.check`."""


def files(tls: BrokerTls, now: dt.datetime) -> Iterator[Finding]:
    """Dates and rights of the broker's own files."""
    from cloud.identity import pki

    for check, path, fix in (
        ("Devices' root", tls.devices_root, "plan a new authority: fleet pki init in another folder"),
        ("Services' root", tls.services_root, "plan a new authority: fleet pki init in another folder"),
        ("Broker's certificate", tls.certificate, "fleet pki server --replace --host …, then reload the broker"),
    ):
        try:
            certificate = pki.load_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            yield Finding(check, "problem", f"{path}: {error}", "restore it from a backup, or make it again")
            continue
        left = (certificate.not_valid_after_utc - now).days
        found = f"{pki.common_name(certificate)}, {left} days left"
        yield Finding(check, "ok", found) if left >= ACT_DAYS else Finding(check, "problem", found, fix)
    if tls.key.exists() and tls.key.stat().st_mode & 0o007:
        yield Finding("Broker's key", "problem", f"{tls.key} can be read by everybody", f"chmod o-rwx {tls.key}")


def door(  # who comes where, and what is expected
    check: str, host: str, port: int, root: Path, identity: Path | None, *, welcome: bool
) -> Finding:
    """Knock with an identity (or none) and compare with what is expected."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S_MAX):
            pass
    except OSError as error:
        fix = f"start the broker, or name host and port; {host}:{port} must listen"
        return Finding(check, "problem", f"{host}:{port}: {error}", fix)
    let_in, said = _knock(host, port, root, identity)
    if let_in == welcome:
        return Finding(check, "ok", f"{host}:{port}")
    if welcome:
        fix = "compare --pki with the files the broker uses; an expired certificate or list refuses everybody"
        return Finding(check, "problem", f"{host}:{port} refused: {said}", fix)
    fix = "the broker does not run the configuration of: fleet broker config; write it again and restart it"
    return Finding(check, "problem", f"{host}:{port} let a stranger in", fix)


def _knock(host: str, port: int, root: Path, identity: Path | None) -> tuple[bool, str]:
    context = ssl.create_default_context(cafile=str(root))
    try:
        if identity is not None:
            context.load_cert_chain(identity, identity.with_suffix(".key"))
        with (
            socket.create_connection((host, port), timeout=ANSWER_S_MAX) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.sendall(_CONNECT)
            answer = connection.recv(4)
            return len(answer) == 4 and answer[0] == 0x20 and answer[3] == 0, answer.hex() or "connection closed"
    except OSError as error:
        return False, str(error)
