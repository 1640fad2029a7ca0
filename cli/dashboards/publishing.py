"""`fleet dashboards diff` and `fleet dashboards publish`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.dashboards.building import ApplicationOption, BoardOption, LanguageOption, boards_of, check_application
from cli.dashboards.checking import token_of
from cli.kinds import KindFolderOption
from cli.output import FAILURE, UNHEALTHY, JsonOption, data, fail, print_json, usage_errors, words
from cli.places import check_address

if TYPE_CHECKING:
    from dashboards.grafana_server import GrafanaServer
    from dashboards.publish import Step, Wanted

UrlOption = Annotated[
    str, typer.Option(envvar="FLEET_GRAFANA_URL", help="Grafana's address, with its path behind a proxy if it has one.")
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with a service account's token. Default: variable FLEET_GRAFANA_TOKEN."),
]
FolderOption = Annotated[str, typer.Option(help="Title of the folder that the boards are in.")]
FolderUidOption = Annotated[str, typer.Option(help="Its fixed uid.")]
SourceUrlOption = Annotated[
    str, typer.Option(help="The InfluxDB as Grafana reaches it; makes the data source. Without it none is touched.")
]
SourceTokenOption = Annotated[
    Path | None, typer.Option("--source-token-file", help="File with the reader's token for the data source.")
]
SourceUidOption = Annotated[str, typer.Option(help="Uid of the data source that the boards open with.")]
SourceDatabaseOption = Annotated[str, typer.Option(help="Database of the data source.")]
PermissionsOption = Annotated[
    bool,
    typer.Option(
        "--permissions/--no-permissions", help="Viewers and editors may look at the folder, admins change it."
    ),
]
VERB_WORDS = {
    "create": "[green]+[/green]", "update": "[yellow]~[/yellow]", "remove": "[red]-[/red]", "unchanged": "=",
    "leave": "·", "refuse": "[red]![/red]",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What both commands are given."""

    url: str
    token_file: Path | None
    folder: str
    folder_uid: str
    source_url: str
    source_token_file: Path | None
    source_uid: str
    source_database: str
    permissions: bool
    application_url: str


