"""Roll-ups in InfluxQL and line protocol, which 1.x and 2.x share; 2.x has no `SELECT INTO`.

A stretch is read with `GROUP BY time(…), *`, so every series keeps its tags, and written back in bodies of some
thousand lines: memory is bounded by one chunk of rows and one body, whatever the number of devices.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Final

from cloud.adapters.influx_http import InfluxHttp, Rows, identifier
from cloud.timeseries.levels import RAW, Level, is_copied
from cloud.timeseries.rows import BOOLEAN, FLOAT, INTEGER, NUMBERS, STRING, lines_of

LINES_MAX: Final = 5_000
"""Of one body."""
_STRENGTH: Final = (STRING, BOOLEAN, INTEGER, FLOAT)
"""Where a field has had several types: InfluxQL computes with the last of these that it finds."""


class InfluxRollup:
    """Implements `cloud.timeseries.rollup.RollupStore` on one database."""

    def __init__(self, http: InfluxHttp, database: str) -> None:
        self._http = http
        self._database = database

    async def roll(self, level: Level, measurement: str, from_ms: int, until_ms: int) -> int:
        """See the port."""
        return await asyncio.to_thread(self.roll_here, level, measurement, from_ms, until_ms)

    def roll_here(self, level: Level, measurement: str, from_ms: int, until_ms: int) -> int:
        """The same on the calling thread."""
        types = field_types(self._http, self._database, RAW, measurement)
        if not types:
            return 0
        if is_copied(measurement):
            rows = raw_rows(self._http, self._database, RAW, measurement, from_ms, until_ms)
            return self._write(level, rows, types)
        query = (
            f"SELECT {rolled_columns(types)} FROM {source(RAW, measurement)}"  # noqa: S608  # identifiers are escaped
            f" WHERE time >= {from_ms}ms AND time < {until_ms}ms GROUP BY time({level.window_ms}ms), * fill(none)"
        )
        return self._write(level, self._http.rows(query, database=self._database), rolled_types(types))

    def measurements(self) -> list[str]:
        """All that were ever written, sorted."""
        series = self._http.query("SHOW MEASUREMENTS", database=self._database)
        return sorted(row[0] for one in series for row in one["values"])

    def _write(self, level: Level, found: Iterable[Rows], types: Mapping[str, str]) -> int:
        lines = chain.from_iterable(lines_of(*rows, types) for rows in found)
        written = 0
        for body in bodies(lines, LINES_MAX):
            self._http.write("\n".join(body).encode(), database=self._database, policy=level.policy)
            written += len(body)
        return written


def bodies(lines: Iterator[str], lines_max: int) -> Iterator[list[str]]:
    """`lines` in lists of at most `lines_max`."""
    while body := list(islice(lines, lines_max)):
        yield body


def source(level: Level, measurement: str) -> str:
    """`"raw"."bike"`."""
    return f"{identifier(level.policy)}.{identifier(measurement)}"


def field_types(http: InfluxHttp, database: str, level: Level, measurement: str) -> dict[str, str]:
    """Field → type."""
    series = http.query(f"SHOW FIELD KEYS FROM {source(level, measurement)}", database=database)
    types: dict[str, str] = {}
    for name, field_type in (row for one in series for row in one["values"]):
        types[name] = max(types.get(name, field_type), field_type, key=_STRENGTH.index)
    return types


def raw_rows(
    http: InfluxHttp, database: str, level: Level, measurement: str, from_ms: int, until_ms: int, where: str = ""
) -> Iterator[Rows]:
    """Whole points of [from_ms, until_ms), series by series and in order of time; times in ns."""
    query = (
        f"SELECT * FROM {source(level, measurement)}"  # noqa: S608  # identifiers are escaped
        f" WHERE time >= {from_ms}ms AND time < {until_ms}ms{where} GROUP BY *"
    )
    return http.rows(query, database=database)


def rolled_columns(types: Mapping[str, str]) -> str:
    """What is selected for a window."""
    columns = []
    for name, field_type in sorted(types.items()):
        if field_type not in NUMBERS:
            columns.append(f"last({identifier(name)}) AS {identifier(name)}")
            continue
        columns.append(f"mean({identifier(name)}) AS {identifier(name)}")
        columns += [f"{one}({identifier(name)}) AS {identifier(f'{name}_{one}')}" for one in ("min", "max", "count")]
    return ", ".join(columns)


def rolled_types(types: Mapping[str, str]) -> dict[str, str]:
    """Types of the rolled-up fields: a mean is a float, a count an integer, the rest keeps its type."""
    rolled: dict[str, str] = {}
    for name, field_type in types.items():
        if field_type not in NUMBERS:
            rolled[name] = field_type
            continue
        rolled[name] = FLOAT
        rolled |= {f"{name}_min": field_type, f"{name}_max": field_type, f"{name}_count": INTEGER}
    return rolled
