"""Disks of simulated machines: a crash loses what was not synced, half of a write may remain, and a disk may be full.

A machine's disk is a folder. What the code writes through `os` is followed by `WatchedOs`, which stands in the place
of that module in the files that write by themselves. SQLite's files are durable as they are: its own log is what
survives a crash, and uncommitted work is not in it. `crash` copies what would be found after the power came back to
a new folder, which the next process uses; whatever the dead one still does happens in the old folder.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.randomness import Randomness


@dataclass(slots=True)
class _Watched:
    """One file: how much of it is durable, and what lay under writes that are not."""

    path: str
    synced_bytes: int
    undo: list[tuple[int, bytes]] = field(default_factory=list)


class Disk:
    """The folder of one machine, through all its crashes."""

    def __init__(self, root: Path, name: str, randomness: Randomness) -> None:
        self.full = False
        self.refuses_journal = False
        """There is not even room for SQLite's log."""
        self.folder = root / f"{name}.0"
        self.crashes = 0
        self._root = root
        self._name = name
        self._randomness = randomness
        self.folder.mkdir(parents=True)

    def crash(self, watched: "WatchedOs", *, keep: bool = True) -> None:
        """Go on in a new folder with what is durable; nothing at all unless `keep`."""
        self.crashes += 1
        before, self.folder = self.folder, self._root / f"{self._name}.{self.crashes}"
        if not keep:
            self.folder.mkdir()
            return
        shutil.copytree(before, self.folder, ignore=shutil.ignore_patterns("*-shm"))
        watched.lose_unsynced(before, self.folder, self._randomness)

    def take_copy(self) -> Path:
        """Somebody makes a copy (an image of the card) while the machine runs; where it lies."""
        copy = self._root / f"{self._name}.copy{self.crashes}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("*-shm"))
        return copy

    def restore(self, copy: Path) -> None:
        """The copy is played back: the disk falls behind itself."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(copy, self.folder)


class WatchedOs:
    """Stands in for the module `os`."""

    def __init__(self) -> None:
        self.disks: list[Disk] = []
        self._files: dict[str, _Watched] = {}
        self._by_descriptor: dict[int, _Watched] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """See os.open."""
        descriptor = os.open(path, flags, mode)
        if flags & (os.O_WRONLY | os.O_RDWR):
            size = os.fstat(descriptor).st_size
            name = str(path)
            watched = self._files.get(name)
            if watched is None or flags & os.O_TRUNC:
                watched = self._files[name] = _Watched(name, size)
            self._by_descriptor[descriptor] = watched
        return descriptor

    def close(self, descriptor: int) -> None:
        """See os.close."""
        self._by_descriptor.pop(descriptor, None)
        os.close(descriptor)

    def _refuse_if_full(self, watched: _Watched | None, size: int, at: int | None = None) -> None:
        if watched is None or size == 0:
            return
        if at is not None and at + size <= Path(watched.path).stat().st_size:
            return  # within the file: it needs no new room
        if any(disk.full and watched.path.startswith(f"{disk.folder}/") for disk in self.disks):
            raise OSError(errno.ENOSPC, "No space left on device", watched.path)

    def write(self, descriptor: int, data: Any) -> int:
        """See os.write."""
        self._refuse_if_full(self._by_descriptor.get(descriptor), len(data))
        return os.write(descriptor, data)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        """See os.pwrite."""
        watched = self._by_descriptor.get(descriptor)
        self._refuse_if_full(watched, len(data), offset)
        if watched is not None:
            watched.undo.append((offset, os.pread(descriptor, len(data), offset)))
        return os.pwrite(descriptor, data, offset)

    def ftruncate(self, descriptor: int, length: int) -> None:
        """See os.ftruncate."""
        os.ftruncate(descriptor, length)
        watched = self._by_descriptor.get(descriptor)
        if watched is not None:
            watched.synced_bytes = min(watched.synced_bytes, length)

    def fdatasync(self, descriptor: int) -> None:
        """See os.fdatasync."""
        watched = self._by_descriptor.get(descriptor)
        if watched is not None:
            watched.synced_bytes = os.fstat(descriptor).st_size
            watched.undo.clear()

    fsync = fdatasync

    def lose_unsynced(self, before: Path, after: Path, randomness: Randomness) -> None:
        """In the copy `after` of `before`: take back what was not synced, except for a torn part of it."""
        for name, watched in sorted(self._files.items()):
            if not name.startswith(f"{before}/"):
                continue
            copy = after / Path(name).relative_to(before)
            if copy.exists():
                _tear(copy, watched, randomness)


def _tear(copy: Path, watched: _Watched, randomness: Randomness) -> None:
    with copy.open("r+b") as file:
        size = copy.stat().st_size
        if size > watched.synced_bytes:
            file.truncate(watched.synced_bytes + int((size - watched.synced_bytes) * randomness.random()))
        for number, (offset, content) in enumerate(reversed(watched.undo)):
            if number == 0:  # of the latest write a beginning may have reached the disk
                kept = int(len(content) * randomness.random())
                offset, content = offset + kept, content[kept:]  # noqa: PLW2901
            file.seek(offset)
            file.write(content)


@contextmanager
def watched_os(*modules: Any) -> Iterator[WatchedOs]:
    """Put one `WatchedOs` in the place of `os` in these modules."""
    watched = WatchedOs()
    before = [module.os for module in modules]
    for module in modules:
        module.os = watched
    try:
        yield watched
    finally:
        for module, original in zip(modules, before, strict=True):
            module.os = original
