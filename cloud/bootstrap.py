"""Joins ports and adapters: the only file of the cloud that names concrete ones.

Read `run_cloud` from the top: which parts a role needs, how they hang together, in which order they
start. All tasks live in one group; if one of them fails, the process ends and its supervisor starts it
again from what is durable (trust, rule 8).

    role       does
    ingest     hears the devices of its shards, owns their state, sends commands to them, fills the series
    dispatch   delivers the outbox, ends commands, rides and sales that nobody answers
    api        pages, API and live changes for people
    all        everything in one process; on SQLite the only choice (decision 11)
"""

import asyncio
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import devices
from cloud import history, logs, products
from cloud.adapters.mqtt.link import BrokerLink
from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.adapters.notify.inbox import InboxChannel
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.opening import open_database
from cloud.adapters.sql.patience import endless
from cloud.adapters.sql.signals import PostgresSignals
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.data_directory import InUseError, PlaceError, one_at_a_time, refuse_unusable, sole_owner, stable_name
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.planner import Dispatch
from cloud.drain_rows import DrainPosition, Quarantine
from cloud.identity.authority import command_key_id
from cloud.identity.files import ConfigurationError, broker_tls, command_key
from cloud.ingest import repository as ingest_rows
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.leases import Leases
from cloud.intents import IntentDesk
from cloud.members.service import MemberService
from cloud.model import Downstream
from cloud.pipeline import Pipeline, PipelineLimits
from cloud.ports import NotificationChannel, SeriesStore, Signals
from cloud.settings import CloudSettings
from cloud.signals import Alone, Topic
from cloud.timeseries import retention
from cloud.timeseries.drain import SeriesDrain
from cloud.timeseries.spool import Spool
from cloud.watch import Watch
from cloud.watched import watch_drain, watch_ingest
from cloud.web.operations import operations_app
from fleet.clock import Clock
from fleet.randomness import Randomness
from fleet.topics import SHARD_COUNT, shard_of

_log = structlog.get_logger(__name__)

__all__ = ["ConfigurationError", "Surroundings", "run_cloud"]

Role = Literal["all", "ingest", "dispatch", "api"]

