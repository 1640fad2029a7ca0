"""The commands; each prints one JSON object with `--json`, or a small table."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.bench.running import run
from cli.options import refuse_without_effect
from cli.output import UNHEALTHY, USAGE, JsonOption, data, fail, print_json, usage_errors, words
from cli.places import need_file, need_folder

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)


@app.command()
def ingest(
    messages: Annotated[int, typer.Option(min=1_000, help="Telemetry messages to measure.")] = 200_000,
    rate: Annotated[float | None, typer.Option(min=1, help="Messages per second; they come evenly.")] = None,
    saturate: Annotated[
        bool, typer.Option("--saturate", help="As fast as broker and ingester take them; so it is without --rate.")
    ] = False,
    qos: Annotated[int, typer.Option(min=0, max=1, help="Of the messages and of everybody's subscription.")] = 1,
    devices: Annotated[int, typer.Option(min=10, max=1_000_000, help="In whose names the messages come.")] = 400,
    vs: Annotated[
        str,
        typer.Option(
            help="Whom to measure beside it: naive (paho-mqtt and influxdb-client), none, or a command line that reads "
            "MQTT from {port} and writes a line per message to http://127.0.0.1:{sink_port}; {topic} and {messages} "
            "are filled in as well."
        ),
    ] = "naive",
    burst: Annotated[
        bool, typer.Option("--burst", help="100,000 messages at once: while the ingester is busy, and while it stands.")
    ] = False,
    presses: Annotated[
        int, typer.Option(min=0, max=100_000, help="Press so often while telemetry saturates: ms until notified.")
    ] = 0,
    tls: Annotated[bool, typer.Option("--tls", help="Mutual TLS towards the broker, for everybody.")] = False,
    flame: Annotated[
        Path | None, typer.Option(help="Write a flame graph (SVG) of the same load here, and say where the CPU goes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """CPU µs per telemetry message through the full durable path, as a ratio to mosquitto_sub and to the broker.

    Twins, spool and alarms are compared with what was sent; the figures come only if they agree. docs/performance.md.

    Example: [bold]fleet bench ingest --messages 1000000 --saturate --json[/bold]
    """
    from cli.bench.ingest import Plan, measure

    if saturate and rate is not None:
        raise fail("--rate and --saturate exclude each other: leave one out", USAGE)
    plan = Plan(
        messages=messages, rate=rate or 0.0, qos=qos, devices=devices, vs=vs, burst=burst, presses=presses, tls=tls,
        flame=flame,
    )  # fmt: skip
    with usage_errors(ValueError):
        plan.check()
    if flame is not None:
        need_file("--flame", flame)
    run("measuring ingest", lambda directory: measure(directory, plan), as_json=as_json)


@app.command()
def bounds(
    seconds: Annotated[float, typer.Option(min=0.05, max=60, help="How long each part is measured.")] = 2.0,
    messages: Annotated[int, typer.Option(min=1_000, help="Messages through the broker.")] = 200_000,
    folder: Annotated[
        Path | None, typer.Option(help="Folder on the disk to measure; without it the one for temporary files.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What this machine allows at best: the broker's CPU per message, memory, fsync, compression, a SQL commit.

    Example: [bold]fleet bench bounds --json[/bold]
    """
    from cli.bench.ingest_bounds import measure

    if folder is not None and not folder.is_dir():
        raise fail(f"--folder {folder}: there is no such folder", USAGE)
    if folder is not None:
        need_folder("--folder", folder)
    run("measuring bounds", lambda own: measure(own, folder or own, seconds, messages), as_json=as_json)


