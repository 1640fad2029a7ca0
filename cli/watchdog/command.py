"""The command: the room's identity and connection, and what the watchdog asks when a call does not arrive."""

import asyncio
import datetime as dt
import signal
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from cli.output import USAGE, fail, print_json, usage_errors, words

if TYPE_CHECKING:
    from cli.watchdog.dog import Watchdog
    from cloud.settings import CloudSettings
    from cloud.supervision.chain import Delivery
    from fleet.signing import Verifier

FOLDER: Final = "watchdog"
RENEW_BEFORE: Final = dt.timedelta(days=30)


def watchdog(
    data_directory: Annotated[Path | None, typer.Option(help="Where `fleet serve` keeps its data.")] = None,
    identity: Annotated[
        Path | None, typer.Option(help="Folder with synthetic-room.pem and .key; else made from FLEET_PKI_DIRECTORY.")
    ] = None,
    interval_s: Annotated[
        float, typer.Option(min=0.2, max=60, help="Real seconds between two synthetic calls.")
    ] = 10.0,
    deadline_s: Annotated[float, typer.Option(min=0.2, max=60, help="A call that is not back by then is lost.")] = 10.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="At the start, what runs with which settings as one JSON document.")
    ] = False,
) -> None:
    """Call for help through the whole product, all day, and tell people at once when nobody would come.

    A process of its own, so that it outlives `fleet serve`. Needs FLEET_PROBE_URL (where it listens; `fleet serve`
    hands the deliveries back there); tells FLEET_WATCHDOG_URLS, and pings FLEET_DEADMAN_URL while all is well.

    Example: [bold]FLEET_PROBE_URL=http://127.0.0.1:8090 fleet watchdog --data-directory /var/lib/fleet[/bold]
    """
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud import logs

    with usage_errors(SettingsError, ValueError):
        settings = cloud_settings(data_directory=data_directory)
        address = urlsplit(settings.probe_url)
        if address.scheme != "http" or not address.hostname or not address.port:
            raise ValueError("FLEET_PROBE_URL must be http://ADDRESS:PORT, the same for `fleet serve` and the watchdog")
        files = _identity(settings, identity)
    logs.configure(settings.log_level)
    if as_json:
        print_json(
            {
                "listens": settings.probe_url, "interval_s": interval_s, "deadline_s": deadline_s,
                "broker": "{}:{}".format(*_broker(settings)), "tells": len(settings.watchdog_urls),
                "deadman": bool(settings.deadman_url),
            }
        )  # fmt: skip
    with usage_errors(ValueError):
        asyncio.run(_run(settings, files, address.hostname, address.port, interval_s, deadline_s))
    words.print("stopped")


