"""Runs the agent of one device from its settings; what `fleet edge` calls."""

import asyncio
import signal

import devices
from edge.host import EdgeHost
from edge.mqtt_link import BrokerAddress, MqttLink
from edge.settings import EdgeSettings, SettingsError
from edge.transports import line_from
from fleet.clock import Clock
from fleet.randomness import Randomness


async def serve(settings: EdgeSettings, clock: Clock, randomness: Randomness) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SettingsError: the kind is unknown or a kind folder holds none.
        IdentityError: a key or certificate cannot be used.
        JournalError: the journal cannot be opened.
    """
    for folder in settings.kind_folders:
        try:
            devices.add_kind_folder(str(folder))
        except ValueError as error:
            raise SettingsError(f"kind_folders: {error}; name a folder with a kind.py") from error
    identity = settings.identity()
    host = EdgeHost(clock, randomness, settings.journal_path, firmware=settings.firmware)
    link = MqttLink(settings.device_id, BrokerAddress(settings.broker.host, settings.broker.port), identity.tls)
    try:
        host.add(settings.device_id, settings.kind, line_from(settings.transport), link, identity)
    except devices.UnknownKindError as error:
        raise SettingsError(f"kind: {error}; correct it or add its folder to kind_folders") from error
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, host.stop)
    await host.run()


def main(settings: EdgeSettings, clock: Clock, randomness: Randomness) -> None:
    """`serve` on an event loop of its own."""
    asyncio.run(serve(settings, clock, randomness))
