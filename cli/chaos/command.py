"""The command: rounds until what was asked for is reached, totals that a resumed run goes on adding to."""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.output import FAILURE, INTERRUPTED, USAGE, JsonOption, fail, print_json, words

KILLS_PER_ROUND: Final = 60
SECONDS_PER_ROUND: Final = 300.0
DEFAULT_DEVICES: Final = ("nursing_room=56", "bike=4")
TOTALS_FILE: Final = "totals.json"
LATENCIES_KEPT_MAX: Final = 200_000


@dataclass(slots=True)
class Totals:
    """What all rounds so far showed; kept in a file between them."""

    seed: int
    rounds: int = 0
    kills: int = 0
    planned: int = 0
    """Kills of all rounds so far; one that never came to pass is a complaint, no reason for a further round."""
    telemetry_points: int = 0
    recovered_s_max: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    crash_points: dict[str, int] = field(default_factory=dict)
    killed: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    not_injected: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Totals":
        """From the file of an earlier run."""
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """In one step."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({name: getattr(self, name) for name in self.__slots__}))
        fresh.replace(path)

    def add(self, result: Any) -> None:
        """One more round."""
        self.rounds += 1
        self.kills += sum(result.deed.kills.values())
        self.telemetry_points += result.points
        self.recovered_s_max = max(self.recovered_s_max, result.recovered_s_max)
        self.latencies_ms = (self.latencies_ms + [round(one, 1) for one in result.latencies_ms])[-LATENCIES_KEPT_MAX:]
        for name, finding in result.findings.items():
            figures = finding.as_figures()
            so_far = self.classes.setdefault(name, {"happened": 0, "lost": 0, "doubled": 0})
            for key in ("happened", "lost", "doubled"):
                so_far[key] += figures[key]
            for key in ("lost_first", "doubled_first"):
                if key in figures:
                    so_far.setdefault(key, []).extend(f"round {result.seed}: {one}" for one in figures[key])
        for mine, found in (
            (self.crash_points, result.deed.hits), (self.killed, result.deed.kills), (self.faults, result.deed.spells),
        ):  # fmt: skip
            mine.update(Counter(mine) + found)
        self.not_injected.update(result.deed.not_injected)
        self.complaints += [f"round {result.seed}: {one}" for one in result.complaints]
        self.details = result.details

    def document(self) -> dict[str, Any]:
        """The figures of the run."""
        from cli.chaos.oracle import LATE_MS
        from cli.demo.verdict import percentiles
        from fleet.milestones import MILESTONES

        return {
            "seed": self.seed,
            "kills": self.kills,
            "presses": self.classes.get("presses", {}).get("happened", 0),
            "telemetry_points": self.telemetry_points,
            "lost": sum(one["lost"] for one in self.classes.values()),
            "doubled": sum(one["doubled"] for one in self.classes.values()),
            "press_to_notified_ms": percentiles(self.latencies_ms),
            "recovered_s_max": round(self.recovered_s_max, 1),
            "late": sum(one > LATE_MS for one in self.latencies_ms),
            "rounds": self.rounds,
            "killed": self.killed,
            "crash_points": {name: self.crash_points.get(name, 0) for name in MILESTONES},
            "faults": self.faults,
            "not_injected": self.not_injected,
            "classes": self.classes,
            "last_round": self.details,
            "complaints": self.complaints,
        }


def chaos(
    seed: Annotated[int, typer.Option(help="Same seed, same world, same faults in the same order.")] = 1,
    kills: Annotated[
        int | None, typer.Option(min=0, help="Kills in all, in rounds of at most 60; else the scenario's.")
    ] = None,
    for_: Annotated[
        str, typer.Option("--for", metavar="10m", help="At least so long (s, m, h), in further rounds if need be.")
    ] = "",
    device: Annotated[
        list[str] | None, typer.Option("--devices", help="KIND=NUMBER; repeatable. Readings of rooms are compared.")
    ] = None,
    faults: Annotated[
        str, typer.Option(help="Faults besides kills: names joined by commas, `all`, `none`; else the scenario's.")
    ] = "",
    scenario: Annotated[
        str, typer.Option(help="everything, calm, bad-link, broker-kill, broker-database or series.")
    ] = "everything",
    speed: Annotated[float, typer.Option(min=0.1, max=60, help="Business seconds per real second.")] = 5.0,
    presses_per_s: Annotated[float, typer.Option(min=0.0, help="Presses per real second in the whole fleet.")] = 4.0,
    postgresql: Annotated[
        bool, typer.Option("--postgresql", help="Roles in processes of their own on a PostgreSQL 15 of our own.")
    ] = False,
    influxdb: Annotated[
        bool, typer.Option("--influxdb", help="Series in an InfluxDB 1.x of our own, which fails too.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Keep totals and logs here, and go on adding to what is there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Torment the real processes and count what was lost or doubled.

    Kills agents, broker and cloud with SIGKILL at named points and at random moments, cuts and delays networks,
    damages messages, fills disks, sets clocks wrong; then compares what the devices did with what the database,
    the series and the receiver of the notifications hold. Exit code 1 if anything was lost or doubled, or a named
    point was never hit.

    Examples: [bold]fleet chaos --seed 7 --kills 34[/bold]   [bold]fleet chaos --kills 1000 --resume soak --json[/bold]
    """
    from cli.broker import BrokerError
    from cli.chaos import plan
    from cli.chaos.processes import ChaosError
    from cli.demo.command import parse_duration
    from cli.sim import parse_counts, refuse_unknown_kinds

    try:
        counts = parse_counts(device or DEFAULT_DEVICES)
        refuse_unknown_kinds(counts)
        seconds = parse_duration(for_)
        if scenario not in plan.SCENARIOS:
            raise ValueError(f"--scenario: unknown {scenario!r}; known: {', '.join(plan.SCENARIOS)}")
        names = fault_names(faults, plan.WEATHERS) if faults else plan.SCENARIOS[scenario].weathers
    except ValueError as error:
        raise fail(str(error), USAGE) from error
    place = resume or Path(tempfile.mkdtemp(prefix="fleet-chaos-"))
    place.mkdir(parents=True, exist_ok=True)
    wanted = plan.SCENARIOS[scenario].kills if kills is None else kills
    options = _Options(seed, wanted, seconds, counts, names, scenario, speed, presses_per_s, postgresql, influxdb)
    try:
        totals = asyncio.run(_run(options, place))
    except (BrokerError, ChaosError) as error:
        raise fail(f"{error}\nFiles: {place}\n{_repeat(options)}") from error
    except KeyboardInterrupt:
        words.print(f"interrupted; what was counted so far is in {place / TOTALS_FILE}")
        raise typer.Exit(INTERRUPTED) from None
    _end(totals, options, place, is_temporary=resume is None, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Options:
    seed: int
    kills: int
    seconds: float
    counts: dict[str, int]
    faults: tuple[str, ...]
    scenario: str
    speed: float
    presses_per_s: float
    postgresql: bool
    influxdb: bool


def fault_names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """`cut,delay`, `all` or `none` as names; raises ValueError."""
    if text in {"all", "none"}:
        return known if text == "all" else ()
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--faults: unknown {', '.join(unknown)}; known: all, none, {', '.join(known)}")
    return names


def _repeat(options: _Options) -> str:
    devices = " ".join(f"--devices {name}={count}" for name, count in options.counts.items())
    faults = ",".join(options.faults) or "none"
    return (
        f"Repeat with: fleet chaos --seed {options.seed} --kills {options.kills} {devices} --faults {faults}"
        f" --scenario {options.scenario} --speed {options.speed:g} --presses-per-s {options.presses_per_s:g}"
        f"{' --postgresql' if options.postgresql else ''}{' --influxdb' if options.influxdb else ''}"
    )


async def _run(options: _Options, place: Path) -> Totals:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from cli.chaos.postgresql import running_server
    from cli.chaos.round import Program, run_round
    from cli.chaos.scene import Setting

    totals_file = place / TOTALS_FILE
    totals = Totals.load(totals_file) if totals_file.exists() else Totals(options.seed)
    deadline_s = time.monotonic() + options.seconds
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} kills"),
        TimeElapsedColumn(), console=words, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("starting", total=options.kills, completed=totals.kills)
        while totals.planned < options.kills or time.monotonic() < deadline_s or totals.rounds == 0:
            seed = totals.seed + totals.rounds
            before = totals.kills
            show = partial(_show, bar, task, seed, before)
            setting = Setting(
                seed=seed, counts=options.counts, speed=options.speed,
                press_every_s=options.speed / options.presses_per_s if options.presses_per_s else 0.0,
                influxdb=options.influxdb,
            )  # fmt: skip
            program = Program(
                kills=min(KILLS_PER_ROUND, max(0, options.kills - totals.planned)), faults=options.faults,
                scenario=options.scenario, seconds_min=min(SECONDS_PER_ROUND, deadline_s - time.monotonic()),
            )  # fmt: skip
            directory = place / f"round-{seed}"
            shutil.rmtree(directory, ignore_errors=True)  # of a run that was interrupted in it
            with ExitStack() as stack:
                if options.postgresql:
                    url = await asyncio.to_thread(stack.enter_context, running_server(directory / "postgresql"))
                    setting = replace(setting, database_url=url)
                result = await run_round(setting, program, directory, on_progress=show)
            totals.planned += program.kills
            totals.add(result)
            totals.save(totals_file)
            if not result.complaints and not any(one.lost or one.doubled for one in result.findings.values()):
                shutil.rmtree(directory, ignore_errors=True)
    return totals