async def _run(
    settings: "CloudSettings", files: tuple[Path, Path] | None, host: str, port: int, interval_s: float,
    deadline_s: float,
) -> None:  # fmt: skip
    from aiohttp import web

    from cloud.adapters.sql.database import SqlDatabase

    database = SqlDatabase(settings.sql_url())
    try:
        dog = _make(settings, files, database, interval_s, deadline_s)
        runner = web.AppRunner(dog.application(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise fail(f"FLEET_PROBE_URL: cannot listen on {host}:{port}: {error}", USAGE) from None
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        running = asyncio.create_task(dog.run())
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (running, stopping):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await runner.cleanup()
    finally:
        database.close()


def _make(
    settings: "CloudSettings", files: tuple[Path, Path] | None, database: Any, interval_s: float, deadline_s: float
) -> "Watchdog":
    from cli.watchdog.dog import Rhythm, Watchdog
    from cli.watchdog.room import SyntheticRoom
    from cli.watchdog.voice import Voice
    from cloud.synthetic import ROOM, ROOM_KIND
    from edge.mqtt_link import BrokerAddress, MqttLink

    keys = _Keys(settings.command_key_file or settings.data_directory / "command.key")
    link = MqttLink(ROOM, BrokerAddress(*_broker(settings)), partial(_tls, settings, files) if files else None)
    room = SyntheticRoom(ROOM, ROOM_KIND, link, keys.verifiers, speed=settings.clock_speed)
    source = settings.public_url or socket.gethostname()
    cloud_url = f"http://{settings.http_host}:{settings.http_port}/readyz"
    return Watchdog(
        room, Voice(settings.watchdog_urls, source=source), look_at_database=partial(_look_at_database, database),
        look_at_cloud=partial(_look_at_cloud, cloud_url), deadman_url=settings.deadman_url,
        rhythm=Rhythm(interval_s=interval_s, deadline_s=deadline_s),
    )  # fmt: skip


def _broker(settings: "CloudSettings") -> tuple[str, int]:
    """The listener of the devices: what the room sees is what they see."""
    if settings.broker_ca_file is None:
        return settings.broker_host, settings.broker_port
    return settings.devices_broker_host or settings.broker_host, settings.devices_broker_port


def _tls(settings: "CloudSettings", files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(settings.broker_ca_file))
    context.load_cert_chain(*map(str, files))
    return context


def _identity(settings: "CloudSettings", folder: Path | None) -> tuple[Path, Path] | None:
    """Certificate and key of the room; None towards a broker without TLS. Raises ValueError."""
    from cloud.synthetic import ROOM

    if settings.broker_ca_file is None:
        return None
    given = folder or settings.data_directory / FOLDER
    files = given / f"{ROOM}.pem", given / f"{ROOM}.key"
    if settings.pki_directory is not None and folder is None and not _lasts(files[0]):
        _issue(settings.pki_directory, ROOM, *files)
    if not all(file.exists() for file in files):
        raise ValueError(
            f"no identity at {files[0]}: set FLEET_PKI_DIRECTORY, or make one with `fleet pki device {ROOM}` and name "
            "its folder with --identity"
        )
    return files


def _lasts(certificate: Path) -> bool:
    from cryptography import x509

    if not certificate.exists():
        return False
    expires = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return expires - dt.datetime.now(dt.UTC) > RENEW_BEFORE


def _issue(pki_directory: Path, name: str, certificate: Path, key: Path) -> None:
    from cloud.identity.authority import write_secret
    from cloud.identity.pki import PkiError
    from cloud.identity.pki_folder import PkiFolder

    try:
        issued = PkiFolder(pki_directory.resolve()).device_authority().issue_client(name, dt.datetime.now(dt.UTC))
    except PkiError as error:
        raise ValueError(f"FLEET_PKI_DIRECTORY: {error}") from None
    certificate.parent.mkdir(parents=True, exist_ok=True)
    write_secret(key, issued.key)
    certificate.write_bytes(issued.certificate)


class _Keys:
    """Public halves of the cloud's command keys, read again when the file changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ring: Any = None
        self._found: Mapping[str, Verifier] = {}

    def verifiers(self) -> "Mapping[str, Verifier]":
        from cloud.device_commands.keys import KeyRingFile
        from edge.command_keys import ed25519_verifier

        if self._ring is None:
            if not self._path.exists():  # the cloud makes it at its first start
                return {}
            self._ring = KeyRingFile(self._path)
        elif not self._ring.refresh():
            return self._found
        self._found = {key.id: ed25519_verifier(key.public_raw) for key in self._ring.ring.keys}
        return self._found


async def _look_at_database(database: Any, event_id: str) -> "tuple[str, Delivery | None]":
    from sqlalchemy.exc import DBAPIError

    from cloud.supervision import evidence

    try:
        await asyncio.to_thread(database.write_here, evidence.may_write)
        return "", await asyncio.to_thread(database.read_here, lambda tx: evidence.delivery_of(tx, event_id))
    except DBAPIError as error:
        return str(error.orig).splitlines()[0][:200], None


async def _look_at_cloud(url: str) -> str:
    import aiohttp

    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found = await answer.json(content_type=None)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"the cloud's process does not answer: {type(error).__name__}"
    checks = found.get("checks", found) if isinstance(found, dict) else {}
    return "; ".join(f"{name}: {state}" for name, state in checks.items() if state not in {"ok", "ready"})
