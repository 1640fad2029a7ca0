"""`fleet docs`: documents made from the code."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.kinds import KindFolderOption, add_kinds
from cli.output import usage_errors, words

app = typer.Typer(help="Documents made from the code.", no_args_is_help=True)


@app.command()
def asyncapi(
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
    kind_folder: KindFolderOption = None,
) -> None:
    """The wire between devices and cloud as an AsyncAPI 3 document.

    Example: [bold]fleet docs asyncapi --out asyncapi.json[/bold]
    """
    from cli.asyncapi import document

    with usage_errors(ValueError):
        add_kinds(kind_folder)
    text = json.dumps(document(), ensure_ascii=False, indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    with usage_errors(OSError):
        out.write_text(text, encoding="utf-8")
    words.print(str(out))


@app.command()
def pages(
    out: Annotated[Path | None, typer.Option(help="Folder instead of the repository's docs/.")] = None,
    kind_folder: KindFolderOption = None,
) -> None:
    """Write the pages about lifecycles and alarms that are made from the tables in the code.

    Example: [bold]fleet docs pages --out build/docs[/bold]
    """
    from cli.lifecycle_docs import DOCS, write

    with usage_errors(ValueError):
        add_kinds(kind_folder)
    for path in write(out or DOCS):
        words.print(str(path))
