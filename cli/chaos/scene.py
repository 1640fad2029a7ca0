"""The processes of one round, from broker to receiver, and the proxies between them."""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

import devices
from cli.broker import Broker, free_port
from cli.chaos.disk import Disk
from cli.chaos.hostile import Rates
from cli.chaos.influx import InfluxServer
from cli.chaos.postgresql import copy_database
from cli.chaos.processes import ChaosError, Supervisor, Victim
from cli.chaos.proxy import Proxy
from cli.clock import SystemClock, real_now_ms
from cli.demo import stage
from cli.processes import Child

READY_S_MAX: Final = 90.0
POLL_S: Final = 0.05
EDGE_DISK_BYTES: Final = 64 << 20
CLOUD_DISK_BYTES: Final = 2 << 30
"""Virtual: a tmpfs takes what it holds. The spool keeps 256 MiB of it free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What differs between rounds."""

    seed: int
    counts: Mapping[str, int]
    speed: float
    press_every_s: float
    """Business seconds between presses in the whole fleet."""
    hosts: int = 2
    database_url: str = ""
    """Empty: SQLite and one cloud process; else PostgreSQL and a process per role."""
    influxdb: bool = False
    """A series store of its own that can fail; else the embedded one."""


class WorldProcess(Child):
    """The hardware; `python -m cli.chaos.world` instead of a command."""

    def __init__(self, settings_file: Path, log_file: Path) -> None:
        super().__init__("hardware", [], log_file)
        self._arguments = [self._arguments[0], "-m", "cli.chaos.world", str(settings_file)]

    def stand_still(self) -> None:
        """The script ends; hardware only repeats what it keeps."""
        os.kill(self.pid, signal.SIGUSR1)