def _show(bar: Any, task: Any, seed: int, before: int, what: str, done: int) -> None:
    bar.update(task, description=f"round {seed}: {what}", completed=before + done)


def _end(totals: Totals, options: _Options, place: Path, *, is_temporary: bool, as_json: bool) -> None:
    from cli.chaos import plan

    document = totals.document()
    if as_json:
        print_json(document)
    else:
        _print_for_people(document)
    wrong = [
        f"{name}: {len(found.get(key, []))} named below" for name, found in totals.classes.items()
        for key in ("lost_first", "doubled_first") if found.get(key)
    ]  # fmt: skip
    for found in totals.classes.values():
        wrong += [*found.get("lost_first", ()), *found.get("doubled_first", ())]
    wrong += totals.complaints
    promised_ms = plan.SCENARIOS[options.scenario].p99_ms_max
    measured_ms = document["press_to_notified_ms"]["p99"]
    if promised_ms is not None and (measured_ms is None or measured_ms > promised_ms):
        wrong.append(f"press to notified: p99 is {measured_ms} ms, promised are {promised_ms:.0f} ms")
    for line in wrong:
        words.print(f"[red]not good:[/red] {line}")
    words.print(_repeat(options))
    if wrong or document["lost"] or document["doubled"]:
        words.print(f"Truth, logs and databases: {place}")
        raise typer.Exit(FAILURE)
    if is_temporary:
        shutil.rmtree(place, ignore_errors=True)


def _print_for_people(document: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for name, value in document.items():
        if name in {"last_round", "complaints"}:
            continue
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), f"[bold]{shown}[/bold]")
    words.print(table)
