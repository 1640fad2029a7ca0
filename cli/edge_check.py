"""`fleet edge check`: everything an agent needs, looked at before the start and without disturbing one that runs."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cli.edge_findings import CERTIFICATE_DAYS_WARNING, Finding, Verdict

if TYPE_CHECKING:
    from edge.settings import EdgeSettings

BROKER_S_MAX: Final = 5.0
REFUSAL_S_MAX: Final = 1.0
LINE_S_MAX: Final = 3.0


def check_all(settings: "EdgeSettings") -> list[Finding]:
    """In the order in which things are mended."""
    return [
        Finding("File", "ok", f"{settings.device_id}, kind {settings.kind}"),
        _kind(settings),
        *_keys(settings),
        _data(settings.data_directory),
        *_line(settings),
        _broker(settings),
    ]


def _kind(settings: "EdgeSettings") -> Finding:
    import devices
    from edge.run import add_kind_folders
    from edge.settings import SettingsError

    try:
        add_kind_folders(settings.kind_folders)
        kind = devices.kind_named(settings.kind)
    except SettingsError as error:
        return Finding("Kind", "problem", str(error), "correct kind_folders")
    except devices.UnknownKindError as error:
        return Finding("Kind", "problem", str(error), "correct kind, or add its folder to kind_folders")
    return Finding("Kind", "ok", f"{kind.title.en}, a reading every {kind.reading_interval_s:.0f} s")


def _keys(settings: "EdgeSettings") -> Iterator[Finding]:
    from cli.edge_status import certificate_days
    from edge.identity import IdentityError

    try:
        settings.identity()
    except IdentityError as error:
        yield Finding("Keys", "problem", str(error), "enrol the device, or correct the paths under [broker]")
        return
    yield Finding("Keys", "ok", f"command keys {', '.join(sorted(settings.command_keys))}")
    days, wrong = certificate_days(settings)
    if wrong:
        yield Finding("Certificate", "problem", wrong, "enrol the device anew")
    elif days is not None and days < 0:
        yield Finding("Certificate", "problem", f"expired {-days:.0f} days ago", "enrol the device anew")
    elif days is not None:
        verdict: Verdict = "warning" if days < CERTIFICATE_DAYS_WARNING else "ok"
        yield Finding("Certificate", verdict, f"{days:.0f} days left")
    key = settings.broker.private_key
    if key is not None and key.stat().st_mode & 0o007:
        yield Finding("Private key", "problem", f"{key} can be read by everybody", f"chmod 0640 {key}")


def _data(directory: Path) -> Finding:
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Finding("Data directory", "problem", f"{place} is no folder", "correct data_directory")
    if not os.access(place, os.W_OK):
        return Finding(
            "Data directory", "problem", f"{place} cannot be written by this user",
            "the service's user must own it; fleet edge install arranges that",
        )  # fmt: skip
    return Finding("Data directory", "ok", str(directory) if place == directory else f"{directory} will be made")


def _line(settings: "EdgeSettings") -> Iterator[Finding]:
    for name in settings.device_files:
        path = Path(name)
        if not path.exists():
            yield Finding("Line", "problem", f"{path} is not there", "plug it in; ls -l /dev/serial/by-id")
        elif not os.access(path, os.R_OK | os.W_OK):
            yield Finding("Line", "problem", f"{path} belongs to {_owner(path)}", "the service's user needs that group")
        else:
            yield Finding("Line", "ok", f"{path} is there")
    if not settings.device_files:
        yield _other_line(settings)


def _other_line(settings: "EdgeSettings") -> Finding:
    """A gateway is knocked at, unless an agent has it: many take one connection and end the one before."""
    from edge.status import SOCKET_NAME

    where = urlsplit(settings.transport)
    if where.scheme != "tcp" or not where.hostname or not where.port:
        return Finding("Line", "ok", f"{settings.transport} (a bridge: the agent tries it at its start)")
    if (settings.data_directory / SOCKET_NAME).exists():
        return Finding("Line", "ok", f"{settings.transport} (not tried: fleet edge status says how an agent has it)")
    try:
        with socket.create_connection((where.hostname, where.port), timeout=LINE_S_MAX):
            return Finding("Line", "ok", f"{settings.transport} answers")
    except OSError as error:
        return Finding(
            "Line", "problem", f"{settings.transport}: {error.strerror or error}",
            "is the gateway on, and are address and port right? correct transport",
        )  # fmt: skip


def _owner(path: Path) -> str:
    try:
        return f"{path.owner()}:{path.group()}"
    except KeyError:  # a user without a name
        return str(path.stat().st_gid)


def _hear_refusal(secured: ssl.SSLSocket) -> None:
    """With TLS 1.3 the broker judges our certificate after the handshake; silence for a moment is consent.

    Raises ssl.SSLError, or OSError for a connection that was ended.
    """
    secured.settimeout(REFUSAL_S_MAX)
    with suppress(TimeoutError):
        if not secured.recv(1):
            raise ConnectionError("the broker ended the connection at once")


def _broker(settings: "EdgeSettings") -> Finding:
    """A connection with TLS but without MQTT: a second client of this name would end a running agent's session."""
    from edge.identity import IdentityError
    from edge.tls_trouble import explained

    broker = settings.broker
    place = f"{broker.host}:{broker.port}"
    try:
        tls = settings.identity().tls
        with socket.create_connection((broker.host, broker.port), timeout=BROKER_S_MAX) as connection:
            if tls is None:
                return Finding("Broker", "ok", f"{place} accepts connections")
            with tls.wrap_socket(connection, server_hostname=broker.host) as secured:
                _hear_refusal(secured)
                return Finding("Broker", "ok", f"{place} is the right one ({secured.version()})")
    except IdentityError:
        return Finding("Broker", "warning", f"{place} was not asked, for want of keys")
    except ssl.SSLCertVerificationError as error:
        return Finding(
            "Broker", "problem", f"{place}: {error.verify_message}",
            "is host the name in the broker's certificate, authority the right file, and this box's clock right?",
        )  # fmt: skip
    except ssl.SSLError as error:
        told = explained(str(error), broker.host) or f"{error.reason}; is port the one with client certificates?"
        what, _, fix = told.partition("; ")
        return Finding("Broker", "problem", f"{place}: {what}", fix)
    except OSError as error:
        return Finding(
            "Broker",
            "problem",
            f"{place}: {error.strerror or error}",
            "network, firewall, host and port under [broker]",
        )
