"""The embedded series store: one SQLite file of its own, so that it never competes for the state's writer.

A reading is one row with its fields as JSON; an aggregate reads one device's rows of a time range by the
primary key. That costs a tenth of a row per field when writing, and suits the thousands of rows that a
page or a board asks for. (A table WITHOUT ROWID took up to three times as long to write: its rows are wide.)
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from cloud.adapters.series_queries import FieldNotNumericError, check_query
from cloud.ports import SeriesError, SeriesPoint

T = TypeVar("T")
_Key = tuple[str, str, tuple[tuple[str, str], ...]]

_NANOSECONDS_PER_MILLISECOND: Final = 1_000_000
_RETRY_AFTER_S: Final = 5.0
_DELETE_ROWS_MAX: Final = 20_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS series (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, device_id TEXT NOT NULL, tags TEXT NOT NULL DEFAULT '{}',
  UNIQUE (kind, device_id, tags)
) STRICT;
CREATE TABLE IF NOT EXISTS point (
  series_id INTEGER NOT NULL, at_ns INTEGER NOT NULL, fields TEXT NOT NULL, PRIMARY KEY (series_id, at_ns)
) STRICT;
"""
_TAGS_WERE_ADDED: Final = """
BEGIN IMMEDIATE;
ALTER TABLE series RENAME TO series_without_tags;
CREATE TABLE series (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, device_id TEXT NOT NULL, tags TEXT NOT NULL DEFAULT '{}',
  UNIQUE (kind, device_id, tags)
) STRICT;
INSERT INTO series (id, kind, device_id) SELECT id, kind, device_id FROM series_without_tags;
DROP TABLE series_without_tags;
COMMIT;
"""
_SQL_BY_AGGREGATE: Final = {
    "mean": "avg(value)",
    "min": "min(value)",
    "max": "max(value)",
    "sum": "total(value)",
    "count": "count(value)",
    "last": "value",  # with max(at_ns) beside it, SQLite takes the other columns from that row
}
_TYPES_BY_AGGREGATE: Final = {
    "mean": frozenset({"integer", "real"}),
    "sum": frozenset({"integer", "real"}),
    "min": frozenset({"integer", "real", "true", "false"}),
    "max": frozenset({"integer", "real", "true", "false"}),
    "last": frozenset({"integer", "real", "true", "false"}),
}


class SqliteSeries:
    """Implements `cloud.ports.SeriesStore`. Writes share one thread and connection, reads another."""

    def __init__(self, path: Path) -> None:
        self._writer = _Worker(path, "series-write")
        self._writer.connection.executescript(_SCHEMA)
        columns = {row[1] for row in self._writer.connection.execute("PRAGMA table_info(series)")}
        if "tags" not in columns:  # a file of an earlier release
            self._writer.connection.executescript(_TAGS_WERE_ADDED)
        self._reader = _Worker(path, "series-read")
        self._series_ids: dict[_Key, int] = {}
        """Of series that are committed."""

    async def write(self, points: Sequence[SeriesPoint]) -> None:
        """Upsert all points in one durable transaction."""
        self._series_ids |= await self._writer.run(lambda connection: self._insert(connection, points))

    async def read(
        self,
        kind: str,
        device_id: str,
        field: str,
        from_ms: int,
        to_ms: int,
        step_ms: int,
        aggregate: str = "mean",
    ) -> list[tuple[int, float]]:
        """See the port.

        Raises:
            FieldNotNumericError: texts can only be counted, booleans not averaged or summed.
            ValueError: unknown aggregate or a step below 1 ms.
        """
        check_query(aggregate, step_ms)
        return await self._reader.run(
            lambda connection: _aggregate(
                connection,
                (kind, device_id),
                field,
                (from_ms * _NANOSECONDS_PER_MILLISECOND, to_ms * _NANOSECONDS_PER_MILLISECOND),
                step_ms,
                aggregate,
            ),
        )

    async def count(self, kind: str | None = None) -> int:
        """Number of stored points."""
        sql = "SELECT count(*) FROM point JOIN series ON series.id = series_id WHERE ?1 IS NULL OR kind = ?1"
        return await self._reader.run(lambda connection: int(connection.execute(sql, (kind,)).fetchone()[0]))

    async def delete_before(self, at_ms: int) -> int:
        """Retention: delete older points in short transactions; returns how many."""
        before_ns = at_ms * _NANOSECONDS_PER_MILLISECOND
        rows = await self._reader.run(lambda connection: connection.execute("SELECT id FROM series").fetchall())
        deleted_count = 0
        for (series_id,) in rows:
            while True:
                count = await self._writer.run(partial(_delete, series_id=series_id, before_ns=before_ns))
                deleted_count += count
                if count < _DELETE_ROWS_MAX:
                    break
        return deleted_count

    async def close(self) -> None:
        """Wait for what is running and close the file."""
        await self._reader.close()
        await self._writer.close()

    def _insert(self, connection: sqlite3.Connection, points: Sequence[SeriesPoint]) -> dict[_Key, int]:
        """Upsert the points; returns the series that this transaction met first: theirs only if it commits."""
        encode = msgspec.json.Encoder().encode
        met: dict[_Key, int] = {}
        rows = [
            (self._series_id(connection, point, met), point.at_ns, encode(point.fields).decode()) for point in points
        ]
        connection.executemany(
            "INSERT INTO point VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET fields = excluded.fields",
            rows,
        )
        return met

    def _series_id(self, connection: sqlite3.Connection, point: SeriesPoint, met: dict[_Key, int]) -> int:
        key = (point.kind, point.device_id, point.tags)
        series_id = self._series_ids.get(key) or met.get(key)
        if series_id is None:
            values = (point.kind, point.device_id, msgspec.json.encode(dict(sorted(point.tags))).decode())
            connection.execute("INSERT OR IGNORE INTO series (kind, device_id, tags) VALUES (?, ?, ?)", values)
            row = connection.execute("SELECT id FROM series WHERE kind = ? AND device_id = ? AND tags = ?", values)
            (series_id,) = row.fetchone()
            met[key] = series_id
        return series_id


