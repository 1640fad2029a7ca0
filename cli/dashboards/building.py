"""`fleet dashboards build`, and the boards for the other commands."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.kinds import KindFolderOption, add_kinds
from cli.output import JsonOption, fail, print_json, usage_errors, words
from cli.places import check_address, need_folder, writing_to

LanguageOption = Annotated[Literal["zh", "en"], typer.Option(help="Language of titles and descriptions.")]
ApplicationOption = Annotated[
    str, typer.Option(envvar="FLEET_PUBLIC_URL", help="Where the pages are that panels link to.")
]
BoardOption = Annotated[
    list[str] | None, typer.Option("--board", help="Only this board, by its uid; repeatable. Default: all.")
]


def boards_of(language: str, kind_folder: list[Path] | None, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Every board by its uid; what is not installed or not known ends the command with one line."""
    try:
        from dashboards.build import build_all
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("grafana_", "requests")):
            raise
        raise fail(
            "the builder of boards is not installed; run: make setup, or pip install 'gaoxin-fleet[dashboards]'"
        ) from error

    with usage_errors(ValueError):
        add_kinds(kind_folder)
        boards = build_all(language)
        if unknown := sorted(set(only or ()) - boards.keys()):
            raise ValueError(f"there is no board {', '.join(unknown)}; there are {', '.join(sorted(boards))}")
    return {uid: board for uid, board in boards.items() if not only or uid in only}


def check_application(url: str) -> None:
    """End the command where the boards' links would lead nowhere."""
    if url:
        with usage_errors(ValueError):
            check_address("--application-url", url, "https://fleet.example.org")


def _replace(path: Path, text: str) -> None:
    """All of it or nothing: Grafana reads the folder while we write."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_secret(path: Path, what: str) -> str:
    """A secret from a file; it never stands on a command line, where every user of the machine reads it."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{what}: {path} cannot be read ({error.strerror})") from error
    if not secret:
        raise ValueError(f"{what}: {path} is empty")
    return secret


def build(
    out: Annotated[Path, typer.Option(help="Folder for one JSON file per board.")] = Path("build/dashboards"),
    language: LanguageOption = "zh",
    application_url: ApplicationOption = "",
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every board as a file, ready for Grafana's file provisioning.

    Example: [bold]fleet dashboards build --out build/dashboards --language en[/bold]
    """
    check_application(application_url)
    boards = boards_of(language, kind_folder)
    from dashboards.publish import for_deployment

    need_folder("--out", out)
    written = []
    for stale in sorted(set(out.glob("fleet-*.json")) - {out / f"{name}.json" for name in boards}):
        stale.unlink()  # a board that is none any more
    if not application_url:
        words.print("no --application-url (FLEET_PUBLIC_URL): the boards' links into the application lead nowhere")
    for name, board in boards.items():
        path = out / f"{name}.json"
        made = for_deployment(board, application_url=application_url, source_uid="")
        with writing_to(f"--out {out}"):
            _replace(path, json.dumps(made, ensure_ascii=False, indent=2) + "\n")
        written.append({"board": name, "file": str(path), "panels": len(board.get("panels", ()))})
    if as_json:
        print_json(written)
    else:
        for item in written:
            words.print(f"{item['file']}: {item['panels']} panels")