class Scene:
    """`async with` starts everything and waits until all devices are welcomed; leaving ends it all."""

    def __init__(self, setting: Setting, directory: Path) -> None:
        self.setting = setting
        self.directory = directory
        origin_ms = real_now_ms()
        self.clock = SystemClock(speed=setting.speed, origin_ms=origin_ms)
        self._origin_ms = origin_ms
        counts = {name: setting.counts.get(name, 0) for name in devices.kinds()}
        self.fleet = stage.fleet_of(counts, setting.seed)
        self.supervisor = Supervisor()
        self.rates = Rates()
        self.http_ports: dict[str, int] = {}
        self.disks = {
            "edge": Disk(self.edge_directory, EDGE_DISK_BYTES), "cloud": Disk(directory / "cloud", CLOUD_DISK_BYTES)
        }  # fmt: skip
        self.disks_refused = ""
        self._story = directory / "story.jsonl"
        self.series = InfluxServer(directory / "influxdb") if setting.influxdb else None
        self._group = asyncio.TaskGroup()

    # --- start ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        setting = self.setting
        for disk in self.disks.values():
            self.disks_refused = self.disks_refused or disk.mount()
        self.stage = await asyncio.to_thread(
            stage.set_up, self.directory, self.fleet, setting.seed, self.clock.now_ms()
        )
        if setting.database_url:
            sqlite_url = f"sqlite:///{self.stage.state_file.resolve()}"
            await asyncio.to_thread(copy_database, sqlite_url, setting.database_url)
        self.broker = Broker(self.directory / "broker", tls=self.stage.broker_tls)
        await asyncio.to_thread(self.broker.start)
        rng = random.Random(f"{setting.seed}:proxies")
        devices_port, services_port = self.broker.port, self.broker.services_port
        self.edge_proxy, self.flapping_proxy = (Proxy(devices_port, rng) for _ in range(2))
        self.cloud_proxy = Proxy(services_port, rng)
        for proxy in self.proxies:
            await proxy.start()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=45))
        receiver_port = free_port()
        receiver = Child(
            "receiver", ["receiver", str(receiver_port), str(self.stage.receiver_file)], self.directory / "receiver.log"
        )
        self._world = self._make_world()
        for child in (receiver, self._world):
            child.start()
            self.supervisor.bystanders.append(child)
        if self.series is not None:
            await self.series.start()
        self._add_cloud(receiver_port)
        await self._group.__aenter__()
        self._watching = self._group.create_task(self.supervisor.run())
        try:
            await self.wait(self.cloud_ready, "the cloud to be ready")
            for number in range(setting.hosts):
                self.supervisor.add(self._make_host(number))
            await self.wait(self.whole, "all devices to connect")
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._group.__aexit__(None, None, None)
        finally:
            await self._session.close()
            await asyncio.to_thread(self.supervisor.stop)
            for child in self.supervisor.bystanders:
                await asyncio.to_thread(child.stop)
            if self.series is not None:
                await self.series.close()
            await asyncio.to_thread(self.broker.stop)
            for proxy in self.proxies:
                await proxy.close()
            for disk in self.disks.values():
                await asyncio.to_thread(disk.unmount)

    def _add_cloud(self, receiver_port: int) -> None:
        scene, setting = self.stage, self.setting
        common = {
            "FLEET_BROKER_PORT": str(self.cloud_proxy.port),
            "FLEET_BROKER_CA_FILE": str(scene.authority_file),
            "FLEET_BROKER_CERTIFICATE_FILE": str(scene.ingester_certificate),
            "FLEET_BROKER_KEY_FILE": str(scene.ingester_key),
            "FLEET_COMMAND_KEY_FILE": str(scene.command_key_file),
            "FLEET_WEBHOOK_URL": f"http://127.0.0.1:{receiver_port}/notify",
            "FLEET_WEBHOOK_ALLOW_PRIVATE": "true",
            "FLEET_CLOCK_SPEED": str(setting.speed),
            "FLEET_CLOCK_ORIGIN_MS": str(self._origin_ms),
            "FLEET_LOG_LEVEL": "warning",
            **(self.series.settings() if self.series is not None else {}),
        }
        roles = ("ingest", "dispatch", "api") if setting.database_url else ("cloud",)
        for name in roles:
            self.http_ports[name] = free_port()
            directory = scene.cloud_directory if name in {"cloud", "ingest"} else self.directory / name
            own = {"FLEET_DATA_DIRECTORY": str(directory), "FLEET_HTTP_PORT": str(self.http_ports[name])}
            if setting.database_url:
                own["FLEET_DATABASE_URL"] = setting.database_url
            role = [] if name == "cloud" else ["--role", name]
            self.supervisor.add(Victim(name, self.directory, ["fleet", "serve", *role], {**common, **own}))

    def _make_world(self) -> WorldProcess:
        setting = self.setting
        path = self.directory / "world.json"
        path.write_text(json.dumps({
            "seed": setting.seed, "counts": dict(setting.counts), "speed": setting.speed, "origin_ms": self._origin_ms,
            "shift_ms": 0, "press_every_s": setting.press_every_s, "truth_file": str(self.stage.truth_file),
            "socket": str(self.socket), "statistics_file": str(self.directory / "world.statistics.json"),
        }))  # fmt: skip
        return WorldProcess(path, self.directory / "world.log")

    def _make_host(self, number: int) -> Victim:
        name = f"edge-{number}"
        self.rates.write(self.directory / "rates.json")
        folder = self.edge_directory / name
        folder.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps({
            "seed": self.setting.seed, "speed": self.setting.speed, "origin_ms": self._origin_ms, "shift_ms": 0,
            "journal": str(folder / "journal.sqlite"), "statistics_file": str(self._statistics_file(name)),
            "rates_file": str(self.directory / "rates.json"), "authority": str(self.stage.authority_file),
            "identities": str(self.stage.identities), "socket": str(self.socket), "connect_within_s": 1.0,
            "command_keys": {self.stage.command_key_id: str(self.stage.command_public_file)},
            "devices": {
                device_id: (self.fleet[device_id][0], self._port_of(device_id)) for device_id in self.devices_of(name)
            },
        }))  # fmt: skip
        return Victim(name, self.directory, ["agents", str(path)])

    # --- what is where -------------------------------------------------------------------------------------------

    @property
    def proxies(self) -> tuple[Proxy, Proxy, Proxy]:
        """To the broker: from the devices, from the one that flaps, from the cloud."""
        return self.edge_proxy, self.flapping_proxy, self.cloud_proxy

    @property
    def socket(self) -> Path:
        """Of the hardware."""
        return self.directory / "world.socket"

    @property
    def edge_directory(self) -> Path:
        """Journals of all hosts."""
        return self.directory / "edge"

    @property
    def hosts(self) -> list[str]:
        """Names of the agent hosts."""
        return [f"edge-{number}" for number in range(self.setting.hosts)]

    @property
    def flapping_device(self) -> str:
        """The one with a proxy of its own."""
        return next(iter(self.fleet))

    def devices_of(self, host: str) -> list[str]:
        """Every n-th device."""
        return list(self.fleet)[int(host.rpartition("-")[2]) :: self.setting.hosts]

    def _port_of(self, device_id: str) -> int:
        return (self.flapping_proxy if device_id == self.flapping_device else self.edge_proxy).port

    def _statistics_file(self, host: str) -> Path:
        return self.directory / f"{host}.statistics.json"

    @property
    def database_url(self) -> str:
        """Of the cloud."""
        return self.setting.database_url or f"sqlite:///{self.stage.state_file.resolve()}"

    def victim(self, name: str) -> Victim:
        """By name."""
        return self.supervisor.victims[name]

    # --- how it is -----------------------------------------------------------------------------------------------

    def statistics(self, host: str) -> dict[str, Any]:
        """The last word of this life of an agent host; empty before its first."""
        path = self._statistics_file(host)
        try:
            alive_s = time.time() - (time.monotonic() - self.victim(host).started_s)
            if path.stat().st_mtime < alive_s:
                return {}
            found: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        return found

    def world_statistics(self) -> dict[str, Any]:
        """Whether hardware still keeps events."""
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads((self.directory / "world.statistics.json").read_text())
            return found
        return {}

    async def is_ready(self, name: str) -> bool:
        """What `/readyz` of a cloud process says."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session.get(
                f"http://127.0.0.1:{self.http_ports[name]}/readyz", timeout=aiohttp.ClientTimeout(total=2)
            ) as response:
                return response.status == 200
        return False

    async def cloud_ready(self) -> bool:
        """All cloud processes."""
        return all([await self.is_ready(name) for name in self.http_ports])

    async def is_up(self, name: str) -> bool:
        """Whether a victim does its work again: ready, or a host with most of its devices welcomed."""
        if name in self.http_ports:
            return await self.is_ready(name)
        return 2 * int(self.statistics(name).get("connected", 0)) >= len(self.devices_of(name))

    async def whole(self) -> bool:
        """Everything works, and every device is welcomed."""
        connected = sum(int(self.statistics(host).get("connected", 0)) for host in self.hosts)
        return connected >= len(self.fleet) and await self.cloud_ready()

    async def wait(self, holds: Any, what: str, limit_s: float = READY_S_MAX) -> None:
        """Poll an async condition; raises ChaosError with everybody's last words."""
        deadline_s = time.monotonic() + limit_s
        while not await holds():
            if self._watching.done():
                self._watching.result()
            if time.monotonic() > deadline_s:
                words = "\n".join(f"--- {one.name}\n{one.last_words()}" for one in self.supervisor.victims.values())
                raise ChaosError(f"waited {limit_s:.0f} s for {what} in vain:\n{words}")
            await asyncio.sleep(POLL_S)

    def tell(self, what: str, **facts: Any) -> None:
        """Write down what was done, beside the truth: `real_s` is the same clock."""
        with self._story.open("a") as story:
            story.write(json.dumps({"real_s": round(time.monotonic(), 3), "what": what, **facts}) + "\n")

    def set_rates(self, rates: Rates) -> None:
        """Message faults of all agents from now on."""
        self.rates = rates
        rates.write(self.directory / "rates.json")

    def stand_still(self) -> None:
        """Nothing new happens."""
        self._world.stand_still()
