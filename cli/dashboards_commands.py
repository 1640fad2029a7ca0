"""`fleet dashboards`: Grafana boards made from the kinds' panels."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.kinds import KindFolderOption, add_kinds
from cli.output import JsonOption, fail, print_json, usage_errors, words

app = typer.Typer(help="Grafana boards made from the kinds' panels.", no_args_is_help=True)


@app.callback()
def _boards() -> None:
    """Grafana boards made from the kinds' panels."""


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder for one JSON file per board.")] = Path("build/dashboards"),
    language: Annotated[Literal["zh", "en"], typer.Option(help="Language of titles and descriptions.")] = "zh",
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one board per kind and the overview, ready for Grafana's file provisioning.

    Example: [bold]fleet dashboards build --out build/dashboards --language en[/bold]
    """
    try:
        from dashboards.build import build_all
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("grafana_foundation_sdk"):
            raise
        raise fail(
            "the builder of boards is not installed; run: make setup, or pip install 'gaoxin-fleet[dashboards]'"
        ) from error

    with usage_errors(ValueError):
        add_kinds(kind_folder)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, board in build_all(language).items():
        path = out / f"{name}.json"
        path.write_text(json.dumps(board, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        written.append({"board": name, "file": str(path), "panels": len(board.get("panels", ()))})
    if as_json:
        print_json(written)
    else:
        for item in written:
            words.print(f"{item['file']}: {item['panels']} panels")
