"""Joins ports and adapters: the only file of the cloud that names concrete ones.

Read `run_cloud` from the top: which parts a role needs, how they hang together, in which order they
start. All tasks live in one group; if one of them fails, the process ends and its supervisor starts it
again from what is durable (trust, rule 8).
"""

import asyncio
import fcntl
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import structlog
import uvicorn
from prometheus_client import REGISTRY
from sqlalchemy import Connection

import devices
from cloud import logs, products
from cloud.adapters.mqtt.link import BrokerLink
from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.adapters.notify.inbox import InboxChannel
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.planner import Dispatch
from cloud.identity.authority import command_key_id, load_or_create_command_key
from cloud.ingest import repository as ingest_rows
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.leases import Leases
from cloud.intents import IntentDesk
from cloud.members.service import MemberService
from cloud.model import Downstream, Quarantined
from cloud.pipeline import Pipeline, PipelineLimits
from cloud.ports import NotificationChannel, SeriesStore
from cloud.settings import CloudSettings
from cloud.timeseries.drain import DrainState, SeriesDrain
from cloud.timeseries.spool import Spool
from cloud.web.app import create_app
from fleet.clock import Clock
from fleet.randomness import Randomness
from fleet.topics import SHARD_COUNT

_log = structlog.get_logger(__name__)

Role = Literal["all", "ingest", "dispatch", "api"]

GRACEFUL_STOP_S: Final = 3
WEBHOOK_NAME: Final = "webhook"


class ConfigurationError(ValueError):
    """The settings don't fit together, or what they name can't be used; the text names the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the composition root brings: time, randomness, ids."""

    clock: Clock
    real_now_ms: Callable[[], int]
    randomness: Randomness
    new_id: Callable[[], str]


@dataclass(slots=True)
class Parts:
    """What every role shares."""

    settings: CloudSettings
    around: Surroundings
    database: SqlDatabase
    changes: Changes
    commands: DeviceCommands
    acknowledger: Acknowledger
    intents: IntentDesk
    dispatch: Dispatch
    outbox: Outbox
    handlers: products.Handlers
    services: Services
    sessions: MemberService
    link_publish: "_LatePublish"
    checks: dict[str, Callable[[], str]] = field(default_factory=dict)


class _LatePublish:
    """Commands are ordered by every role and published by the one that holds the link."""

    def __init__(self) -> None:
        self.target: Callable[[Sequence[Downstream]], None] | None = None

    def __call__(self, messages: Sequence[Downstream]) -> None:
        if self.target is not None:
            self.target(messages)


async def run_cloud(settings: CloudSettings, around: Surroundings, role: Role = "all") -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: before anything was started.
    """
    logs.configure(settings.log_level)
    for folder in settings.kind_folders:
        try:
            devices.add_kind_folder(str(folder))
        except ValueError as error:
            raise ConfigurationError(f"kind_folders: {error} (from FLEET_KIND_FOLDERS)") from error
    if role != "all" and settings.sql_url().startswith("sqlite"):
        raise ConfigurationError("roles in separate processes need PostgreSQL: set FLEET_DATABASE_URL, or run without --role")
    settings.data_directory.mkdir(parents=True, exist_ok=True)
    with _sole_owner(settings.data_directory / f"{role}.lock"):
        async with AsyncExitStack() as stack:
            parts = await _assemble(settings, around, role, stack)
            try:
                async with asyncio.TaskGroup() as group:
                    if role in {"all", "ingest"}:
                        await _start_ingest(parts, stack, group)
                    if role in {"all", "dispatch"}:
                        group.create_task(parts.outbox.run())
                        for work in parts.handlers.background:
                            group.create_task(work())
                    group.create_task(_serve_http(parts, role))
            except* _StoppedError:
                _log.info("stopped")


@contextmanager
def _sole_owner(path: Path) -> Iterator[None]:
    """One process per data directory: its spool and its leases are then its own after a crash."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"another fleet process uses {path.parent}; stop it or set FLEET_DATA_DIRECTORY") from None
        yield