class _Worker:
    """One connection and the only thread that uses it."""

    def __init__(self, path: Path, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")  # the drain saves its position after our commit

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._in_transaction, work)

    def _in_transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self.connection.execute("BEGIN")
            try:
                result = work(self.connection)
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        except (OverflowError, sqlite3.IntegrityError, sqlite3.InterfaceError, TypeError) as error:
            raise SeriesError(str(error), retry_after_s=None) from error
        except sqlite3.Error as error:  # locked, disk full, I/O: no fault of the points
            raise SeriesError(str(error), retry_after_s=_RETRY_AFTER_S) from error
        return result

    async def close(self) -> None:
        await asyncio.to_thread(self._executor.shutdown)
        self.connection.close()


def _aggregate(
    connection: sqlite3.Connection,
    series: tuple[str, str],
    field: str,
    range_ns: tuple[int, int],
    step_ms: int,
    aggregate: str,
) -> list[tuple[int, float]]:
    path = '$."' + field.replace('"', '\\"') + '"'
    rows = connection.execute(
        f"""
        SELECT at_ns / ? / ? * ? AS bucket, {_SQL_BY_AGGREGATE[aggregate]}, max(at_ns), group_concat(DISTINCT type)
        FROM (
          SELECT at_ns, json_extract(fields, ?) AS value, json_type(fields, ?) AS type
          FROM point JOIN series ON series.id = series_id
          WHERE kind = ? AND device_id = ? AND at_ns >= ? AND at_ns < ?
        )
        WHERE value IS NOT NULL GROUP BY bucket ORDER BY bucket
        """,  # noqa: S608  # from the table of aggregates above
        (_NANOSECONDS_PER_MILLISECOND, step_ms, step_ms, path, path, *series, *range_ns),
    ).fetchall()
    allowed: Any = _TYPES_BY_AGGREGATE.get(aggregate)
    for _, _, _, found in rows:
        if allowed is not None and not allowed.issuperset(found.split(",")):
            raise FieldNotNumericError(f"{series[0]}.{field} has no {aggregate}: its values are {found}")
    return [(bucket, float(value)) for bucket, value, _, _ in rows]


def _delete(connection: sqlite3.Connection, series_id: int, before_ns: int) -> int:
    return connection.execute(
        "DELETE FROM point WHERE series_id = ? AND at_ns IN"
        " (SELECT at_ns FROM point WHERE series_id = ? AND at_ns < ? ORDER BY at_ns LIMIT ?)",
        (series_id, series_id, before_ns, _DELETE_ROWS_MAX),
    ).rowcount