@app.command()
def ingesters(
    context: typer.Context,
    ingesters: Annotated[int, typer.Option(min=2, max=6, help="How many share the devices.")] = 2,
    messages: Annotated[
        int, typer.Option(min=4_000, max=180_000, help="Telemetry messages to measure; all wait in the broker at once.")
    ] = 160_000,
    cpu_share: Annotated[
        float, typer.Option(min=5, max=100, help="Percent of one CPU for each ingester; below what the broker uses.")
    ] = 10.0,
    kills: Annotated[
        int, typer.Option(min=0, max=1_000, help="Instead: so many kills and other faults while they work.")
    ] = 0,
    rate: Annotated[float, typer.Option(min=100, help="With --kills: messages per second.")] = 1_000.0,
    lease_s: Annotated[float, typer.Option(min=2, max=60, help="With --kills: how long leases last.")] = 3.0,
    seed: Annotated[int, typer.Option(help="With --kills: gives the same faults again.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """One ingester, then several, on PostgreSQL: throughput, what limits it, that nothing is lost or doubled.

    Exit 3 if several do less than nine tenths of what as many alone would.

    With --kills: ingesters are killed, frozen beyond their lease, added and removed while devices send; then every
    device's messages are compared with what was taken.

    Examples: [bold]fleet bench ingesters --cpu-share 10 --json[/bold]
    [bold]fleet bench ingesters --kills 100 --seed 1 --json[/bold]
    """
    if kills:
        without = {"messages": "--messages", "cpu_share": "--cpu-share"}
        refuse_without_effect(
            context, without, "without effect together with --kills; leave that out (--rate says how much is sent)"
        )
        from cli.bench.ingester_faults import measure as torment

        def under_faults(directory: Path) -> dict[str, Any]:
            return torment(directory, ingesters=ingesters, faults=kills, rate=rate, lease_s=lease_s, seed=seed)

        run("killing ingesters", under_faults, as_json=as_json)
        return
    only = {"rate": "--rate", "lease_s": "--lease-s", "seed": "--seed"}
    refuse_without_effect(context, only, "without effect unless --kills is given; add it, or leave that out")
    from cli.bench.ingesters import measure, too_short

    found = run(
        "measuring ingesters", lambda directory: measure(directory, ingesters, messages, cpu_share), as_json=as_json
    )
    if warning := too_short(found):
        words.print(f"warning: {warning}", markup=False)
    if not found["goal_held"]:
        words.print(f"goal missed: {found['ratio']} times one ingester, {found['goal']} was wanted", markup=False)
        raise typer.Exit(UNHEALTHY)


@app.command()
def outage(
    messages: Annotated[int, typer.Option(min=1_600, help="Telemetry messages of the simulated day.")] = 1_200_000,
    as_json: JsonOption = False,
) -> None:
    """A day of telemetry while a real InfluxDB is down or refuses; then everything must be there, once.

    Example: [bold]fleet bench outage --messages 1200000 --json[/bold]
    """
    from cli.bench.outage import measure

    run("a day without InfluxDB", lambda directory: measure(directory, messages), as_json=as_json)


@app.command()
def series(
    lines: Annotated[int, typer.Option(min=50_000, help="Readings of the simulated day.")] = 1_200_000,
    as_json: JsonOption = False,
) -> None:
    """CPU µs per line from the spool into a real InfluxDB, and how fast a day's backlog is caught up with.

    Example: [bold]fleet bench series --lines 1200000 --json[/bold]
    """
    from cli.bench.series import measure

    run("a day's backlog into InfluxDB", lambda directory: measure(directory, lines), as_json=as_json)


@app.command()
def press(
    seconds: Annotated[float, typer.Option(min=5, help="How long presses come.")] = 60.0,
    flood: Annotated[float, typer.Option(min=0, help="Telemetry messages per second beside them.")] = 5_000.0,
    as_json: JsonOption = False,
) -> None:
    """Press → notification accepted, at 390 devices and under a telemetry flood.

    Example: [bold]fleet bench press --seconds 120 --json[/bold]
    """
    from cli.bench.press import measure

    run("measuring press to notified", lambda directory: measure(directory, seconds, flood), as_json=as_json)


@app.command()
def storm(
    storms: Annotated[int, typer.Option(min=1, max=100, help="How often all buttons are pressed.")] = 6,
    within_s: Annotated[float, typer.Option(min=0.1, max=60, help="In which time all of them are pressed.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """All 190 emergency buttons within one second: press → notification accepted, p99.9 and the slowest.

    Goal: p99.9 within 2 s and none above 5 s (`goal_held`).

    Example: [bold]fleet bench storm --storms 6 --json[/bold]
    """
    from cli.bench.storm import measure

    run("pressing every button", lambda directory: measure(directory, storms, within_s), as_json=as_json)


@app.command("flood")
def flood_of_alarms(
    devices: Annotated[int, typer.Option(min=20, max=2_000, help="Devices that drop at once.")] = 390,
    presses: Annotated[int, typer.Option(min=5, max=200, help="Rooms in which somebody presses meanwhile.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """All devices drop at once: notifications per person and channel in ten minutes, and what a press waits.

    Example: [bold]fleet bench flood --json[/bold]
    """
    from cli.bench.flood import measure

    run("measuring a flood of alarms", lambda directory: measure(directory, devices, presses), as_json=as_json)


@app.command()
def start(
    runs: Annotated[int, typer.Option(min=1, max=50, help="Starts to measure of each kind.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Seconds from starting `fleet serve` to ready, and from there to a complete first page.

    Warm, with SQLite, once with an empty database and once with 390 devices; the slowest run counts.

    Example: [bold]fleet bench start --json[/bold]
    """
    from cli.bench.start import measure

    run("measuring the start", lambda directory: measure(directory, runs), as_json=as_json)


@app.command()
def edge(
    seconds: Annotated[float, typer.Option(min=20, help="How long each part is watched.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Memory, start and CPU of one agent with TLS; CPU of 390 agents with their simulators.

    Example: [bold]fleet bench edge --json[/bold]
    """
    from cli.bench.edge import measure

    run("measuring the edge", lambda directory: measure(directory, seconds), as_json=as_json)


@app.command()
def wire(
    repeats: Annotated[int, typer.Option(min=1, max=100, help="How often each part is measured.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Bytes on the wire of one bike's agent, with TLS and IP headers: per part, per day and per month.

    Example: [bold]fleet bench wire --json[/bold]
    """
    from cli.bench.wire import measure

    run("measuring the wire", lambda directory: measure(directory, repeats), as_json=as_json)


@app.command()
def reconnect(
    outage_s: Annotated[float, typer.Option(min=0, max=600, help="How long the broker stays away.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """The wave of 390 devices after a broker's kill -9: connects a second, time until all are back, an emergency.

    Example: [bold]fleet bench reconnect --outage-s 60 --json[/bold]
    """
    from cli.bench.reconnect import measure

    run("measuring the reconnect wave", lambda directory: measure(directory, outage_s), as_json=as_json)


@app.command()
def fuzz(
    messages: Annotated[int, typer.Option(min=100, help="Fuzzed messages to send.")] = 100_000,
    seed: Annotated[int, typer.Option(help="The same seed sends the same messages.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Nonsense through the broker into the ingest: no crash, no blocked lane, flat memory.

    Example: [bold]fleet bench fuzz --messages 100000 --seed 1 --json[/bold]
    """
    from cli.bench.fuzz import measure

    run("fuzzing", lambda directory: measure(directory, messages, seed), as_json=as_json)


@app.command()
def forge(
    codec: Annotated[int, typer.Option(min=100, help="Attempts at the edge's codec and checks.")] = 1_000_000,
    mqtt: Annotated[
        int, typer.Option(min=0, help="Attempts through a broker to an agent with a simulated lock.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Gives the same attempts again.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Forged, mutated, expired, replayed and misdirected commands: how many are accepted. Fails if any is.

    Example: [bold]fleet bench forge --codec 1000000 --mqtt 10000 --json[/bold]
    """
    from cli.bench.forge import measure

    run("forging commands", lambda directory: measure(directory, codec, mqtt, seed), as_json=as_json)


@app.command()
def revoke(
    devices: Annotated[int, typer.Option(min=2, max=2000, help="Devices connected at the same time.")] = 390,
    revoked: Annotated[
        int, typer.Option(min=1, max=1000, help="How many of them are revoked, one after another.")
    ] = 50,
    as_json: JsonOption = False,
) -> None:
    """Revoke → disconnected, and that nobody comes back and nobody else is disconnected.

    Example: [bold]fleet bench revoke --devices 390 --revoked 100 --json[/bold]
    """
    from cli.bench.revoke import measure

    run("measuring revocation", lambda directory: measure(directory, devices, revoked), as_json=as_json)


@app.command()
def plan(
    jobs: Annotated[int, typer.Option(min=1, max=2000, help="Open jobs of all kinds.")] = 60,
    crews: Annotated[int, typer.Option(min=1, max=100, help="People with a van.")] = 4,
    runs: Annotated[int, typer.Option(min=1, max=200, help="Days to plan.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Seconds to plan a day's rounds in the solver's process, kilometres, what no round takes, broken rules.

    Example: [bold]fleet bench plan --jobs 390 --crews 12 --runs 5 --json[/bold]
    """
    from cli.bench.plan import measure

    run("planning", lambda _: measure(jobs, crews, runs), as_json=as_json)


@app.command()
def boards(
    days: Annotated[float, typer.Option(min=0.05, max=60, help="Days of readings, steps and samples.")] = 30,
    devices: Annotated[int, typer.Option(min=3, help="In the proportions of the real fleet.")] = 390,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the InfluxDB here, and go on with one that is here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """How long every query of every board takes on a real InfluxDB with weeks of the whole fleet. Exit 3 above 200 ms.

    Example: [bold]fleet bench boards --days 30 --folder build/boards-30d --json[/bold]
    """
    import contextlib

    from cli.bench.boards import measure
    from cli.bench.rig import BenchError

    if folder is not None:
        need_folder("--folder", folder)
    with contextlib.ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-bench-")))
        try:
            result = measure(where, days, devices)
        except BenchError as error:
            raise fail(str(error)) from error
    if as_json:
        print_json(result)
    else:
        table = Table(box=None, show_header=False)
        for name, value in result.items():
            if name not in {"slowest", "without_rows"}:
                table.add_row(name.replace("_", " "), f"[bold]{value}[/bold]")
        data.print(table)
        for row in result["slowest"]:
            data.print(
                f"{row['ms']:8.1f} ms  {row['rows']:6d} rows  {row['board']} {row['panel']} ({row['shown']})",
                markup=False,
            )
    if result["above_ms_max"]:
        raise typer.Exit(UNHEALTHY)
