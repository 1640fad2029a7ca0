"""Writes a backup of the series back, and counts on the server whether all of it is there."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from isal import igzip

from cli.influx.backup import BackupError, Entry, manifest_of, sha256_of
from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.influx_rollup import source
from cloud.ports import SeriesError
from cloud.timeseries.levels import Level

LINES_MAX: Final = 5_000
TRIES_MAX: Final = 5
_EXPIRED: Final = re.compile(r"beyond retention policy dropped=(\d+)")


class UnknownLevelError(ValueError):
    """One line for people."""


def check_levels(folder: Path, policies: Sequence[str]) -> None:
    """Whether a backup holds what is asked for. Raises UnknownLevelError and BackupError."""
    held = sorted({entry.policy for entry in manifest_of(folder).files})
    if held and (missing := [policy for policy in policies if policy not in held]):
        raise UnknownLevelError(f"{folder} holds no level {', '.join(missing)}; it holds {', '.join(held)}")


class Restore:
    """One backup into one database. Raises BackupError, SeriesError and OSError.

    Writing a file again changes nothing, so a restore that broke off is simply run again: files whose values are all
    on the server are passed over.
    """

    def __init__(self, http: InfluxHttp, database: str, folder: Path, policies: tuple[str, ...]) -> None:
        self.missing = 0
        """Values of the backup that the server does not hold, expired ones apart."""
        self._http = http
        self._database = database
        self._folder = folder
        manifest = manifest_of(folder)
        if not manifest.complete:
            raise BackupError(f"{folder} is not complete: run `fleet influx backup {folder}` again, it goes on there")
        self.pieces = [entry for entry in manifest.files if not policies or entry.policy in policies]
        self._lines = self._expired = self._passed_over = self._compared = 0
        self._expired_files: set[str] = set()
        for entry in self.pieces:
            path = folder / entry.file
            if not path.is_file() or path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
                raise BackupError(f"{path} is missing or damaged: its checksum is not that of the manifest")

    def write(self, entry: Entry) -> None:
        """Write one file's lines, unless the server holds them already."""
        if not self._lacking(entry):
            self._passed_over += 1
            return
        with igzip.open(self._folder / entry.file, "rb") as file:  # type: ignore[no-untyped-call]  # it has no types
            for body in _bodies(file):
                self._expired += self._write(entry, body)
                self._lines += len(body)

    def compare(self, entry: Entry) -> None:
        """Count on the server; fields of files with expired points can't be told apart and are left out."""
        if entry.file in self._expired_files:
            return
        self._compared += 1
        self.missing += sum(self._lacking(entry).values())

    def result(self) -> dict[str, Any]:
        """What was done."""
        return {
            "files": len(self.pieces), "files_there_already": self._passed_over, "files_compared": self._compared,
            "lines_written": self._lines, "lines_expired": self._expired, "values_missing": self.missing,
        }  # fmt: skip

    def _write(self, entry: Entry, body: list[bytes]) -> int:
        """Returns how many lines were refused as older than the level keeps."""
        tries = 0
        while True:
            try:
                self._http.write(b"".join(body), database=self._database, policy=entry.policy)
            except SeriesError as error:
                expired = _EXPIRED.search(str(error))
                if expired is not None:
                    self._expired_files.add(entry.file)
                    return int(expired[1])
                tries += 1
                if error.retry_after_s is None or tries >= TRIES_MAX:
                    raise
            else:
                return 0

    def _lacking(self, entry: Entry) -> dict[str, int]:
        """Field → how many of its values in the backup the server does not hold."""
        query = (
            f"SELECT count(*) FROM {source(Level(entry.policy, 0, 0, 1), entry.measurement)}"  # noqa: S608  # escaped
            f" WHERE time >= {entry.from_ms}ms AND time < {entry.until_ms}ms"
        )
        series = self._http.query(query, database=self._database)
        row = dict(zip(series[0]["columns"], series[0]["values"][0], strict=True)) if series else {}
        lacking = {name: count - int(row.get(f"count_{name}") or 0) for name, count in entry.values.items()}
        return {name: count for name, count in lacking.items() if count > 0}


def _bodies(file: IO[bytes]) -> Iterator[list[bytes]]:
    while body := list(islice(file, LINES_MAX)):
        yield body
