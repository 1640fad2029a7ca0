"""How every command speaks: data on stdout, words on stderr, exit codes that scripts can rely on."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
UNHEALTHY: Final = 3
INTERRUPTED: Final = 130
_COLUMNS_MAX: Final = 1000

words = Console(stderr=True, highlight=False, soft_wrap=True)
data = Console(highlight=False, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; words stay on stderr.")]


def print_json(document: Any) -> None:
    """The one document of a command on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """A list: JSON array, or a table for people; `empty` says what to do when there is nothing."""
    if as_json:
        print_json([dict(row) for row in rows])
        return
    if not rows:
        words.print(empty)
        return
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    # As wide as it is: what is cut off (an id, a date) would be gone for whoever copies or pipes it.
    wide = Console(highlight=False, soft_wrap=True, width=_COLUMNS_MAX)
    wide.width = Measurement.get(wide, wide.options, table).maximum
    wide.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else escape(str(value))


def fail(message: str, code: int = FAILURE) -> typer.Exit:
    """Say what is wrong and how to mend it, in one line; raise the result."""
    words.print(f"[red]error:[/red] {escape(message)}")
    return typer.Exit(code)


@contextmanager
def usage_errors(*errors: type[Exception]) -> Iterator[None]:
    """Wrong settings end with one line and exit code 2."""
    try:
        yield
    except errors as error:
        raise fail(str(error), USAGE) from error
