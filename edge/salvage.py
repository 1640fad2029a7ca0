"""What is done with a damaged database: it is renamed, never deleted, and what can still be read of it goes on."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge.journal_store import JournalStore
from fleet.envelope import Lane

Order = Literal["ASC", "DESC"]
_READ_ALL: Final[Mapping[Order, str]] = {
    "ASC": "SELECT lane, device_id, occurred_at, payload, event_id FROM message ORDER BY device_id, lane, seq",
    "DESC": "SELECT lane, device_id, occurred_at, payload, event_id FROM message "
    "ORDER BY device_id DESC, lane DESC, seq DESC",
}
Salvaged = tuple[str, int, bytes, str | None]
"""(device id, occurred_at, payload, event id)."""


@dataclass(frozen=True, slots=True)
class DamagedDatabase:
    """A journal that was set aside."""

    path: Path

    def carry_into(self, store: JournalStore) -> int:
        """Append its unacknowledged emergencies and events to `store`, as far as they can be read; their number.

        They get new seqs; the cloud knows them by their event ids. Telemetry stays behind: it carries no
        identity of its own, so a second copy could not be told from the first.
        """
        carried = 0
        registered: set[str] = set()
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.path)) as damaged:
            for lane in (Lane.EMERGENCY, Lane.EVENT):
                carried += self._carry_lane(damaged, store, lane, registered)
            with suppress(sqlite3.Error):  # so that what the hardware repeats is still recognised
                store.mark_seen(damaged.execute("SELECT device_id, event_id FROM event_seen ORDER BY id").fetchall())
        return carried

    @staticmethod
    def _carry_lane(damaged: sqlite3.Connection, store: JournalStore, lane: Lane, registered: set[str]) -> int:
        carried = 0
        # From both ends, up to the damaged page; the event id tells what both saw.
        for device_id, occurred_at, payload, event_id in (
            *_readable(damaged, lane, "ASC"),
            *reversed(_readable(damaged, lane, "DESC")),
        ):
            if device_id not in registered:
                registered.add(device_id)
                store.register(device_id)
            if event_id is not None and store.append(device_id, 0, lane, occurred_at, payload, event_id):
                carried += 1
        return carried


def _readable(damaged: sqlite3.Connection, lane: Lane, order: Order) -> list[Salvaged]:
    rows: list[Salvaged] = []
    with suppress(sqlite3.DatabaseError):
        # In the key's own order and without a condition: a sorter would read all of it before the first row.
        for row_lane, *row in damaged.execute(_READ_ALL[order]):
            if row_lane == lane.value:
                rows.append((row[0], row[1], row[2], row[3]))
    return rows


def set_database_aside(path: Path) -> DamagedDatabase:
    """Rename the database and what SQLite keeps beside it to the first free `….damaged-<n>`."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return DamagedDatabase(aside)