def diff(
    url: UrlOption = "",
    token_file: TokenOption = None,
    folder: FolderOption = "Fleet",
    folder_uid: FolderUidOption = "fleet",
    source_url: SourceUrlOption = "",
    source_token_file: SourceTokenOption = None,
    source_uid: SourceUidOption = "fleet",
    source_database: SourceDatabaseOption = "fleet",
    permissions: PermissionsOption = True,
    application_url: ApplicationOption = "",
    board: BoardOption = None,
    language: LanguageOption = "zh",
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what Grafana holds otherwise than the code says, per panel. Exit code 3 if anything differs.

    Example: [bold]fleet dashboards diff --url http://127.0.0.1:3000 --token-file grafana-token[/bold]
    """
    target = Target(
        url, token_file, folder, folder_uid, source_url, source_token_file, source_uid, source_database, permissions,
        application_url,
    )  # fmt: skip
    server, wanted = _prepare(target, boards_of(language, kind_folder, board), is_part=bool(board))
    steps = _plan(server, wanted)
    if as_json:
        print_json([_line(step) for step in steps])
    else:
        _show(steps)
    if any(step.differs for step in steps):
        raise typer.Exit(UNHEALTHY)


def publish(
    url: UrlOption = "",
    token_file: TokenOption = None,
    folder: FolderOption = "Fleet",
    folder_uid: FolderUidOption = "fleet",
    source_url: SourceUrlOption = "",
    source_token_file: SourceTokenOption = None,
    source_uid: SourceUidOption = "fleet",
    source_database: SourceDatabaseOption = "fleet",
    renew_token: Annotated[
        bool,
        typer.Option("--renew-token", help="Write the data source's token again; Grafana cannot show the old one."),
    ] = False,
    permissions: PermissionsOption = True,
    application_url: ApplicationOption = "",
    overwrite_edits: Annotated[
        bool, typer.Option("--overwrite-edits", help="Also boards that somebody changed by hand in Grafana.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete our boards in the folder that are none any more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    board: BoardOption = None,
    language: LanguageOption = "zh",
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring folder, permissions, data source and boards of a Grafana to what the code says; shows the difference first.

    Writes nothing if anything is refused. Running it again changes nothing.

    Example: [bold]fleet dashboards publish --url http://127.0.0.1:3000 --token-file grafana-token --dry-run[/bold]
    """
    target = Target(
        url, token_file, folder, folder_uid, source_url, source_token_file, source_uid, source_database, permissions,
        application_url,
    )  # fmt: skip
    server, wanted = _prepare(
        target, boards_of(language, kind_folder, board), is_part=bool(board), renew_token=renew_token,
        overwrite_edits=overwrite_edits, prune=prune,
    )  # fmt: skip
    steps = _plan(server, wanted)
    if not as_json:
        _show(steps)
    refused = [step for step in steps if step.verb == "refuse"]
    done = 0
    problem = f"{len(refused)} refused; nothing was written" if refused else ""
    if not refused and not dry_run:
        from dashboards.grafana_server import GrafanaError
        from dashboards.publish import apply

        try:
            for _ in apply(server, wanted, steps):
                done += 1
        except GrafanaError as error:
            problem = str(error)
    waiting = sum(step.differs for step in steps)
    if as_json:
        print_json({
            "dry_run": dry_run, "steps": [_line(step) for step in steps], "to_do": waiting, "done": done,
            "problem": problem or None,
        })  # fmt: skip
    if problem:
        raise fail(problem + (f" ({done} of {waiting} done)" if done else ""), FAILURE)
    words.print(
        f"{waiting} to do, nothing written (--dry-run)" if dry_run else f"{done} done, {len(steps) - done} as they were"
    )


def _prepare(
    target: Target, boards: dict[str, Any], *, is_part: bool, renew_token: bool = False, overwrite_edits: bool = False,
    prune: bool = False,
) -> "tuple[GrafanaServer, Wanted]":  # fmt: skip
    """The server and what it is to hold; wrong options end the command."""
    from dashboards.grafana_server import GrafanaError, GrafanaServer
    from dashboards.publish import Source, Wanted, for_deployment

    check_application(target.application_url)
    with usage_errors(ValueError, GrafanaError):
        if target.source_url:
            check_address("--source-url", target.source_url)
        if not target.url:
            raise ValueError("which Grafana? Name it with --url or FLEET_GRAFANA_URL")
        check_address("--url", target.url)
        token = token_of(target.token_file, "FLEET_GRAFANA_TOKEN")
        if not token:
            raise ValueError("no token: put a service account's token into a file and name it with --token-file")
        if prune and is_part:
            raise ValueError("--prune deletes every other board of ours; it does not go with --board")
        source = None
        if target.source_url:
            if target.source_token_file is None:
                raise ValueError("--source-url needs --source-token-file with the reader's token")
            secret = token_of(target.source_token_file, "")
            source = Source(target.source_url, secret, target.source_database, target.source_uid)
        server = GrafanaServer(target.url, token)
    ready = {
        uid: for_deployment(board, application_url=target.application_url, source_uid=target.source_uid)
        for uid, board in boards.items()
    }
    levels = {"Viewer": "view", "Editor": "view"} if target.permissions else {}
    return server, Wanted(
        ready, target.folder_uid, target.folder, levels, source, renew_token=renew_token,
        overwrite_edits=overwrite_edits, prune=prune, is_whole=not is_part,
    )  # fmt: skip


def _plan(server: "GrafanaServer", wanted: "Wanted") -> "list[Step]":
    from dashboards.grafana_server import GrafanaError
    from dashboards.publish import plan

    try:
        return plan(server, wanted)
    except GrafanaError as error:
        raise fail(str(error)) from error


def _line(step: "Step") -> dict[str, Any]:
    changes = [
        {"sign": one.sign, "where": one.where, "path": one.path, "before": one.before, "after": one.after}
        for one in step.changes
    ]
    return {"what": step.what, "name": step.name, "verb": step.verb, "words": step.words, "changes": changes}


def _show(steps: "list[Step]") -> None:
    for step in steps:
        line = f"{VERB_WORDS[step.verb]} {escape(f'{step.what} {step.name}')}: {step.verb}"
        data.print(line + (f" ({escape(step.words)})" if step.words else ""))
        for change in step.changes:
            for text in change.lines():
                data.print(f"    {text}", markup=False)
