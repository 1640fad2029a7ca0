"""`fleet edge …`: the agent of one real device, and what its box needs. The plain start never comes here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import edge_enrol
from cli.output import FAILURE, OK, UNHEALTHY, USAGE, JsonOption, fail, print_json, words

if TYPE_CHECKING:
    from edge.settings import EdgeSettings

app = typer.Typer(help="The agent of one real device, and what its box needs.", invoke_without_command=True)

ConfigOption = Annotated[Path, typer.Option("--config", help="TOML file of this device; see docs/operations.md.")]
StartJsonOption = Annotated[
    bool, typer.Option("--json", help="At the start, what runs with which settings as one JSON document.")
]


app.command("enrol")(edge_enrol.enrol)


@app.callback()
def edge(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="Short for `fleet edge run --config FILE`.", show_default=False)
    ] = None,
    as_json: StartJsonOption = False,
) -> None:
    """The agent of one real device, and what its box needs.

    Example: [bold]fleet edge run --config /etc/fleet-edge/bike-001.toml[/bold]
    """
    if context.invoked_subcommand is not None:
        if config is not None:
            raise fail(
                f"give --config after the command: fleet edge {context.invoked_subcommand} --config {config}", USAGE
            )
        return
    if config is None:
        print(context.get_help())
        raise typer.Exit(OK)
    run(config, as_json=as_json)


@app.command()
def run(config: ConfigOption, as_json: StartJsonOption = False) -> None:
    """Run the agent until it is told to stop.

    Example: [bold]fleet edge run --config /etc/fleet-edge/bike-001.toml[/bold]
    """
    from cli.agent import run_agent

    raise typer.Exit(run_agent(config, as_json=as_json))


@app.command()
def status(config: ConfigOption, as_json: JsonOption = False) -> None:
    """How the agent on this box is, and the fix for each finding; exit code 3 if something needs mending.

    Example: [bold]sudo fleet edge status --config /etc/fleet-edge/bike-001.toml[/bold]
    """
    from cli.edge_status import look, print_status

    settings = _settings(config)
    found = look(settings)
    if as_json:
        print_json(found.document())
    else:
        print_status(found)
    if not found.healthy:
        words.print("Something needs mending; see the arrows.")
        raise typer.Exit(UNHEALTHY)


@app.command()
def check(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Look at the file, its keys, the line and the way to the broker before the agent is started.

    Example: [bold]sudo fleet edge check --config /etc/fleet-edge/bike-001.toml[/bold]
    """
    from cli.edge_check import check_all
    from cli.edge_status import print_findings

    settings = _settings(config)
    findings = check_all(settings)
    healthy = all(found.verdict != "problem" for found in findings)
    if as_json:
        print_json({"healthy": healthy, "findings": [found.document() for found in findings]})
    else:
        print_findings(findings)
    if not healthy:
        words.print("Something needs mending; see the arrows.")
        raise typer.Exit(UNHEALTHY)


@app.command()
def install(
    config: ConfigOption,
    user: Annotated[str, typer.Option(help="System user the agent runs as; made if it is missing.")] = "fleet-edge",
    root: Annotated[Path, typer.Option(help="Write below this folder instead of /, as for an image.")] = Path("/"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written; change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a hardened systemd service for this device and what it needs; several devices share one box.

    Example: [bold]sudo fleet edge install --config /etc/fleet-edge/bike-001.toml[/bold]
    """
    from cli.edge_install import InstallError, plan

    settings = _settings(config)
    try:
        planned = plan(settings, config, user=user, root=root)
        if not dry_run:
            planned.carry_out()
    except InstallError as error:
        raise fail(str(error), FAILURE) from error
    if as_json:
        print_json(planned.document(done=not dry_run))
        return
    for path, text in planned.files.items():
        words.print(f"{'would write' if dry_run else 'wrote'} {path}")
        if dry_run:
            print(text)
    for command in planned.commands:
        words.print(f"{'would run' if dry_run else 'ran'}: {' '.join(command)}")
    words.print(f"Next: [bold]{planned.next_command}[/bold]")


def _settings(config: Path) -> "EdgeSettings":
    from edge.settings import SettingsError, load_settings

    try:
        return load_settings(config)
    except SettingsError as error:
        raise fail(str(error), USAGE) from error
