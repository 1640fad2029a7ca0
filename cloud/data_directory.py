"""What belongs to one data directory: who uses it, and the name of its spool's owner."""

import fcntl
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

UNFINISHED_RESTORE: Final = "restore.unfinished"
"""Lies in the data directory while a backup is put back into it; names the archive."""


class PlaceError(Exception):
    """A folder or port of the settings can't be used; the text names the setting and the fix."""


def refuse_unusable(directory: Path, host: str, port: int) -> None:
    """Try the folder and the HTTP port before anything starts. Raises PlaceError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "writable").touch()
        (directory / "writable").unlink()
    except OSError as error:
        raise PlaceError(
            f"data_directory: {directory} can't be written ({error.strerror}); "
            "name a writable folder in FLEET_DATA_DIRECTORY"
        ) from None
    unfinished = directory / UNFINISHED_RESTORE
    if unfinished.exists():
        raise PlaceError(
            f"data_directory: {directory} is half restored; run fleet backup restore {unfinished.read_text().strip()} "
            "again, with the settings it had: it goes on"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PlaceError(
                f"http_port: {host}:{port} can't be listened on ({error.strerror}); choose another with FLEET_HTTP_PORT"
            ) from None


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