async def _assemble(settings: CloudSettings, around: Surroundings, role: Role, stack: AsyncExitStack) -> Parts:
    database = SqlDatabase(settings.sql_url())
    stack.callback(database.close)
    await asyncio.to_thread(upgrade, settings.sql_url())
    key = load_or_create_command_key(settings.command_key_file or settings.data_directory / "command.key")
    key_id = command_key_id(key.public_key())
    changes = Changes()
    publish = _LatePublish()
    handlers = products.Handlers()
    commands = DeviceCommands(database, around.clock, publish, key_id, key, around.new_id, handlers.outcomes)
    intents = IntentDesk(database, around.clock, around.new_id)
    channels = await _channels(settings, around, database, changes, stack)
    owner = f"{role}-{around.new_id()[:8]}"
    outbox = Outbox(
        database, around.clock, channels, real_now_ms=around.real_now_ms, randomness=around.randomness,
        owner=owner, sole_owner=role == "all",
    )  # fmt: skip
    series = _series(settings)
    stack.push_async_callback(series.close)
    sessions = MemberService(database, around.clock, secure_cookies=settings.public_url.startswith("https://"))
    services = Services()
    services.add(sessions)
    services.add(series, as_type=SeriesStore)
    products.add_services(
        services, handlers, database=database, clock=around.clock, commands=commands, intents=intents, series=series,
        changes=changes, new_id=around.new_id,
    )  # fmt: skip
    return Parts(
        settings, around, database, changes, commands, Acknowledger(key_id, key), intents,
        Dispatch([channel.name for channel in channels]), outbox, handlers, services, sessions, publish,
    )  # fmt: skip


async def _channels(
    settings: CloudSettings, around: Surroundings, database: SqlDatabase, changes: Changes, stack: AsyncExitStack
) -> list[NotificationChannel]:
    channels: list[NotificationChannel] = [InboxChannel(database, changes)]
    try:
        if settings.webhook_url:
            from cloud.adapters.notify.webhook import WebhookChannel  # noqa: PLC0415  # only where it is used

            secret = settings.webhook_secret.get_secret_value()
            webhook = WebhookChannel(settings.webhook_url, secret=secret, real_now_ms=around.real_now_ms, name=WEBHOOK_NAME)
            channels.append(await stack.enter_async_context(webhook))
        if settings.apprise_urls:
            from cloud.adapters.notify import apprise_channel  # noqa: PLC0415  # half a second of imports

            for channel in apprise_channel.channels(settings.apprise_urls):
                stack.callback(channel.close)
                channels.append(channel)
    except ValueError as error:
        raise ConfigurationError(f"notifications: {error}; correct FLEET_WEBHOOK_URL or FLEET_APPRISE_URLS") from error
    return channels


def _series(settings: CloudSettings) -> SeriesStore:
    if settings.series != "influxdb":
        return SqliteSeries(settings.data_directory / "series.db")
    from cloud.adapters.series_influx import InfluxSeries  # noqa: PLC0415  # only where it is used

    return InfluxSeries(
        url=settings.influxdb_url, token=settings.influxdb_token.get_secret_value(), org=settings.influxdb_org,
        bucket=settings.influxdb_bucket,
    )  # fmt: skip


