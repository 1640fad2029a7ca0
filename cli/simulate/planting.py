"""How a bug is planted: patches that live for one run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from cli.simulate.taps import replaced

Bug = Callable[[], AbstractContextManager[None]]


def planted(plant: Callable[[], Iterator[Any]]) -> Bug:
    """`plant` yields (owner, name, value) once per patch; the result plants them for the length of a block."""

    @contextmanager
    def bug() -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, value in plant():
                stack.enter_context(replaced(owner, name, value))
            yield

    bug.__name__ = plant.__name__
    return bug
