"""The agents of a chaos run: the product's edge host on the hardware's socket, its links a little hostile."""

import asyncio
import json
import logging
import random
import signal
from pathlib import Path
from typing import Any, Final

from cli.chaos.hostile import HostileLink, Rates
from cli.clock import SystemClock
from edge.credentials import Credentials
from edge.host import EdgeHost
from edge.identity import Identity, facts_of, load_tls_context, load_verifiers
from edge.link import Link
from edge.mqtt_link import BrokerAddress, MqttLink

REPORT_EVERY_S: Final = 0.5
LINE_BYTES_MAX: Final = 64 * 1024
_READ_BYTES: Final = 4_096


class SocketLine:
    """`edge.transports.Line` to one device behind the hardware's Unix socket."""

    def __init__(self, path: str, device_id: str) -> None:
        self._path = path
        self._device_id = device_id
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """Connect and say which device is meant; raises OSError."""
        self.close()
        self._streams = await asyncio.open_unix_connection(self._path)
        self._streams[1].write(f"{self._device_id}\n".encode())

    async def read(self) -> bytes:
        """What has arrived."""
        return await self._streams[0].read(_READ_BYTES) if self._streams else b""

    def write(self, data: bytes) -> None:
        """Send; a clogged line loses bytes, and the protocol repeats them."""
        if self._streams and not self._streams[1].is_closing():
            transport = self._streams[1].transport
            if transport.get_write_buffer_size() + len(data) <= LINE_BYTES_MAX:
                self._streams[1].write(data)

    def close(self) -> None:
        """Release it."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def serve(settings: dict[str, Any]) -> None:
    """Run all agents of this host until SIGTERM."""
    clock = SystemClock(speed=settings["speed"], origin_ms=settings["origin_ms"], shift_ms=settings["shift_ms"])
    host = EdgeHost(
        clock, random.Random(), Path(settings["journal"]), first_connect_within_s=settings["connect_within_s"],
        firmware="chaos-1",
    )  # fmt: skip
    verifiers = load_verifiers({key_id: Path(path) for key_id, path in settings["command_keys"].items()})
    identities = Path(settings["identities"])
    rates_file = Path(settings["rates_file"])
    rates = Rates.read(rates_file)
    for device_id, (kind, port) in settings["devices"].items():
        tls = load_tls_context(
            Path(settings["authority"]), identities / f"{device_id}.pem", identities / f"{device_id}.key"
        )
        link: Link = MqttLink(device_id, BrokerAddress("127.0.0.1", port), tls)
        link = HostileLink(link, device_id, rates, random.Random(f"{settings['seed']}:{device_id}:hostile"))
        identity = Identity(tls, verifiers, Credentials(facts_of(identities / f"{device_id}.pem").serial))
        host.add(device_id, kind, SocketLine(settings["socket"], device_id), link, identity)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, host.stop)
    async with asyncio.TaskGroup() as group:
        reporting = group.create_task(_report(host, rates, rates_file, Path(settings["statistics_file"])))
        await host.run()
        reporting.cancel()


async def _report(host: EdgeHost, rates: Rates, rates_file: Path, path: Path) -> None:
    while True:
        rates.update(rates_file)
        found = await host.statistics()
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({
            "connected": found.connected, "acknowledged": found.acknowledged, "reserved": found.reserved,
            "pending": {lane.value: count for lane, count in found.pending.items()},
            "evicted": {lane.value: count for lane, count in found.evicted.items()}, "counts": dict(found.counts),
        }))  # fmt: skip
        fresh.replace(path)
        await asyncio.sleep(REPORT_EVERY_S)


def main(settings_file: Path) -> None:
    """Run with the settings of a JSON file."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(json.loads(settings_file.read_text())))