def _broker_tls(settings: CloudSettings) -> ssl.SSLContext | None:
    if settings.broker_ca_file is None:
        return None
    if settings.broker_certificate_file is None or settings.broker_key_file is None:
        raise ConfigurationError("broker_ca_file also needs FLEET_BROKER_CERTIFICATE_FILE and FLEET_BROKER_KEY_FILE")
    try:
        context = ssl.create_default_context(cafile=str(settings.broker_ca_file))
        context.load_cert_chain(settings.broker_certificate_file, settings.broker_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"broker certificates can't be used: {error}; check the FLEET_BROKER_…_FILE settings") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _start_ingest(parts: Parts, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
    settings, around, database = parts.settings, parts.around, parts.database
    options = ReceiverOptions(
        client_id=f"ingester-{around.new_id()[:8]}",
        host=settings.broker_host,
        port=settings.broker_port,
        tls=_broker_tls(settings),
    )
    link = BrokerLink(
        options, around.randomness, batch_messages_max=settings.batch_messages_max, linger_s=settings.batch_linger_ms / 1000
    )
    parts.link_publish.target = link.publish
    # The spool lives as long as its folder: its name is the owner of the leases.
    spool_name = _stable_name(settings.data_directory / "ingester-id", around.new_id)
    marks = await database.read(lambda tx: [ingest_rows.spool_position(tx, spool_name, name) for name in ("twin", "series")])
    spool = Spool(settings.data_directory / "spool", bytes_max=settings.spool_bytes_max, position_min=max(marks))
    stack.callback(spool.close)
    pipeline = Pipeline(
        kinds=devices.kinds(), link=link, spool=spool, spool_name=spool_name, database=database,
        leases=Leases(database, spool_name, around.real_now_ms), dispatch=parts.dispatch, commands=parts.commands,
        acknowledger=parts.acknowledger, intents=parts.intents, event_handlers=parts.handlers.events,
        changes=parts.changes, wake_outbox=parts.outbox.wake, clock=around.clock,
        limits=PipelineLimits(
            batch_messages_max=settings.batch_messages_max, twin_flush_s=settings.twin_flush_ms / 1000
        ),
    )  # fmt: skip
    parts.checks["ingest"] = lambda: "ok" if pipeline.ready.is_set() else "loading"
    parts.checks["broker"] = lambda: "ok" if link.connected else "not connected"
    group.create_task(pipeline.run(range(SHARD_COUNT)))
    group.create_task(parts.commands.run())
    if settings.series != "off":
        drain = SeriesDrain(
            spool, parts.services.get(SeriesStore), positions=_SqlPosition(database, spool_name),
            quarantine=_quarantine(database), randomness=around.randomness, on_state=_drain_state(parts.checks),
        )  # fmt: skip
        group.create_task(drain.run())


def _stable_name(path: Path, new_id: Callable[[], str]) -> str:
    if not path.exists():
        path.write_text(f"ingester-{new_id()[:12]}\n")
    return path.read_text().strip()


class _SqlPosition:
    """Where the drain stands, in `spool_mark`."""

    def __init__(self, database: SqlDatabase, spool_name: str) -> None:
        self._database = database
        self._spool_name = spool_name

    async def load(self) -> int:
        return await self._database.read(lambda tx: ingest_rows.spool_position(tx, self._spool_name, "series"))

    async def save(self, position: int) -> None:
        await self._database.write(
            lambda tx: ingest_rows.save_spool_position(tx, self._spool_name, "series", position)
        )


def _quarantine(database: SqlDatabase) -> Callable[[Sequence[Quarantined]], Any]:
    async def keep(items: Sequence[Quarantined]) -> None:
        def store(tx: Connection) -> None:
            ingest_rows.store_quarantined(tx, items)

        await database.write(store)

    return keep


def _drain_state(checks: dict[str, Callable[[], str]]) -> Callable[[DrainState, str], None]:
    def changed(state: DrainState, reason: str) -> None:
        # A series store that is away never makes the process unready: it is a projection.
        _log.warning("series drain", state=state.value, reason=reason)

    del checks
    return changed


async def _serve_http(parts: Parts, role: Role) -> None:
    settings = parts.settings

    async def ready() -> dict[str, str]:
        return {name: check() for name, check in parts.checks.items()} or {"http": "ok"}

    services = parts.services if role in {"all", "api"} else Services()
    app = create_app(
        services, settings, sessions=parts.sessions, changes=parts.changes, clock=parts.around.clock,
        registry=REGISTRY, ready=ready,
    )  # fmt: skip
    config = uvicorn.Config(
        app, host=settings.http_host, port=settings.http_port, log_config=None, access_log=False, lifespan="off",
        timeout_graceful_shutdown=GRACEFUL_STOP_S, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    await server.serve()  # returns on SIGTERM and SIGINT
    raise _StoppedError


class _StoppedError(Exception):
    """Ends the task group after a signal."""
