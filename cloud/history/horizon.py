"""Up to which row a table is final: nothing below it can appear any more.

Rows of PostgreSQL become visible when their transaction ends, not in the order of their ids: whoever remembers the
highest id it saw misses the row with a smaller one that is committed later. So the feed reads a row only when every
transaction is over that can still bring one below it.

An id comes from the table's sequence inside an INSERT, and an INSERT holds ROW EXCLUSIVE on its table from before it
takes the id until its transaction is over, seen by all. So: read the highest visible id; *then* list who holds that
lock; when none of those holds it any more, every id up to the one read is committed, and visible to a read that begins
now, or will never be. Readers, dumps and writers of other tables hold nothing up; nobody waits for us.

On SQLite there is one writer, and rows are committed in the order of their ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, select, text

from cloud.ports import Database
from cloud.tables import FOLLOWED, metadata

_HOLDERS: Final = text("""
    SELECT relation::regclass::text AS name, virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relation IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
""").bindparams(bindparam("names"))


@dataclass(frozen=True, slots=True)
class _Barrier:
    """Everything up to `high` is final once none of `holders` is at work any more."""

    high: int
    holders: frozenset[str]


class Horizon:
    """Asked again and again by one task; it remembers for whom it waits."""

    def __init__(self, database: Database, tables: Sequence[str] = FOLLOWED) -> None:
        self._database = database
        self._tables = {name: metadata.tables[name] for name in tables}
        self._barriers: dict[str, _Barrier] = {}
        self._final: dict[str, int] = {}

    async def look(self) -> Mapping[str, int]:
        """Table → the highest id up to which it is final now; without an entry nothing is known yet.

        It goes back only where rows were deleted.
        """
        highs, is_postgresql = await self._database.read(self._highs)
        if not is_postgresql:
            return highs
        holders = await self._database.read(self._holders)  # after the highest ids were read
        for name, high in highs.items():
            now = holders.get(name, frozenset())
            waiting = self._barriers.get(name)
            if waiting is not None and not waiting.holders & now:
                self._final[name] = waiting.high
                waiting = None
            if waiting is None and now:
                self._barriers[name] = _Barrier(high, now)
            elif waiting is None:
                self._barriers.pop(name, None)
                self._final[name] = high
        return {name: self._final[name] for name in highs if name in self._final}

    def _highs(self, tx: Connection) -> tuple[dict[str, int], bool]:
        highs = {name: int(tx.scalar(select(func.max(table.c.id))) or 0) for name, table in self._tables.items()}
        return highs, tx.dialect.name == "postgresql"

    def _holders(self, tx: Connection) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for name, transaction in tx.execute(_HOLDERS, {"names": list(self._tables)}):
            found.setdefault(name, set()).add(transaction)
        return {name: frozenset(transactions) for name, transactions in found.items()}
