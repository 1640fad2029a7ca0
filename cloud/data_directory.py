"""What belongs to one data directory: who uses it, and the name of its spool's owner."""

import fcntl
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


class InUseError(Exception):
    """Another process does the same work in this directory."""


@contextmanager
def sole_owner(directory: Path, roles: Iterable[str]) -> Iterator[None]:
    """One process per directory and role: its spool and its leases are then its own, also after a crash.

    Raises:
        InUseError: somebody else has one of the roles here.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for role in roles:
            file = stack.enter_context((directory / f"{role}.lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InUseError(f"another fleet process with the role {role} uses {directory}") from None
        yield


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """For what the first of several processes makes and the others find; blocks until it is our turn."""
    with (directory / "making.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stable_name(path: Path, new_id: Callable[[], str]) -> str:
    """The name in this file, made at the first call: it lives as long as the directory."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_text(f"ingester-{new_id()[:12]}\n")
        fresh.replace(path)  # a name is there as a whole or not at all
    return path.read_text().strip()
