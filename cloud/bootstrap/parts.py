"""The parts that every role has, and how they hang together."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from prometheus_client import REGISTRY

from cloud import products
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.opening import open_database
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.bootstrap.channels import open_channels
from cloud.bootstrap.enrolment import enrolment_service, make_registrar, watch_registrar
from cloud.bootstrap.identity import (
    OnlineIdentity,
    open_identity,
    watch_authorities,
    watch_folder,
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
from cloud.notifications.service import NotificationService
from cloud.platform_alerts.service import PlatformAlertService
from cloud.ports import AsyncWork, NotificationChannel, SeriesStore, Signals
from cloud.roster.keeper import RosterKeeper
from cloud.roster.service import RosterService
from cloud.settings import CloudSettings
from cloud.signals import Alone, Topic
from cloud.supervision.service import SupervisionService
from cloud.timeseries.rollup import TrackedSeries
from cloud.timeseries.touched import TouchedWindows
from cloud.watch import Watch
from cloud.work_orders.upkeep import OrderKeeper
from fleet.clock import Clock
from fleet.randomness import Randomness


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
    roles: Sequence[str]
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
    platform: list[Callable[[], Mapping[str, Any]]] = field(default_factory=list)
    """What parts of this process know of the measurement `platform` (`fleet.series`)."""
    series_is_behind: list[Callable[[], bool]] = field(default_factory=list)
    """Whether live points wait for the series: roll-ups stand back then."""
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


async def assemble(settings: CloudSettings, around: Surroundings, roles: Sequence[str], stack: AsyncExitStack) -> Parts:
    """Open the database, make every part, join them. Raises ConfigurationError."""
    keys = command_keys(settings)
    database = await open_database(settings)
    stack.callback(database.close)
    name = f"{'-'.join(roles)}-{around.new_id()[:8]}"
    signals = _signals(settings, database, name, around.randomness)
    changes = Changes(signals=None if database.is_sqlite else signals)
    to_devices = _LatePublish()
    handlers = products.Handlers()
    commands = DeviceCommands(database, around.clock, to_devices, keys, around.new_id, handlers.outcomes)
    intents = IntentDesk(database, around.clock, around.new_id)
    opened = await open_channels(settings, around.clock, around.real_now_ms, database, changes, stack=stack)
    deliver = [*opened.common, *await _probe(settings, stack)]
    outbox = Outbox(
        database, around.clock, deliver, real_now_ms=around.real_now_ms, randomness=around.randomness,
        owner=name, sole_owner=database.is_sqlite, personal=opened.personal,
    )  # fmt: skip
    if opened.router is not None:
        opened.router.wake_outbox = outbox.wake
        handlers.deadlines.append(opened.router.run)
    series = _series(settings, roles)
    stack.push_async_callback(series.close)
    sessions = MemberService(database, around.clock, secure_cookies=settings.public_url.startswith("https://"))
    enrolment = enrolment_service(settings, around, database, keys)
    services = Services()
    services.add(sessions)
    products.add_services(
        services, handlers, database=database, clock=around.clock, commands=commands, intents=intents, series=series,
        changes=changes, new_id=around.new_id, enrolment=enrolment,
        data_directory=settings.data_directory, public_url=settings.public_url,
    )  # fmt: skip
    notifications = services.get(NotificationService)
    notifications.channels, notifications.push_public_key = opened.personal_names, opened.push_public_key
    notifications.allow_private, notifications.wake_outbox = settings.webhook_allow_private, outbox.wake
    services.get(SupervisionService).probe_url = settings.probe_url
    _hear_of_the_platform(services, settings, database, around.clock, outbox.wake, opened.names)
    dispatch = Dispatch(opened.names)
    roster = services.get(RosterService)
    roster.zone = ZoneInfo(settings.roster_time_zone)
    keeper = RosterKeeper(database, around.clock, dispatch.system, outbox.wake, roster.zone)
    roster.on_changed, roster.wake_outbox, roster.channels = keeper.wake, outbox.wake, opened.names
    handlers.deadlines.append(keeper.run)
    _hear_other_processes(signals, outbox, commands, intents)
    keep_orders(services, opened.names, outbox.wake)
    watched = stable_name(settings.data_directory / "ingester-id", around.new_id) if "ingest" in roles else "dispatch"
    watch = Watch(database, around.clock, watched, opened.names, outbox.wake)
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
        dispatch, outbox, handlers, series, services, sessions, to_devices,
        watch, watch_folder(watch, settings) if identity else {}, identity=identity, registrar=registrar,
    )  # fmt: skip


def _hear_of_the_platform(
    services: Services, settings: CloudSettings, database: SqlDatabase, clock: Clock, wake: Callable[[], None],
    channels: Sequence[str],
) -> None:  # fmt: skip
    """Grafana's alerts become notices."""
    alerts = PlatformAlertService(database, clock)
    alerts.secret = settings.platform_alert_secret.get_secret_value()
    alerts.channels, alerts.wake_outbox = channels, wake
    services.add(alerts)


def keep_orders(services: Services, channels: Sequence[str], wake_outbox: Callable[[], None]) -> None:
    """Whom the keeper of work orders tells, and how."""
    keeper = services.get(OrderKeeper)
    keeper.channels, keeper.wake_outbox = tuple(channels), wake_outbox


def _hear_other_processes(signals: Signals, outbox: Outbox, commands: DeviceCommands, intents: IntentDesk) -> None:
    """What a commit elsewhere means here; who says what stands in `cloud.signals`."""
    signals.subscribe(Topic.OUTBOX, lambda _: outbox.wake())
    signals.subscribe(Topic.COMMANDS, lambda _: commands.after_commit())
    signals.subscribe(Topic.INTENTS, lambda _: intents.on_submitted())
    signals.subscribe(Topic.ANSWERED, intents.answered)
    signals.subscribe(Topic.SETTLED, commands.settled_elsewhere)


def _signals(settings: CloudSettings, database: SqlDatabase, name: str, randomness: Randomness) -> Signals:
    if database.is_sqlite:
        return Alone()
    from cloud.adapters.sql.signals import PostgresSignals  # noqa: PLC0415  # the driver alone takes 9 MB

    return PostgresSignals(settings.sql_url(), name, randomness)


async def _probe(settings: CloudSettings, stack: AsyncExitStack) -> list[NotificationChannel]:
    """The way back of synthetic calls: the outbox delivers there, and nothing is ever planned for it but those."""
    if not settings.probe_url:
        return []
    from cloud.adapters.notify.probe import ProbeChannel  # noqa: PLC0415  # only where it is used

    try:
        return [await stack.enter_async_context(ProbeChannel(settings.probe_url))]
    except ValueError as error:
        raise ConfigurationError(f"{error}; correct FLEET_PROBE_URL") from error


def _series(settings: CloudSettings, roles: Sequence[str]) -> SeriesStore:
    if settings.series != "influxdb":
        with one_at_a_time(settings.data_directory):
            return SqliteSeries(settings.data_directory / "series.db")
    from cloud.adapters.series_influx import InfluxSeries  # noqa: PLC0415  # only where it is used

    store = InfluxSeries(
        url=settings.influxdb_url, token=settings.influxdb_token.get_secret_value(), org=settings.influxdb_org,
        bucket=settings.influxdb_bucket,
    )  # fmt: skip
    if not settings.influxdb_rollup:
        return store
    name = roles[0] if len(roles) == 1 else "all"
    return TrackedSeries(store, TouchedWindows(settings.data_directory / f"rollup-{name}.json"))
