"""`fleet docs`: documents made from the code."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Documents made from the code.", no_args_is_help=True)


@app.command()
def asyncapi(
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
) -> None:
    """The wire between devices and cloud as an AsyncAPI 3 document.

    Example: fleet docs asyncapi --out asyncapi.json
    """
    from cli.asyncapi import document

    text = json.dumps(document(), ensure_ascii=False, indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(str(out), err=True)


@app.command()
def pages(
    out: Annotated[Path | None, typer.Option(help="Folder instead of the repository's docs/.")] = None,
) -> None:
    """Write the pages about lifecycles and alarms that are made from the tables in the code.

    Example: fleet docs pages --out build/docs
    """
    from cli.lifecycle_docs import DOCS, write

    for path in write(out or DOCS):
        typer.echo(str(path), err=True)
