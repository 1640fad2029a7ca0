"""Runs the agent of one device from its settings; what `fleet edge run` calls.

Beside the agent run the watchdog's feeder and the answerer of `fleet edge status`. If any task dies, the process is
gone within a second and the service manager starts it anew.
"""

import asyncio
import signal
from pathlib import Path
from typing import Final

import devices
from edge.disk import remove_old_damage
from edge.host import EdgeHost
from edge.logs import RecentErrors
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.notify import ServiceManager
from edge.report import Report
from edge.settings import EdgeSettings, SettingsError
from edge.status import answering
from edge.supervision import LastResort, OnFailure, supervised
from edge.watchdog import FEEDS_PER_PERIOD, Watchdog
from fleet.clock import Clock
from fleet.randomness import Randomness

LOOK_EVERY_S: Final = 15.0
"""How often progress is checked when nobody set a watchdog: for the status alone."""


async def serve(
    settings: EdgeSettings,
    clock: Clock,
    randomness: Randomness,
    *,
    recent: RecentErrors | None = None,
    manager: ServiceManager | None = None,
    on_failure: OnFailure = lambda _: None,
) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        settings: of this box.
        clock: business time and monotonic time.
        randomness: for jitter.
        recent: where the last warnings are kept, for the status.
        manager: the service manager; None without one.
        on_failure: hears of a task's death before anything is cleaned up.

    Raises:
        SettingsError: the kind is unknown, a kind folder holds none, or the data directory cannot be used.
        IdentityError: a key or certificate cannot be used.
        JournalError: the journal cannot be opened.
    """
    add_kind_folders(settings.kind_folders)
    identity = settings.identity(clock)
    remove_old_damage(settings.journal_path, settings.bounds.damaged_journals_max)
    host = EdgeHost(
        clock,
        randomness,
        settings.journal_path,
        bounds=settings.bounds.journal,
        firmware=settings.firmware,
        on_failure=on_failure,
    )
    link = MqttLink(
        settings.device_id,
        BrokerAddress(settings.broker.host, settings.broker.port),
        identity.tls_source(),
        compact=settings.broker.compact,
        trusted_ms=lambda: host.agents[settings.device_id].trusted_ms(),  # noqa: PLW0108  # made when the host runs
    )
    try:
        host.add(settings.device_id, settings.kind, settings.line(clock), link, identity)
    except devices.UnknownKindError as error:
        raise SettingsError(f"kind: {error}; correct it or add its folder to kind_folders") from error
    manager = manager or ServiceManager()
    watchdog = Watchdog(
        manager,
        lambda: host.journal.read(lambda _: None),
        lambda: {device_id: agent.vitals.busy_s for device_id, agent in host.agents.items()},
        lambda: report.line(),  # noqa: PLW0108  # the report is made of this very watchdog
    )
    report = Report(settings, host, watchdog, recent or RecentErrors(), clock)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        manager.stopping()
        host.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    pause_s = LOOK_EVERY_S if manager.watchdog_s is None else manager.watchdog_s / FEEDS_PER_PERIOD
    async with answering(settings.status_path, report.document), asyncio.TaskGroup() as group:
        watching = group.create_task(supervised(watchdog.run(pause_s), on_failure))
        manager.ready(report.line())
        await host.run()
        watching.cancel()


def add_kind_folders(folders: tuple[Path, ...]) -> None:
    """Make further kinds known; raises SettingsError."""
    for folder in folders:
        try:
            devices.add_kind_folder(str(folder))
        except ValueError as error:
            raise SettingsError(f"kind_folders: {error}; name a folder with a kind.py") from error


def main(
    settings: EdgeSettings,
    clock: Clock,
    randomness: Randomness,
    recent: RecentErrors | None = None,
    manager: ServiceManager | None = None,
) -> None:
    """`serve` on an event loop of its own; the process does not outlive a task's death by more than a second."""
    asyncio.run(serve(settings, clock, randomness, recent=recent, manager=manager, on_failure=LastResort()))
