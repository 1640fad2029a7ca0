"""The files that points are written to, batch by batch; a file appears under its name when it is whole."""

from collections.abc import Callable, Iterable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final, Protocol

from cli.export.sources import Columns, Rows
from cloud.timeseries.rows import BOOLEAN, FLOAT, INTEGER, STRING

TIME: Final = "time"
_PARQUET_ROWS: Final = 50_000
"""Of one row group: what is held in memory."""


class MissingLibraryError(Exception):
    """One line for people."""


class PointFile(Protocol):
    """A file being written."""

    def write(self, rows: Rows) -> None: ...
    def close(self) -> None: ...


class CsvFile:
    """Texts in quotes, so that an empty text differs from no value, which is nothing; `true` and `false`; RFC 4180."""

    def __init__(self, path: Path, columns: Columns, zone: tzinfo) -> None:
        self._zone = zone
        self._texts: list[Callable[[Any], str]] = [_quoted] * len(columns.tags)
        self._texts += [_TEXT_BY_TYPE[field_type] for field_type in columns.fields.values()]
        self._file = path.open("w", encoding="utf-8", newline="")
        self._line(_quoted(name) for name in (TIME, *columns.tags, *columns.fields))

    def write(self, rows: Rows) -> None:
        """Append; times in ISO 8601 with the zone's offset."""
        columns = [
            ["" if value is None else text(value) for value in column]
            for text, column in zip(self._texts, rows.values, strict=True)
        ]
        times = [
            datetime.fromtimestamp(at / 1000, self._zone).isoformat(timespec="milliseconds") for at in rows.times_ms
        ]
        for line in zip(times, *columns, strict=True):
            self._line(line)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _line(self, cells: Iterable[str]) -> None:
        self._file.write(",".join(cells) + "\r\n")


class ParquetFile:
    """Row groups of some ten thousand points; times are timestamps in ms with a zone."""

    def __init__(self, path: Path, columns: Columns, zone: str) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise MissingLibraryError(
                "Parquet files need pyarrow; run: pip install 'gaoxin-fleet[export]', or use --format csv"
            ) from error
        types = {FLOAT: pa.float64(), INTEGER: pa.int64(), STRING: pa.string(), BOOLEAN: pa.bool_()}
        self._arrow = pa
        self._schema = pa.schema(
            [
                pa.field(TIME, pa.timestamp("ms", tz=zone), nullable=False),
                *(pa.field(tag, pa.string()) for tag in columns.tags),
                *(pa.field(name, types[field_type]) for name, field_type in columns.fields.items()),
            ]
        )
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Any] = []
        self._waiting_rows = 0

    def write(self, rows: Rows) -> None:
        """Append."""
        arrays = [
            self._arrow.array(column, type=field.type)
            for field, column in zip(self._schema, (rows.times_ms, *rows.values), strict=True)
        ]
        self._waiting.append(self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._waiting_rows += len(rows.times_ms)
        if self._waiting_rows >= _PARQUET_ROWS:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._arrow.Table.from_batches(self._waiting, self._schema))
        self._waiting.clear()
        self._waiting_rows = 0


def _quoted(text: Any) -> str:
    escaped = str(text).replace('"', '""')
    return f'"{escaped}"'


def _boolean(value: Any) -> str:
    return "true" if value else "false"


_TEXT_BY_TYPE: Final[dict[str, Callable[[Any], str]]] = {FLOAT: repr, INTEGER: str, STRING: _quoted, BOOLEAN: _boolean}
