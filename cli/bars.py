"""A progress bar on stderr; nothing where stderr is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.output import words


@contextmanager
def bar(what: str, steps: int) -> Iterator[Callable[[int], None]]:
    """Call what is yielded with the number of steps that are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=words, transient=True, disable=not words.is_terminal) as progress:
        task = progress.add_task(what, total=steps)
        yield lambda done: progress.advance(task, done)
