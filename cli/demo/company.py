"""The processes and people of a running demo, and the comparison at its end."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from cli.broker import Broker, free_port
from cli.clock import SystemClock
from cli.demo import counting, holdings, people, verdict
from cli.demo.command import DemoError, Result, Stopped, new_rng
from cli.demo.stage import Stage
from cli.processes import Child
from devices import kinds
from fleet.kind import Site

READY_S_MAX: Final = 60.0
CONNECTED_S_MAX: Final = 60.0
SETTLE_S_MAX: Final = 45.0
"""Longest wait at the end for what is still on its way."""
PENDING_S_MAX: Final = 10.0
"""The same for what a driver reports only after that."""
FRESH_AFTER_S: Final = 1.5
"""The simulators tell their statistics each second; older ones may be from before the world stood still."""
COMPARE_S_MAX: Final = 120.0
RIDE_EVERY_S: Final = 240.0
MEAL_EVERY_S: Final = 300.0
CREW_REACTION_S: Final = (5.0, 25.0)
ORDER_REACTION_S: Final = (30.0, 120.0)
PRINTED_ORDER_REACTION_S: Final = (600.0, 1200.0)
"""Whoever signs in as the printed member of the crew has time to work the orders by hand."""


class Company:
    """`async with` starts everything and waits until all devices are welcomed; leaving ends it all."""

    def __init__(
        self, *, scene: Stage, fleet: Mapping[str, tuple[str, Site]], clock: SystemClock, origin_ms: int, shift_ms: int,
        speed: float, seed: int, broker: Broker, http_port: int, receiver_port: int, counts: Mapping[str, int],
        kind_folders: tuple[Path, ...], stopped: asyncio.Event, started_s: float,
    ) -> None:  # fmt: skip
        """`stopped`: Ctrl-C, also while it starts; `started_s`: when the demo's process began, monotonic."""
        self._stopped = stopped
        self._started_s = started_s
        self._first_telemetry_s: float | None = None
        self._speed = speed
        self.scene = scene
        self.tally = people.Tally()
        self.base_url = f"http://127.0.0.1:{http_port}"
        self._fleet = fleet
        self._clock = clock
        self._seed = seed
        directory = scene.directory
        self._receiver = Child(
            "receiver", ["receiver", str(receiver_port), str(scene.receiver_file)], directory / "receiver.log"
        )
        cloud_settings = {
            "FLEET_DATA_DIRECTORY": str(scene.cloud_directory),
            "FLEET_BROKER_PORT": str(broker.services_port),
            "FLEET_BROKER_PID_FILE": str(broker.pid_file.resolve()),
            "FLEET_PKI_DIRECTORY": str(scene.pki_directory),
            "FLEET_BROKER_CA_FILE": str(scene.authority_file),
            "FLEET_BROKER_CERTIFICATE_FILE": str(scene.ingester_certificate),
            "FLEET_BROKER_KEY_FILE": str(scene.ingester_key),
            "FLEET_COMMAND_KEY_FILE": str(scene.command_key_file),
            "FLEET_HTTP_PORT": str(http_port),
            "FLEET_WEBHOOK_URL": f"http://127.0.0.1:{receiver_port}/notify",
            "FLEET_WEBHOOK_ALLOW_PRIVATE": "true",
            "FLEET_SMS_URL": f"http://127.0.0.1:{receiver_port}/texts",
            "FLEET_CLOCK_SPEED": str(speed),
            "FLEET_CLOCK_ORIGIN_MS": str(origin_ms),
            "FLEET_CLOCK_SHIFT_MS": str(shift_ms),
            "FLEET_KIND_FOLDERS": json.dumps([str(folder.resolve()) for folder in kind_folders]),
            "FLEET_PROBE_URL": f"http://127.0.0.1:{free_port()}",
            "FLEET_DEVICES_BROKER_PORT": str(broker.port),
        }  # fmt: skip
        self._cloud = Child("cloud", ["serve"], directory / "cloud.log", cloud_settings)
        self._watchdog = Child("watchdog", ["watchdog"], directory / "watchdog.log", cloud_settings)
        arguments = [
            "sim", "--broker-port", str(broker.port), "--identities", str(scene.identities),
            "--authority", str(scene.authority_file), "--command-key", str(scene.command_public_file),
            "--command-key-id", scene.command_key_id, "--directory", str(directory), "--scenario", "demo",
            "--seed", str(seed), "--speed", str(speed), "--origin-ms", str(origin_ms), "--shift-ms", str(shift_ms),
        ]  # fmt: skip
        for name, number in counts.items():
            arguments += ["--count", f"{name}={number}"]
        for folder in kind_folders:
            arguments += ["--kind-folder", str(folder.resolve())]
        self._sim = Child("simulators", arguments, directory / "sim.log")
        self._session: aiohttp.ClientSession | None = None
        self._admin: people.Client | None = None
        self._playing: asyncio.Task[None] | None = None

    # --- start and end -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            for child in (self._receiver, self._cloud, self._sim, self._watchdog):
                child.start()
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=45))
            await self._wait_ready()
            await self._wait_connected()
            self._admin = self._client("admin")
            await self._admin.sign_in()  # now: whoever tries passwords later must not keep us from comparing
            self._playing = asyncio.get_running_loop().create_task(self._people())
            self._playing_since_s = time.monotonic()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        try:
            await self._send_people_home()
        finally:
            if self._session is not None:
                await self._session.close()
            for child in (self._watchdog, self._sim, self._cloud, self._receiver):
                await asyncio.to_thread(child.stop)

    async def _wait_ready(self) -> None:
        assert self._session is not None
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline:
            if self._stopped.is_set():
                raise Stopped
            self.watch()
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with self._session.get(f"{self.base_url}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
        raise DemoError(f"the cloud was not ready within {READY_S_MAX:.0f} s:\n{self._cloud.last_words()}")

    async def _wait_connected(self) -> None:
        deadline = time.monotonic() + CONNECTED_S_MAX
        while time.monotonic() < deadline:
            if self._stopped.is_set():
                raise Stopped
            self.watch()
            if self._statistics().get("connected", 0) >= len(self._fleet):
                return
            await asyncio.sleep(0.2)
        found = self._statistics().get("connected", 0)
        raise DemoError(
            f"{found} of {len(self._fleet)} devices connected in {CONNECTED_S_MAX:.0f} s:\n{self._sim.last_words()}"
        )

    def watch(self) -> None:
        """Start the cloud again if it died, as a supervisor does; any other death ends the demo."""
        if self._first_telemetry_s is None and holdings.has_points(self.scene.series_file):
            self._first_telemetry_s = time.monotonic() - self._started_s
        if not self._cloud.running:
            if self._cloud.restarts >= 5:
                raise DemoError(f"the cloud keeps dying:\n{self._cloud.last_words(20)}")
            self._cloud.start()
        for child in (self._sim, self._receiver, self._watchdog):
            if not child.running:
                raise DemoError(f"the {child.name} process died:\n{child.last_words(20)}")

    def kill_cloud(self) -> None:
        """As a crash would."""
        self._cloud.kill()

    @property
    def _statistics_file(self) -> Path:
        return self.scene.directory / "statistics.json"

    def _statistics(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._statistics_file.read_text())
        except FileNotFoundError:
            return {}
        return found

    def progress(self, deadline: float | None) -> str:
        """One line for people."""
        found, tally = self._statistics(), self.tally
        left = "" if deadline is None else f"{max(0, deadline - time.monotonic()):.0f} s left · "
        return (
            f"{left}{found.get('connected', 0)} devices online · {found.get('acknowledged', 0)} messages committed · "
            f"{tally.unlocks_opened} unlocks · {len(tally.purchases)} meals asked · "
            f"{tally.calls_acknowledged} calls answered · {tally.orders_done} orders done"
        )

    def presses_so_far(self) -> int:
        """Whether there is anything to compare."""
        return len(verdict.truths_of(self._truth_lines(), self._clock.now_ms()).presses)

    # --- people ------------------------------------------------------------------------------------------------

    def _client(self, role: str) -> people.Client:
        assert self._session is not None
        person = next(person for person in self.scene.people if person.role == role)
        return people.Client(self._session, self.base_url, person)

    async def _people(self) -> None:
        assert self._session is not None
        bikes = [device_id for device_id, (kind, _) in self._fleet.items() if kind == "bike"]
        machines = [device_id for device_id, (kind, _) in self._fleet.items() if kind == "meal_machine"]
        async with asyncio.TaskGroup() as group:
            group.create_task(
                people.answer_calls(
                    self._client("crew"), self.scene.receiver_file, self._clock, new_rng(self._seed, "crew"),
                    CREW_REACTION_S, self.tally,
                )
            )  # fmt: skip
            printed = next(person for person in self.scene.people if person.role == "crew")
            for person in (printed, *self.scene.crew):
                group.create_task(
                    people.do_orders(
                        people.Client(self._session, self.base_url, person), self.scene.codes, self._clock,
                        new_rng(self._seed, f"orders:{person.login}"),
                        PRINTED_ORDER_REACTION_S if person is printed else ORDER_REACTION_S, self.tally,
                    )
                )  # fmt: skip
            for number, person in enumerate(self.scene.extras):
                client = people.Client(self._session, self.base_url, person)
                rng = new_rng(self._seed, person.login)
                if number % 2 and machines:
                    group.create_task(people.eat(client, self._clock, rng, MEAL_EVERY_S, self.tally))
                elif bikes:
                    group.create_task(people.ride(client, bikes, self._clock, rng, RIDE_EVERY_S, self.tally))

    async def _send_people_home(self) -> None:
        if self._playing is None:
            return
        self._playing.cancel()
        playing, self._playing = self._playing, None
        try:
            await playing
        except asyncio.CancelledError:
            return
        except BaseExceptionGroup as errors:
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise DemoError(f"people met an error: {first!r}") from errors

    # --- comparing ---------------------------------------------------------------------------------------------

    def _truth_lines(self) -> list[dict[str, Any]]:
        lines, _ = people.new_lines(self.scene.truth_file, 0)
        return lines

    async def compare(self) -> Result:
        """Let what is on its way arrive, then count. Raises DemoError if a part dies, or it takes too long."""
        counting = asyncio.ensure_future(self._compare())
        try:
            async with asyncio.timeout(COMPARE_S_MAX):
                while not counting.done():
                    self.watch()
                    await asyncio.wait({counting}, timeout=0.5)
            return counting.result()
        except TimeoutError:
            raise DemoError(f"comparing took more than {COMPARE_S_MAX:.0f} s:\n{self._cloud.last_words()}") from None
        finally:
            counting.cancel()

    async def _compare(self) -> Result:
        assert self._admin is not None
        played_s = time.monotonic() - self._playing_since_s
        # Looked at before the world stands still: devices that then say nothing any more would count as silent.
        fleet = await self._admin.call("GET", "/api/v1/fleet")
        online = sum(kind["online"] for kind in fleet["kinds"])
        await self._send_people_home()
        until_ms = self._clock.now_ms()
        if self._sim.pid:
            os.kill(self._sim.pid, signal.SIGUSR1)  # the world stands still; agents finish what they have
        stored, notices, caught_up = await self._settle(until_ms)
        figures = await asyncio.to_thread(
            counting.count,
            self.scene,
            self._truth_lines(),
            self.tally,
            stored=stored,
            notices=notices,
            until_ms=until_ms,
        )
        figures = {
            "devices_online": online,
            **figures,
            "telemetry_points": await self._points(),
            "restock_orders": await self._restock_orders(),
            "orders_done": self.tally.orders_done,
            "alarms_open": fleet["open"]["alarms"],
            "cloud_restarts": self._cloud.restarts,
            "first_telemetry_s": None if self._first_telemetry_s is None else round(self._first_telemetry_s, 2),
            "edge_pending": await self._pending_at_the_end(),
            "series_behind": not caught_up,
        }
        rooms = any(kind == counting.LOGGED_IN_FULL for kind, _ in self._fleet.values())
        presses_due = rooms and played_s * self._speed >= counting.PRESS_WITHIN_BUSINESS_S
        return Result(figures, verdict.complaints(figures, len(self._fleet), presses_due=presses_due))

    async def _settle(self, until_ms: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bool]:
        """Wait for events and pages, an edge with nothing pending (told after the world stood still), the series.

        The last value: whether the series has all that the edge had, at any moment since. The synthetic room never
        stands still, so a later look may find its latest readings under way.
        """
        caught_up = False
        fresh_from_s = time.time() + FRESH_AFTER_S
        deadline = time.monotonic() + SETTLE_S_MAX
        while True:
            stored = await self._events()
            notices, _ = people.new_lines(self.scene.receiver_file, 0)
            truths = verdict.truths_of(self._truth_lines(), until_ms)
            told = verdict.notified_presses(truths, notices)
            complete = not verdict.missing_events(truths, stored) and len(told) == len(truths.presses)
            fresh = self._statistics_file.exists() and self._statistics_file.stat().st_mtime > fresh_from_s
            finished = fresh and not sum(self._statistics()["pending"].values())
            caught_up = caught_up or (finished and holdings.series_caught_up(self.scene.state_file))
            if (complete and caught_up) or time.monotonic() > deadline:
                return stored, notices, caught_up
            await asyncio.sleep(0.5)

    async def _pending_at_the_end(self) -> int:
        """What the edge still keeps: a driver whose hardware stands still may report a timeout only now."""
        deadline = time.monotonic() + PENDING_S_MAX
        while True:
            pending: int = sum(self._statistics().get("pending", {}).values())
            if not pending or time.monotonic() > deadline:
                return pending
            await asyncio.sleep(0.5)

    async def _events(self) -> list[dict[str, Any]]:
        assert self._admin is not None
        text = await self._admin.text("/api/v1/events/export")
        return [json.loads(line) for line in text.splitlines()]

    async def _restock_orders(self) -> int:
        assert self._admin is not None
        return await people.count_orders(self._admin, "restock")

    async def _points(self) -> int:
        from cloud.adapters.series_sqlite import SqliteSeries

        store = SqliteSeries(self.scene.cloud_directory / "series.db")
        try:
            return sum([await store.count(kind) for kind in kinds()])
        finally:
            await store.close()
