"""Where the drain stands, kept over a restart. Never ahead of what the store holds; behind is harmless."""

import os
from pathlib import Path
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)


class PositionStore(Protocol):
    """One durable number; a row of `spool_mark` or a small file."""

    async def load(self) -> int:
        """The position saved last, 0 if there is none."""
        ...

    async def save(self, position: int) -> None:
        """Keep it durably."""
        ...


class PositionFile:
    """A file beside the spool, replaced atomically. An unreadable one counts as 0: everything is written again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> int:
        try:
            return int(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except ValueError:
            _log.warning("position file is unreadable; draining from the start of the spool", file=self._path.name)
            return 0

    async def save(self, position: int) -> None:
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="ascii") as file:
            file.write(f"{position}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
