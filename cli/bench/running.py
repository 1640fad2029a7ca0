"""How benches run: a folder of their own, a sign of life, one JSON object or a small table."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from cli.output import data, fail, print_json, words

SIGN_S: Final = 10.0


@contextmanager
def sign_of_life(what: str, every_s: float = SIGN_S) -> Iterator[None]:
    """A spinner on a terminal; elsewhere (a log, a CI job) a line on stderr every so often."""
    if words.is_terminal:
        with words.status(f"{what} …"):
            yield
        return
    ended, began_s = threading.Event(), time.monotonic()

    def speak() -> None:
        while not ended.wait(every_s):
            words.print(f"{what} … {time.monotonic() - began_s:.0f} s", markup=False)

    speaker = threading.Thread(target=speak, name="sign of life", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()


def run(what: str, work: Callable[[Path], dict[str, Any]], *, as_json: bool) -> dict[str, Any]:
    """Say what `work` found; what it cannot do ends the command with one line and where its logs are."""
    from cli.bench.rig import BenchError
    from cli.broker import BrokerError

    directory = Path(tempfile.mkdtemp(prefix="fleet-bench-"))
    try:
        with sign_of_life(what):
            result = work(directory)
    except (BenchError, BrokerError) as error:
        raise fail(f"{error}\nLogs: {directory}") from error
    shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        print_json(result)
        return result
    table = Table(box=None, show_header=False)
    for name, value in _flat(result):
        table.add_row(name.replace("_", " "), f"[bold]{value}[/bold]")
    data.print(table)
    return result


def _flat(result: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """What stands in objects, under both names."""
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} · ")
        else:
            yield f"{above}{name}", value
