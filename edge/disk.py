"""What the agent's folder may take on the disk, what it takes, and the removal of what grew beyond."""

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from edge.records import Bounds
from edge.reserve import RESERVE_BYTES

BYTES_PER_MB: Final = 1_000_000
OVERHEAD: Final = 2
"""The database and its write-ahead log take at most so many times the messages they hold …"""
FIXED_BYTES: Final = 16 * BYTES_PER_MB
"""… and this for pages, known ids and messages that were set aside."""
_DAMAGED: Final = ".damaged-"

_log = logging.getLogger(__name__)


class BoundSettings(BaseModel):
    """Table `[bounds]` of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    journal_mb: int = Field(default=32, ge=1, le=4_096)
    """Messages that wait for the cloud; beyond it telemetry goes first, oldest first."""
    damaged_journals_max: int = Field(default=2, ge=0, le=20)
    """Set-aside journals that are kept for whoever looks into a damage."""

    @property
    def journal(self) -> Bounds:
        """The same for the journal."""
        return Bounds(bytes_max=self.journal_mb * BYTES_PER_MB)

    @property
    def disk_bytes_max(self) -> int:
        """What the journals may take on the disk, damaged ones and reserve included."""
        one = OVERHEAD * self.journal_mb * BYTES_PER_MB + FIXED_BYTES
        return one * (1 + self.damaged_journals_max) + RESERVE_BYTES


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes of the agent's folder and of the disk below it."""

    used_bytes: int
    free_bytes: int


def disk_use(directory: Path) -> DiskUse:
    """What lies in `directory` now; raises OSError if it is not there."""
    return DiskUse(sum(_sizes(directory)), shutil.disk_usage(directory).free)


def _sizes(directory: Path) -> Iterator[int]:
    for path in directory.iterdir():
        try:
            found = path.lstat()
        except FileNotFoundError:  # SQLite removed its log meanwhile
            continue
        yield max(found.st_size, found.st_blocks * 512)


def remove_old_damage(journal_path: Path, keep: int) -> list[Path]:
    """Delete the oldest set-aside journals beyond `keep`, with their logs; what was deleted."""
    found = sorted(
        (path for path in journal_path.parent.glob(f"{journal_path.name}{_DAMAGED}*") if path.suffix.count("-") == 1),
        key=lambda path: path.lstat().st_mtime,
    )
    gone = found[: max(0, len(found) - keep)]
    for path in gone:
        _log.warning("removed a damaged journal to bound the disk: %s", path.name)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    return gone


def journal_figures(journal: sqlite3.Connection, device_id: str) -> dict[str, Any]:
    """What waits in the journal of one device, by lane, and what nobody took."""
    lanes = {
        str(lane): {"rows": rows, "bytes": size, "evicted": evicted, "oldest_at": None}
        for lane, rows, size, evicted in journal.execute(
            "SELECT lane, row_count, byte_count, evicted FROM lane WHERE device_id = ?", (device_id,)
        )
    }
    for lane, figures in lanes.items():  # the first by number is the oldest but for a clock that was wrong
        (oldest,) = journal.execute(
            "SELECT (SELECT occurred_at FROM message WHERE device_id = ? AND lane = ? ORDER BY seq LIMIT 1)",
            (device_id, lane),
        ).fetchone()
        figures["oldest_at"] = oldest
    (aside,) = journal.execute("SELECT count(*) FROM set_aside WHERE device_id = ?", (device_id,)).fetchone()
    return {"lanes": lanes, "set_aside": aside}


def figures_without_agent(journal_path: Path, device_id: str) -> dict[str, Any]:
    """The same from the file, which a running agent holds for itself.

    Raises:
        sqlite3.Error: there is no journal, or it cannot be read.
    """
    uri = f"{journal_path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=2)) as journal:
        return journal_figures(journal, device_id)
