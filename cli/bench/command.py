"""The commands; each prints one JSON object with `--json`, or a small table."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.output import JsonOption, data, fail, print_json, words

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)


def _run(what: str, work: Callable[[Path], dict[str, Any]], *, as_json: bool) -> None:
    from cli.bench.rig import BenchError
    from cli.broker import BrokerError

    directory = Path(tempfile.mkdtemp(prefix="fleet-bench-"))
    try:
        with words.status(f"{what} …"):
            result = work(directory)
    except (BenchError, BrokerError) as error:
        raise fail(f"{error}\nLogs: {directory}") from error
    shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        print_json(result)
        return
    table = Table(box=None, show_header=False)
    for name, value in result.items():
        table.add_row(name.replace("_", " "), f"[bold]{value}[/bold]")
    data.print(table)


@app.command()
def ingest(
    messages: Annotated[int, typer.Option(min=1_000, help="Telemetry messages to measure.")] = 200_000,
    rate: Annotated[float, typer.Option(min=0, help="Messages per second; 0 = as fast as the broker goes.")] = 0.0,
    naive: Annotated[bool, typer.Option(help="Measure the naive way beside it (plain listener only).")] = True,
    tls: Annotated[bool, typer.Option("--tls", help="Mutual TLS towards the broker.")] = False,
    as_json: JsonOption = False,
) -> None:
    """CPU µs per telemetry message through the full durable path, beside the naive way on the same broker.

    Example: [bold]fleet bench ingest --messages 400000 --json[/bold]
    """
    from cli.bench.ingest import measure

    _run(
        "measuring ingest", lambda directory: measure(directory, messages, rate, naive=naive, tls=tls), as_json=as_json
    )


@app.command()
def outage(
    messages: Annotated[int, typer.Option(min=1_600, help="Telemetry messages of the simulated day.")] = 1_200_000,
    as_json: JsonOption = False,
) -> None:
    """A day of telemetry while a real InfluxDB is down or refuses; then everything must be there, once.

    Example: [bold]fleet bench outage --messages 1200000 --json[/bold]
    """
    from cli.bench.outage import measure

    _run("a day without InfluxDB", lambda directory: measure(directory, messages), as_json=as_json)


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

    _run("measuring press to notified", lambda directory: measure(directory, seconds, flood), as_json=as_json)


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

    _run("pressing every button", lambda directory: measure(directory, storms, within_s), as_json=as_json)


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

    _run("measuring a flood of alarms", lambda directory: measure(directory, devices, presses), as_json=as_json)


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

    _run("measuring the start", lambda directory: measure(directory, runs), as_json=as_json)


@app.command()
def edge(
    seconds: Annotated[float, typer.Option(min=20, help="How long each part is watched.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Memory, start and CPU of one agent with TLS; CPU of 390 agents with their simulators.

    Example: [bold]fleet bench edge --json[/bold]
    """
    from cli.bench.edge import measure

    _run("measuring the edge", lambda directory: measure(directory, seconds), as_json=as_json)


@app.command()
def wire(
    repeats: Annotated[int, typer.Option(min=1, max=100, help="How often each part is measured.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Bytes on the wire of one bike's agent, with TLS and IP headers: per part, per day and per month.

    Example: [bold]fleet bench wire --json[/bold]
    """
    from cli.bench.wire import measure

    _run("measuring the wire", lambda directory: measure(directory, repeats), as_json=as_json)


@app.command()
def reconnect(
    outage_s: Annotated[float, typer.Option(min=0, max=600, help="How long the broker stays away.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """The wave of 390 devices after a broker's kill -9: connects a second, time until all are back, an emergency.

    Example: [bold]fleet bench reconnect --outage-s 60 --json[/bold]
    """
    from cli.bench.reconnect import measure

    _run("measuring the reconnect wave", lambda directory: measure(directory, outage_s), as_json=as_json)


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

    _run("fuzzing", lambda directory: measure(directory, messages, seed), as_json=as_json)


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

    _run("forging commands", lambda directory: measure(directory, codec, mqtt, seed), as_json=as_json)


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

    _run("measuring revocation", lambda directory: measure(directory, devices, revoked), as_json=as_json)


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

    _run("planning", lambda _: measure(jobs, crews, runs), as_json=as_json)
