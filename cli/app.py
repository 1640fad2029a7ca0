"""The command line as a tree of commands. Each command imports what it needs when it runs."""

from typing import Annotated

import typer

from cli import (
    alarms_commands,
    backup,
    bench,
    broker_commands,
    calls_commands,
    chaos,
    commands_commands,
    dashboards,
    demo,
    device_link_commands,
    devices_commands,
    docs_commands,
    doctor,
    edge_commands,
    export,
    influx,
    keys_commands,
    notifications_commands,
    orders_commands,
    people_commands,
    pki_commands,
    roster_commands,
    roster_crew_commands,
    scale,
    serve,
    sim,
    watchdog,
)
from cli.simulate.command import simulate
from cli.week.command import week

app = typer.Typer(
    name="fleet",
    help="Run a fleet of shared devices: bikes, meal machines, nursing rooms with emergency buttons.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(version("gaoxin-fleet"))
        except PackageNotFoundError:
            print("not installed, run from its folder")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
app.add_typer(edge_commands.app, name="edge")
app.command("sim")(sim.sim)
app.command("simulate")(simulate)
app.command("week")(week)
app.command("watchdog")(watchdog.watchdog)
app.command("chaos")(chaos.chaos)
app.command("doctor")(doctor.doctor)
app.command("quarantine")(devices_commands.quarantine)
app.command("receiver", hidden=True)(demo.receiver_command)
app.add_typer(devices_commands.app, name="devices")
devices_commands.app.command("link")(device_link_commands.link)
app.add_typer(calls_commands.app, name="calls")
app.add_typer(alarms_commands.app, name="alarms")
app.add_typer(commands_commands.app, name="commands")
app.add_typer(keys_commands.app, name="keys")
app.add_typer(orders_commands.app, name="orders")
app.add_typer(people_commands.app, name="people")
app.add_typer(notifications_commands.app, name="notifications")
app.add_typer(roster_commands.app, name="roster")
roster_commands.app.command("crews")(roster_crew_commands.list_crews)
roster_commands.app.command("crew")(roster_crew_commands.put_crew)
roster_commands.app.command("member")(roster_crew_commands.put_member)
app.add_typer(pki_commands.app, name="pki")
app.add_typer(broker_commands.app, name="broker")
app.add_typer(backup.app, name="backup")
app.add_typer(bench.app, name="bench")
app.add_typer(docs_commands.app, name="docs")
app.add_typer(dashboards.app, name="dashboards")
app.add_typer(influx.app, name="influx")
app.command("export")(export.export)
app.command("scale")(scale.scale)
