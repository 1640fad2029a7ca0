"""The command itself: sets the stage, starts the processes, plays, compares, and says what it found."""

import asyncio
import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer

from cli.kinds import KindFolderOption, add_kinds
from cli.output import FAILURE, INTERRUPTED, USAGE, JsonOption, fail, print_json, words
from cli.processes import process_started_s

DEFAULT_SPEED: Final = 10.0


def receiver_command(port: int, log_file: Path) -> None:
    """Stand for the crew's phones: accept notifications on loopback and write them down."""
    from cli.demo.receiver import serve_receiver

    serve_receiver(port, log_file)


def demo(
    for_: Annotated[
        str, typer.Option("--for", metavar="60s", help="Stop after this real time (s, m, h); without it, at Ctrl-C.")
    ] = "",
    speed: Annotated[float, typer.Option(min=0.1, max=60, help="Business seconds per real second.")] = DEFAULT_SPEED,
    seed: Annotated[int, typer.Option(help="Same seed, same world.")] = 1,
    port: Annotated[int, typer.Option(help="Port of the pages; 0 takes a free one.")] = 8000,
    count: Annotated[list[str] | None, typer.Option(help="KIND=NUMBER, for a smaller fleet; repeatable.")] = None,
    kind_folder: KindFolderOption = None,
    kill_cloud: Annotated[bool, typer.Option(help="kill -9 the cloud half-way; it is started again.")] = False,
    directory: Annotated[Path | None, typer.Option(help="Keep everything here instead of a temporary folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole system here with simulated hardware: 180 bikes, 20 meal machines, 190 nursing rooms.

    Starts a Mosquitto of its own (installs it where it is missing), the cloud, the agents with their
    simulated hardware, and people who ride, eat, press and answer. It is a busy noon, ten times as fast as
    real time. At the end it compares what the simulators did with what the cloud holds; exit code 1 if a
    press was not notified, or an event, a reading, a sale or an unlock is not what the cloud says.

    Examples: [bold]fleet demo[/bold]   [bold]fleet demo --for 60s --json[/bold]   [bold]fleet demo --kill-cloud[/bold]
    """
    from cli.broker import BrokerError, port_taken
    from cli.sim import parse_counts, refuse_unknown_kinds

    try:
        kind_folders = add_kinds(kind_folder)
        options = Options(
            seconds=parse_duration(for_), speed=speed, seed=seed, port=port, counts=parse_counts(count or ()),
            kind_folders=kind_folders, kill_cloud=kill_cloud, as_json=as_json,
        )  # fmt: skip
        refuse_unknown_kinds(options.counts)
    except ValueError as error:
        raise fail(str(error), USAGE) from error
    if port and port_taken(port):
        raise fail(f"--port {port} is taken by another program; choose another, or 0 for a free one", USAGE)
    place = directory or Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    try:
        result = asyncio.run(_Demo(options, place).run())
    except BrokerError as error:
        raise fail(str(error)) from error
    except DemoError as error:
        raise fail(f"{error}\nLogs: {place}") from error
    except KeyboardInterrupt:
        result = None
    _end(result, place, is_temporary=directory is None, as_json=as_json)


def _end(result: "Result | None", place: Path, *, is_temporary: bool, as_json: bool) -> None:
    """Say what was found, tidy up, and leave with the exit code that it deserves."""
    if result is not None:
        if as_json:
            print_json(result.figures)
        else:
            _print_for_people(result.figures)
        for complaint in result.complaints:
            words.print(f"[red]not good:[/red] {complaint}")
    if is_temporary and not (result and result.complaints):
        shutil.rmtree(place, ignore_errors=True)
    else:
        words.print(f"Logs and data: {place}")
    if result is None:  # ended before there was anything to compare
        raise typer.Exit(INTERRUPTED)
    if result.complaints:
        raise typer.Exit(FAILURE)


class DemoError(RuntimeError):
    """A part did not start or did not hold; the text says which."""


class Stopped(Exception):  # noqa: N818  # no error: somebody pressed Ctrl-C while it started
    """Ctrl-C before everything was up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for; `seconds` 0 = until Ctrl-C."""

    seconds: float
    speed: float
    seed: int
    port: int
    counts: Mapping[str, int]
    kind_folders: tuple[Path, ...]
    kill_cloud: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class Result:
    """The figures, and in words what is wrong with them."""

    figures: dict[str, Any]
    complaints: list[str]


def parse_duration(text: str) -> float:
    """`90`, `60s`, `5m` or `1h` in seconds; 0.0 for an empty text. Raises ValueError."""
    if not text:
        return 0.0
    number, unit = (text[:-1], text[-1]) if text[-1] in "smh" else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--for {text!r}: write a time such as 60s, 5m or 1h")
    return seconds


class _Demo:
    def __init__(self, options: Options, place: Path) -> None:
        self._options = options
        self._place = place
        self._stopped = asyncio.Event()

    async def run(self) -> Result | None:
        from cli.broker import Broker, find_or_install_mosquitto, free_port
        from cli.clock import SystemClock, real_now_ms
        from cli.demo import stage
        from cli.demo.company import Company
        from firmware_sim.scenario import scenario_named

        options = self._options
        started_s = process_started_s()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopped.set)
        find_or_install_mosquitto()
        origin_ms = real_now_ms()
        shift_ms = scenario_named("demo").started_ms(origin_ms) - origin_ms
        clock = SystemClock(speed=options.speed, origin_ms=origin_ms, shift_ms=shift_ms)
        fleet = stage.fleet_of(options.counts, options.seed)
        words.print(f"Preparing {len(fleet)} devices: certificates, database, people …")
        scene = await asyncio.to_thread(stage.set_up, self._place, fleet, options.seed, clock.now_ms())
        broker = Broker(self._place / "broker", tls=scene.broker_tls)
        await asyncio.to_thread(broker.start)
        company = Company(
            scene=scene, fleet=fleet, clock=clock, origin_ms=origin_ms, shift_ms=shift_ms, speed=options.speed,
            seed=options.seed, broker=broker, http_port=options.port or free_port(),
            receiver_port=free_port(), counts=options.counts, kind_folders=options.kind_folders,
            stopped=self._stopped, started_s=started_s,
        )  # fmt: skip
        try:
            async with company:
                self._welcome(company, time.monotonic() - started_s)
                await self._play(company)
                if not options.seconds and not company.presses_so_far():
                    return None
                words.print("Comparing what the simulators did with what the cloud holds …")
                return await company.compare()
        except Stopped:
            return None
        finally:
            await asyncio.to_thread(broker.stop)

    def _welcome(self, company: Any, took_s: float) -> None:
        words.print(f"\n[bold green]Running[/bold green] after {took_s:.1f} s: [bold]{company.base_url}[/bold]")
        for person in company.scene.people:
            words.print(f"  sign in as [bold]{person.login}[/bold] / {person.password}   ({person.role})")
        others = ", ".join(person.login for person in company.scene.crew)
        words.print(f"  {others} have the password of crew; they work their orders by themselves")
        words.print("  Ctrl-C ends it and compares.\n" if not self._options.seconds else "")

    async def _play(self, company: Any) -> None:
        options = self._options
        deadline = time.monotonic() + options.seconds if options.seconds else None
        kill_at = time.monotonic() + options.seconds / 2 if options.kill_cloud and options.seconds else None
        with _Status(enabled=sys.stderr.isatty()) as status:
            while not self._stopped.is_set() and (deadline is None or time.monotonic() < deadline):
                if kill_at is not None and time.monotonic() >= kill_at:
                    kill_at = None
                    words.print("kill -9 of the cloud …")
                    company.kill_cloud()
                company.watch()
                status.show(company.progress(deadline))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), 0.5)


class _Status:
    """One live line for people; nothing where nobody looks."""

    def __init__(self, *, enabled: bool) -> None:
        self._status = words.status("starting …") if enabled else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._status is not None:
            self._status.update(text)


def _print_for_people(figures: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for name, value in figures.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), f"[bold]{shown}[/bold]")
    words.print(table)


def new_rng(seed: int, name: str) -> random.Random:
    """Seeded, one stream per purpose."""
    return random.Random(f"{seed}:{name}")
