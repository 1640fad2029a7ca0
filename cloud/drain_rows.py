"""What the drain of a spool keeps in SQL: where it stands, and what the series refused for good."""

from collections.abc import Sequence

from sqlalchemy import Connection

from cloud.ingest import repository as ingest_rows
from cloud.model import Quarantined
from cloud.ports import Database

_CONSUMER = "series"


class DrainPosition:
    """`cloud.timeseries.position.PositionStore` in `spool_mark`."""

    def __init__(self, database: Database, spool_name: str) -> None:
        self._database = database
        self._spool_name = spool_name

    async def load(self) -> int:
        """Where to go on; 0 at first."""
        return await self._database.read(lambda tx: ingest_rows.spool_position(tx, self._spool_name, _CONSUMER))

    async def save(self, position: int) -> None:
        """Everything before `position` stands in the series."""

        def store(tx: Connection) -> None:
            ingest_rows.save_spool_position(tx, self._spool_name, _CONSUMER, position)

        await self._database.write(store)


class Quarantine:
    """`cloud.timeseries.drain.Quarantine`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, items: Sequence[Quarantined]) -> None:
        """Keep bytes and reason."""

        def store(tx: Connection) -> None:
            ingest_rows.store_quarantined(tx, items)

        await self._database.write(store)
