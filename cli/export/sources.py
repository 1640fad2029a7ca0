"""Where points come from: an InfluxDB, or the embedded series of a data directory, in bounded memory."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from cloud.adapters.influx_http import InfluxHttp, identifier, text_literal
from cloud.adapters.influx_rollup import field_types, raw_rows, source
from cloud.timeseries.levels import Level
from cloud.timeseries.rows import BOOLEAN, FLOAT, INTEGER, STRING

NANOSECONDS_PER_MILLISECOND: Final = 1_000_000
ROWS_MAX: Final = 5_000
DEVICE: Final = "device_id"
_TYPE_BY_JSON: Final = {"integer": INTEGER, "real": FLOAT, "text": STRING, "true": BOOLEAN, "false": BOOLEAN}


class Columns(NamedTuple):
    """Tags (texts) and fields with their types (`cloud.timeseries.rows`), each sorted."""

    tags: list[str]
    fields: dict[str, str]


class Rows(NamedTuple):
    """Some points: times in ms, and a list per column, tags first; None where a point has no value."""

    times_ms: list[int]
    values: list[list[Any]]


class Source(Protocol):
    """Points of one measurement."""

    def columns(self, from_ms: int, until_ms: int) -> Columns:
        """Nothing in it: no such points."""
        ...

    def rows(self, columns: Columns, from_ms: int, until_ms: int, devices: Sequence[str]) -> Iterator[Rows]:
        """Series by series, each in order of time; no devices: all."""
        ...

    def devices(self) -> list[str]:
        """Everybody who has points."""
        ...

    def span_ms(self) -> tuple[int, int] | None:
        """Times of the first and the last point; None: there is none."""
        ...

    def close(self) -> None: ...


class InfluxSource:
    """One measurement of one level."""

    def __init__(self, http: InfluxHttp, database: str, level: Level, measurement: str) -> None:
        self._http = http
        self._database = database
        self._level = level
        self._measurement = measurement

    def columns(self, from_ms: int, until_ms: int) -> Columns:
        """Of all that is kept; the database does not say which columns a stretch of time has."""
        del from_ms, until_ms
        statement = f"SHOW TAG KEYS FROM {source(self._level, self._measurement)}"
        series = self._http.query(statement, database=self._database)
        tags = sorted(row[0] for one in series for row in one["values"])
        types = field_types(self._http, self._database, self._level, self._measurement)
        return Columns(tags, dict(sorted(types.items())))

    def rows(self, columns: Columns, from_ms: int, until_ms: int, devices: Sequence[str]) -> Iterator[Rows]:
        """See the protocol."""
        chosen = " OR ".join(f"{identifier(DEVICE)} = {text_literal(device)}" for device in devices)
        where = f" AND ({chosen})" if chosen else ""
        span = (from_ms, until_ms)
        for found in raw_rows(self._http, self._database, self._level, self._measurement, *span, where):
            at = {name: number for number, name in enumerate(found.columns)}
            count = len(found.values)
            values: list[list[Any]] = [[found.tags.get(tag) or None] * count for tag in columns.tags]
            for name, field_type in columns.fields.items():
                number = at.get(name)
                column = [None] * count if number is None else [row[number] for row in found.values]
                values.append(_floats(column) if field_type == FLOAT else column)
            yield Rows([row[0] // NANOSECONDS_PER_MILLISECOND for row in found.values], values)

    def devices(self) -> list[str]:
        """See the protocol."""
        key = identifier(DEVICE)
        statement = f"SHOW TAG VALUES FROM {source(self._level, self._measurement)} WITH KEY = {key}"
        series = self._http.query(statement, database=self._database)
        return sorted({str(row[1]) for one in series for row in one["values"]})

    def span_ms(self) -> tuple[int, int] | None:
        """See the protocol."""
        first, last = self._end("ASC"), self._end("DESC")
        return None if first is None or last is None else (first, last)

    def _end(self, order: str) -> int | None:
        statement = f"SELECT * FROM {source(self._level, self._measurement)} ORDER BY time {order} LIMIT 1"  # noqa: S608
        series = self._http.query(statement, database=self._database)
        return int(series[0]["values"][0][0]) if series else None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class SqliteSource:
    """One measurement of an embedded series; `fleet serve` may be writing to it."""

    def __init__(self, path: Path, measurement: str) -> None:
        self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        self._measurement = measurement

    def columns(self, from_ms: int, until_ms: int) -> Columns:
        """Of the points in that time."""
        where = self._where(from_ms, until_ms)
        keys = "SELECT DISTINCT key, json_each.type FROM point, json_each(point.fields)"
        types: dict[str, str] = {}
        for name, json_type in self._connection.execute(f"{keys} {where[0]}", where[1]):
            found = _TYPE_BY_JSON.get(json_type)
            if found is not None:
                types[name] = found if types.get(name, found) == found else _common(types[name], found)
        tags = {DEVICE} if types else set()
        series = self._connection.execute("SELECT DISTINCT tags FROM series WHERE kind = ?", (self._measurement,))
        for (text,) in series:
            tags |= set(msgspec.json.decode(text))
        return Columns(sorted(tags), dict(sorted(types.items())))

    def rows(self, columns: Columns, from_ms: int, until_ms: int, devices: Sequence[str]) -> Iterator[Rows]:
        """See the protocol."""
        where, parameters = self._where(from_ms, until_ms)
        if devices:
            marks = ",".join("?" * len(devices))
            where += f" AND series_id IN (SELECT id FROM series WHERE device_id IN ({marks}))"  # noqa: S608
        cursor = self._connection.execute(
            f"SELECT device_id, tags, at_ns, fields FROM point JOIN series ON series.id = series_id {where}"  # noqa: S608
            " ORDER BY series_id, at_ns",
            (*parameters, *devices),
        )
        while found := cursor.fetchmany(ROWS_MAX):
            tags = [msgspec.json.decode(row[1]) | ({DEVICE: row[0]} if row[0] else {}) for row in found]
            fields = [msgspec.json.decode(row[3]) for row in found]
            values: list[list[Any]] = [[one.get(tag) for one in tags] for tag in columns.tags]
            for name, field_type in columns.fields.items():
                column = [one.get(name) for one in fields]
                values.append(_floats(column) if field_type == FLOAT else column)
            yield Rows([row[2] // NANOSECONDS_PER_MILLISECOND for row in found], values)

    def devices(self) -> list[str]:
        """See the protocol."""
        found = self._connection.execute(
            "SELECT DISTINCT device_id FROM series WHERE kind = ? ORDER BY device_id", (self._measurement,)
        )
        return [str(row[0]) for row in found if row[0]]

    def span_ms(self) -> tuple[int, int] | None:
        """See the protocol."""
        first, last = self._connection.execute(
            "SELECT min(at_ns), max(at_ns) FROM point WHERE series_id IN (SELECT id FROM series WHERE kind = ?)",
            (self._measurement,),
        ).fetchone()
        if first is None:
            return None
        return first // NANOSECONDS_PER_MILLISECOND, last // NANOSECONDS_PER_MILLISECOND

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _where(self, from_ms: int, until_ms: int) -> tuple[str, tuple[Any, ...]]:
        span = (from_ms * NANOSECONDS_PER_MILLISECOND, until_ms * NANOSECONDS_PER_MILLISECOND)
        text = "WHERE series_id IN (SELECT id FROM series WHERE kind = ?) AND at_ns >= ? AND at_ns < ?"
        return text, (self._measurement, *span)


def _floats(column: list[Any]) -> list[Any]:
    """A whole number in a JSON answer is a float all the same."""
    return [None if value is None else float(value) for value in column]


def _common(one: str, other: str) -> str:
    return FLOAT if {one, other} == {INTEGER, FLOAT} else STRING