ALL_ROLES: Final = ("ingest", "dispatch", "api")
GRACEFUL_STOP_S: Final = 3
CHECK_S_MAX: Final = 2.0
WEBHOOK_NAME: Final = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the composition root brings: time, randomness, ids."""

    clock: Clock
    real_now_ms: Callable[[], int]
    randomness: Randomness
    new_id: Callable[[], str]


@dataclass(slots=True)
class Parts:
    """What every role shares. `checks` say for `/readyz` whether a part works: "ok", or what is wrong."""

    settings: CloudSettings
    around: Surroundings
    roles: Collection[str]
    database: SqlDatabase
    signals: Signals
    changes: Changes
    commands: DeviceCommands
    acknowledger: Acknowledger
    intents: IntentDesk
    dispatch: Dispatch
    outbox: Outbox
    handlers: products.Handlers
    series: SeriesStore
    services: Services
    sessions: MemberService
    to_devices: "_LatePublish"
    watch: Watch
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
    _add_kind_folders(settings)
    _refuse_what_does_not_fit(settings, role)
    roles = ALL_ROLES if role == "all" else (role,)
    try:
        refuse_unusable(settings.data_directory, settings.http_host, settings.http_port)
        with sole_owner(settings.data_directory, roles):
            async with AsyncExitStack() as stack:
                parts = await _assemble(settings, around, roles, stack)
                await _run_roles(parts, stack)
    except InUseError as error:
        raise ConfigurationError(f"{error}; stop it or set FLEET_DATA_DIRECTORY") from None
    except PlaceError as error:
        raise ConfigurationError(str(error)) from None


async def _run_roles(parts: Parts, stack: AsyncExitStack) -> None:
    roles, commands = parts.roles, parts.commands
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.signals.run())
            if "ingest" in roles:
                await _start_ingest(parts, stack, group)
            if "dispatch" in roles:
                group.create_task(endless(parts.outbox.run()))
                group.create_task(endless(_keep_bounds(parts)))
                for keep_deadlines in parts.handlers.deadlines:
                    group.create_task(endless(keep_deadlines()))
            if "api" in roles:
                for follow_commits in parts.handlers.followers:
                    group.create_task(endless(follow_commits()))
            if "ingest" in roles or "dispatch" in roles:
                group.create_task(endless(parts.watch.run()))
                group.create_task(endless(commands.run(sends="ingest" in roles, expires="dispatch" in roles)))
            group.create_task(_serve_http(parts))
    except* _StoppedError:
        _log.info("stopped")


async def _keep_bounds(parts: Parts) -> None:
    settings = parts.settings
    await history.keep_bounds(parts.database, parts.around.clock, settings.history_days, settings.queue_days)


# --- what must hold before anything starts ---------------------------------------------------------------------


def _add_kind_folders(settings: CloudSettings) -> None:
    for folder in settings.kind_folders:
        try:
            devices.add_kind_folder(str(folder))
        except ValueError as error:
            raise ConfigurationError(f"kind_folders: {error} (from FLEET_KIND_FOLDERS)") from error


def _refuse_what_does_not_fit(settings: CloudSettings, role: Role) -> None:
    broker_tls(settings)
    if not settings.sql_url().startswith("sqlite"):
        return
    if role != "all":
        raise ConfigurationError(
            "roles in separate processes need PostgreSQL: set FLEET_DATABASE_URL, or run without --role"
        )
    if len(settings.shard_numbers()) < SHARD_COUNT:
        raise ConfigurationError(
            "shards: on SQLite one process takes all devices; unset FLEET_SHARDS, or set FLEET_DATABASE_URL"
        )


# --- the parts that every role has -----------------------------------------------------------------------------


async def _assemble(
    settings: CloudSettings, around: Surroundings, roles: Collection[str], stack: AsyncExitStack
) -> Parts:
    database = await open_database(settings)
    stack.callback(database.close)
    key = command_key(settings)
    key_id = command_key_id(key.public_key())
    name = f"{'-'.join(roles)}-{around.new_id()[:8]}"
    signals = Alone() if database.is_sqlite else PostgresSignals(settings.sql_url(), name, around.randomness)
    changes = Changes(signals=None if database.is_sqlite else signals)
    to_devices = _LatePublish()
    handlers = products.Handlers()
    commands = DeviceCommands(database, around.clock, to_devices, key_id, key, around.new_id, handlers.outcomes)
    intents = IntentDesk(database, around.clock, around.new_id)
    channels = await _channels(settings, around, database, changes, stack)
    outbox = Outbox(
        database, around.clock, channels, real_now_ms=around.real_now_ms, randomness=around.randomness,
        owner=name, sole_owner=database.is_sqlite,
    )  # fmt: skip
    series = _series(settings)
    stack.push_async_callback(series.close)
    sessions = MemberService(database, around.clock, secure_cookies=settings.public_url.startswith("https://"))
    services = Services()
    services.add(sessions)
    products.add_services(
        services, handlers, database=database, clock=around.clock, commands=commands, intents=intents, series=series,
        changes=changes, new_id=around.new_id,
    )  # fmt: skip
    _hear_other_processes(signals, outbox, commands, intents)
    watched = stable_name(settings.data_directory / "ingester-id", around.new_id) if "ingest" in roles else "dispatch"
    watch = Watch(database, around.clock, watched, [channel.name for channel in channels], outbox.wake)
    REGISTRY.register(watch.numbers)
    stack.callback(REGISTRY.unregister, watch.numbers)
    return Parts(
        settings, around, roles, database, signals, changes, commands, Acknowledger(key_id, key), intents,
        Dispatch([channel.name for channel in channels]), outbox, handlers, series, services, sessions, to_devices,
        watch,
    )  # fmt: skip


def _hear_other_processes(signals: Signals, outbox: Outbox, commands: DeviceCommands, intents: IntentDesk) -> None:
    """What a commit elsewhere means here; who says what stands in `cloud.signals`."""
    signals.subscribe(Topic.OUTBOX, lambda _: outbox.wake())
    signals.subscribe(Topic.COMMANDS, lambda _: commands.after_commit())
    signals.subscribe(Topic.INTENTS, lambda _: intents.on_submitted())
    signals.subscribe(Topic.ANSWERED, intents.answered)
    signals.subscribe(Topic.SETTLED, commands.settled_elsewhere)


async def _channels(
    settings: CloudSettings, around: Surroundings, database: SqlDatabase, changes: Changes, stack: AsyncExitStack
) -> list[NotificationChannel]:
    channels: list[NotificationChannel] = [InboxChannel(database, changes)]
    try:
        if settings.webhook_url:
            from cloud.adapters.notify.webhook import WebhookChannel  # noqa: PLC0415  # only where it is used

            secret = settings.webhook_secret.get_secret_value()
            webhook = WebhookChannel(
                settings.webhook_url, secret=secret, real_now_ms=around.real_now_ms, name=WEBHOOK_NAME
            )
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
        with one_at_a_time(settings.data_directory):
            return SqliteSeries(settings.data_directory / "series.db")
    from cloud.adapters.series_influx import InfluxSeries  # noqa: PLC0415  # only where it is used

    return InfluxSeries(
        url=settings.influxdb_url, token=settings.influxdb_token.get_secret_value(), org=settings.influxdb_org,
        bucket=settings.influxdb_bucket,
    )  # fmt: skip


# --- ingest ----------------------------------------------------------------------------------------------------


async def _start_ingest(parts: Parts, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
    settings, around, database, checks = parts.settings, parts.around, parts.database, parts.checks
    link = _link(settings, around)
    parts.to_devices.target = link.publish
    # The spool lives as long as its folder: its name is the owner of the leases.
    name = stable_name(settings.data_directory / "ingester-id", around.new_id)
    marks = await database.read(lambda tx: [ingest_rows.spool_position(tx, name, one) for one in ("twin", "series")])
    spool = Spool(
        settings.data_directory / "spool", bytes_max=settings.spool_bytes_max, position_min=max(marks),
        consumers=("twin",) if settings.series == "off" else ("twin", "series"),
    )  # fmt: skip
    stack.callback(spool.close)
    leases = Leases(database, name, around.real_now_ms)
    stack.push_async_callback(leases.release)
    parts.commands.mine = lambda device_id: shard_of(device_id) in leases.shards
    pipeline = Pipeline(
        kinds=devices.kinds(), link=link, spool=spool, spool_name=name, database=database, leases=leases,
        dispatch=parts.dispatch, commands=parts.commands, acknowledger=parts.acknowledger, intents=parts.intents,
        event_handlers=parts.handlers.events, changes=parts.changes, wake_outbox=parts.outbox.wake,
        clock=around.clock, limits=PipelineLimits(
            batch_messages_max=settings.batch_messages_max, twin_flush_s=settings.twin_flush_ms / 1000
        ),
    )  # fmt: skip
    waiting = {True: "loading", False: "another ingester holds its shards"}
    checks["ingest"] = lambda: "ok" if pipeline.ready.is_set() else waiting[bool(leases.shards)]
    checks["broker"] = lambda: "ok" if link.connected else "not connected"
    group.create_task(endless(pipeline.run(settings.shard_numbers())))
    watch_ingest(parts.watch, link, spool, pipeline)
    if settings.series != "off":
        # Also while another ingester has our shards: what we took before is in our spool alone.
        drain = SeriesDrain(
            spool, parts.series, positions=DrainPosition(database, name), quarantine=Quarantine(database),
            randomness=around.randomness,
        )  # fmt: skip
        group.create_task(endless(drain.run()))
        watch_drain(parts.watch, drain)
    if isinstance(parts.series, SqliteSeries) and settings.series_days:
        group.create_task(retention.keep_days(parts.series, settings.series_days, around.clock))


def _link(settings: CloudSettings, around: Surroundings) -> BrokerLink:
    options = ReceiverOptions(
        client_id=f"ingester-{around.new_id()[:8]}",
        host=settings.broker_host,
        port=settings.broker_port,
        tls=broker_tls(settings),
    )
    linger_s = settings.batch_linger_ms / 1000
    return BrokerLink(
        options, around.randomness, batch_messages_max=settings.batch_messages_max, linger_s=linger_s
    )  # fmt: skip


# --- HTTP ------------------------------------------------------------------------------------------------------


async def _serve_http(parts: Parts) -> None:
    settings = parts.settings
    config = uvicorn.Config(
        _application(parts), host=settings.http_host, port=settings.http_port, log_config=None, access_log=False,
        lifespan="off", timeout_graceful_shutdown=GRACEFUL_STOP_S, server_header=False,
        proxy_headers=True, forwarded_allow_ips=settings.forwarded_allow_ips,
    )  # fmt: skip
    server = _Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    await server.serve()
    raise _StoppedError


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again when it is done, and that ends us before we have let go."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _application(parts: Parts) -> FastAPI:
    async def ready() -> dict[str, str]:
        return {"database": await _reachable(parts.database)} | {name: check() for name, check in parts.checks.items()}

    if "api" not in parts.roles:
        return operations_app(REGISTRY, ready)
    from cloud.web.app import create_app  # noqa: PLC0415  # pages and templates: only where people come

    return create_app(
        parts.services, parts.settings, sessions=parts.sessions, changes=parts.changes, clock=parts.around.clock,
        registry=REGISTRY, ready=ready,
    )  # fmt: skip


async def _reachable(database: SqlDatabase) -> str:
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            await database.read(lambda tx: tx.execute(text("SELECT 1")).scalar_one())
    except (TimeoutError, DBAPIError):
        return "not reachable"
    return "ok"


class _StoppedError(Exception):
    """Ends the task group after a signal."""
