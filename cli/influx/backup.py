"""A backup of the series: one gzip file of line protocol per level, measurement and stretch of time, and a manifest.

Lines are read over `/query` and written over `/write`, which 1.x and 2.x share, so a backup of one restores on the
other. The manifest is written after each file: what broke off goes on behind the last one.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from isal import igzip

from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.influx_rollup import InfluxRollup, field_types, raw_rows, source
from cloud.timeseries.levels import LEVELS, Level
from cloud.timeseries.rows import lines_of

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
DAY_MS: Final = 86_400_000
_GZIP_LEVEL: Final = 2
_READ_BYTES: Final = 1 << 20
_MODE: Final = 0o640


class BackupError(Exception):
    """One line for people."""


class Entry(msgspec.Struct):
    """One file: points of `measurement` in [from_ms, until_ms), and how often each field has a value there."""

    file: str
    policy: str
    measurement: str
    from_ms: int
    until_ms: int
    lines: int
    values: dict[str, int]
    bytes: int
    sha256: str


class Manifest(msgspec.Struct):
    """What a backup holds. `complete`: everything that was asked for is there."""

    database: str
    server_version: str
    until_ms: int
    files: list[Entry]
    complete: bool = False
    format: int = FORMAT


class Piece(NamedTuple):
    """A file to be made."""

    level: Level
    measurement: str
    from_ms: int
    until_ms: int

    @property
    def file(self) -> str:
        """Its name in the folder; measurements are named by us and by kinds: letters, digits, underscores."""
        return f"{self.level.policy}/{self.measurement}/{self.from_ms}-{self.until_ms}.lines.gz"


class Backup:
    """Takes one backup into `folder`. Raises BackupError, SeriesError and OSError."""

    def __init__(self, http: InfluxHttp, database: str, folder: Path, policies: tuple[str, ...]) -> None:
        self._http = http
        self._database = database
        self._folder = folder
        self._levels = [_level(policy) for policy in policies]
        self._manifest = self._opened()
        self._taken = {entry.file for entry in self._manifest.files}

    def plan(self, from_ms: int | None, until_ms: int) -> list[Piece]:
        """What is still to be taken; an earlier run's end is kept, so that both runs make one backup."""
        if self._manifest.files or self._manifest.until_ms:
            until_ms = self._manifest.until_ms
        self._manifest.until_ms = until_ms
        self._save()
        pieces: list[Piece] = []
        for level in self._levels:
            for measurement in InfluxRollup(self._http, self._database).measurements():
                pieces += self._pieces(level, measurement, from_ms, until_ms)
        return [piece for piece in pieces if piece.file not in self._taken]

    def take(self, piece: Piece) -> None:
        """Write one file, durably, then the manifest."""
        path = self._folder / piece.file
        path.parent.mkdir(parents=True, exist_ok=True)
        types = field_types(self._http, self._database, piece.level, piece.measurement)
        temporary = path.with_suffix(".part")
        count, values = 0, Counter[str]()
        with temporary.open("wb") as raw:
            os.fchmod(raw.fileno(), _MODE)
            packed: Any = igzip.GzipFile
            with packed(fileobj=raw, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as file:
                for lines in self._lines(piece, types, values):
                    count += len(lines)
                    file.write(("\n".join(lines) + "\n").encode())
            raw.flush()
            os.fsync(raw.fileno())
        if count:
            entry = Entry(
                piece.file, piece.level.policy, piece.measurement, piece.from_ms, piece.until_ms, count, dict(values),
                temporary.stat().st_size, sha256_of(temporary),
            )  # fmt: skip
            temporary.replace(path)
            self._manifest.files.append(entry)
            self._save()
        else:
            temporary.unlink()

    @property
    def is_empty(self) -> bool:
        """Whether no point was found, now or before."""
        return not self._manifest.files

    def discard(self) -> None:
        """Leave the folder as empty as it was."""
        (self._folder / MANIFEST).unlink(missing_ok=True)
        for folder in sorted((path for path in self._folder.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()

    def finish(self) -> dict[str, Any]:
        """Mark it complete; returns what it holds."""
        self._manifest.complete = True
        self._save()
        files = self._manifest.files
        return {
            "folder": str(self._folder), "files": len(files), "lines": sum(entry.lines for entry in files),
            "bytes": sum(entry.bytes for entry in files), "until_ms": self._manifest.until_ms, "complete": True,
        }  # fmt: skip

    def _lines(self, piece: Piece, types: Mapping[str, str], values: Counter[str]) -> Iterator[list[str]]:
        span = (piece.from_ms, piece.until_ms)
        for rows in raw_rows(self._http, self._database, piece.level, piece.measurement, *span):
            for number, column in enumerate(rows.columns[1:], start=1):
                values[column] += sum(row[number] is not None for row in rows.values)
            yield lines_of(*rows, types)
        for column in [column for column, count in values.items() if not count]:
            del values[column]

    def _pieces(self, level: Level, measurement: str, from_ms: int | None, until_ms: int) -> Iterator[Piece]:
        """Stretches that hold points, cut at multiples of the level's shard: the same time lies in the same file."""
        length_ms = level.shard_days * DAY_MS
        next_ms = self._first_ms(level, measurement, from_ms, until_ms)
        while next_ms is not None:
            start_ms = next_ms // length_ms * length_ms
            end_ms = min(start_ms + length_ms, until_ms)
            yield Piece(level, measurement, start_ms if from_ms is None else max(start_ms, from_ms), end_ms)
            next_ms = self._first_ms(level, measurement, end_ms, until_ms)

    def _first_ms(self, level: Level, measurement: str, from_ms: int | None, until_ms: int) -> int | None:
        since = "" if from_ms is None else f" AND time >= {from_ms}ms"
        where = f"WHERE time < {until_ms}ms{since} ORDER BY time ASC LIMIT 1"
        query = f"SELECT * FROM {source(level, measurement)} {where}"  # noqa: S608  # escaped
        series = self._http.query(query, database=self._database)
        return int(series[0]["values"][0][0]) if series else None

    def _opened(self) -> Manifest:
        self._folder.mkdir(parents=True, exist_ok=True)
        if (self._folder / MANIFEST).exists():
            manifest = manifest_of(self._folder)
            if manifest.complete:
                raise BackupError(f"{self._folder} holds a complete backup already; give an empty folder")
            if manifest.database != self._database:
                raise BackupError(f"{self._folder} holds a part of a backup of database {manifest.database!r}")
            return manifest
        if any(self._folder.iterdir()):
            raise BackupError(f"{self._folder} is not empty and holds no backup; give an empty folder")
        return Manifest(self._database, self._http.version(), 0, [])

    def _save(self) -> None:
        temporary = self._folder / (MANIFEST + ".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self._manifest), indent=1))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / MANIFEST)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a backup. Raises BackupError."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(f"{folder} holds no {MANIFEST}: it is no backup of the series") from None
    except msgspec.DecodeError as error:
        raise BackupError(f"{folder / MANIFEST} is damaged: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{folder} has format {manifest.format}; this release reads {FORMAT}")
    return manifest


def sha256_of(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _level(policy: str) -> Level:
    for level in LEVELS:
        if level.policy == policy:
            return level
    return Level(policy, 0, 0, 1)
