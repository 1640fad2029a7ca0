"""The parts that every role has, and how they hang together."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import REGISTRY

from cloud import products
from cloud.adapters.notify.inbox import InboxChannel
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.opening import open_database
from cloud.adapters.sql.signals import PostgresSignals
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.bootstrap.enrolment import enrolment_service, make_registrar, watch_registrar
from cloud.bootstrap.identity import (
    OnlineIdentity,
    open_identity,
    watch_authorities,
    watch_identity,
    watch_own_certificate,
)
from cloud.data_directory import one_at_a_time, stable_name
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.planner import Dispatch
from cloud.identity.files import ConfigurationError, command_keys
from cloud.identity.registrar import Registrar
from cloud.ingest.acknowledger import Acknowledger
from cloud.intents import IntentDesk
from cloud.members.service import MemberService
from cloud.model import Downstream
from cloud.ports import AsyncWork, NotificationChannel, SeriesStore, Signals
from cloud.settings import CloudSettings
from cloud.signals import Alone, Topic
from cloud.watch import Watch
from fleet.clock import Clock
from fleet.randomness import Randomness

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
    identity: OnlineIdentity | None = None
    """Set where devices' certificates are signed and revoked."""
    registrar: Registrar | None = None

    def identity_work(self) -> list[AsyncWork]:
        """What keeps the revocation list fresh, signs and revokes, where this process does so."""
        return [] if self.identity is None or self.registrar is None else [self.identity.keeper.run, self.registrar.run]


class _LatePublish:
    """Commands are ordered by every role and published by the one that holds the link."""

    def __init__(self) -> None:
        self.target: Callable[[Sequence[Downstream]], None] | None = None

    def __call__(self, messages: Sequence[Downstream]) -> None:
        if self.target is not None:
            self.target(messages)


async def assemble(
    settings: CloudSettings, around: Surroundings, roles: Collection[str], stack: AsyncExitStack
) -> Parts:
    """Open the database, make every part, join them. Raises ConfigurationError."""
    keys = command_keys(settings)
    database = await open_database(settings)
    stack.callback(database.close)
    name = f"{'-'.join(roles)}-{around.new_id()[:8]}"
    signals = Alone() if database.is_sqlite else PostgresSignals(settings.sql_url(), name, around.randomness)
    changes = Changes(signals=None if database.is_sqlite else signals)
    to_devices = _LatePublish()
    handlers = products.Handlers()
    commands = DeviceCommands(database, around.clock, to_devices, keys, around.new_id, handlers.outcomes)
    intents = IntentDesk(database, around.clock, around.new_id)
    channels = await _channels(settings, around, database, changes, stack)
    outbox = Outbox(
        database, around.clock, channels, real_now_ms=around.real_now_ms, randomness=around.randomness,
        owner=name, sole_owner=database.is_sqlite,
    )  # fmt: skip
    series = _series(settings)
    stack.push_async_callback(series.close)
    sessions = MemberService(database, around.clock, secure_cookies=settings.public_url.startswith("https://"))
    enrolment = enrolment_service(settings, around, database, keys)
    services = Services()
    services.add(sessions)
    products.add_services(
        services, handlers, database=database, clock=around.clock, commands=commands, intents=intents, series=series,
        changes=changes, new_id=around.new_id, enrolment=enrolment,
    )  # fmt: skip
    _hear_other_processes(signals, outbox, commands, intents)
    watched = stable_name(settings.data_directory / "ingester-id", around.new_id) if "ingest" in roles else "dispatch"
    watch = Watch(database, around.clock, watched, [channel.name for channel in channels], outbox.wake)
    REGISTRY.register(watch.numbers)
    stack.callback(REGISTRY.unregister, watch.numbers)
    watch_own_certificate(watch, settings, around.real_now_ms)
    registrar = None
    identity = open_identity(settings, around.real_now_ms, database) if "api" in roles else None
    if identity is not None:
        watch_identity(watch, identity.keeper)
        watch_authorities(watch, settings, around.real_now_ms)
        registrar = make_registrar(settings, around, database, identity, enrolment)
        watch_registrar(watch, registrar)
    return Parts(
        settings, around, roles, database, signals, changes, commands, Acknowledger(keys), intents,
        Dispatch([channel.name for channel in channels]), outbox, handlers, series, services, sessions, to_devices,
        watch, identity=identity, registrar=registrar,
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
