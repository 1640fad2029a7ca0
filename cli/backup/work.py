"""What goes into a backup of an installation, and where it goes when it is put back."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.backup import sql_copy
from cli.backup.archive import BackupError, Contents, Manifest, scratch_folder, sync_folder, unpack, write
from cli.backup.series import copy_influxdb, put_back_influxdb, refuse_unready
from cloud.data_directory import UNFINISHED_RESTORE

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

PKI_FOLDERS: Final = ("online", "trust", "crl", "issued")
"""Never `offline`: the roots' keys are carried away, and a backup is copied to many places."""
OFFLINE: Final = "pki/offline: the roots' keys are never in a backup; keep their two media"
ROLES: Final = ("ingest", "dispatch", "api")


def make(settings: "CloudSettings", directory: Path, key: bytes | None, *, series: bool, now_ms: int) -> dict[str, Any]:
    """Make one and read it back; what `--json` prints. Raises BackupError."""
    began_s = time.monotonic()
    try:
        with scratch_folder(directory) as scratch:
            contents = Contents(scratch)
            dialect, tables, schema = _copy_database(settings, contents)
            if series and (settings.data_directory / "series.db").exists():
                contents.files |= sql_copy.copy_series(settings.data_directory / "series.db", scratch)
            if series and settings.series == "influxdb":
                contents.files |= copy_influxdb(settings, scratch, now_ms)
            contents.files |= {f"files/{name}": path for name, path in _files(settings)}
            kept, secret = _variables()
            contents.add_text("settings.json", json.dumps(kept, ensure_ascii=False, indent=2, sort_keys=True))
            manifest = Manifest(
                made_at_ms=now_ms, release=_release(), dialect=dialect, schema=schema, tables=tables,
                left_out=(*(f"{name}: a secret, set it where it was" for name in secret),
                          *([OFFLINE] if settings.pki_directory is not None else [])),
            )  # fmt: skip
            path = write(directory, contents, manifest, key, lambda made: check(made, key))
    except OSError as error:
        raise BackupError(f"{error.filename or directory}: {error.strerror}; name a folder with room") from None
    return {
        "file": str(path), "bytes": path.stat().st_size, "rows": sum(tables.values()), "schema": schema,
        "seconds": round(time.monotonic() - began_s, 2),
    }  # fmt: skip


def check(path: Path, key: bytes | None) -> Manifest:
    """Read everything. Raises BackupError."""
    with _beside(path) as folder:
        manifest = unpack(path, folder, key)
        sql_copy.check_copy(folder, manifest.tables)
    return manifest


def put_back(settings: "CloudSettings", path: Path, key: bytes | None) -> dict[str, Any]:
    """Fill a fresh installation. Raises BackupError, before anything was changed where it can be known before.

    The database comes last, as a whole or not at all, and no process of ours starts in the data directory before it is
    there: what was interrupted is finished by running it again.
    """
    from cloud.adapters.sql.schema import head, is_known

    with _beside(path) as folder:
        manifest = unpack(path, folder, key)
        if not is_known(manifest.schema):
            raise BackupError(
                f"{path.name} has schema {manifest.schema}, this release knows up to {head()}: install release "
                f"{manifest.release} or newer, then restore"
            )
        sql_copy.check_copy(folder, manifest.tables)
        targets = list(_targets(settings, folder))
        unfinished = settings.data_directory / UNFINISHED_RESTORE
        goes_on = unfinished.exists() and unfinished.read_text().strip() == path.name
        refuse_unready(settings, folder)
        stamp = f"restored from {path.name}"
        is_there = _refuse_what_is_there(settings, targets, stamp if goes_on else "")
        with _nobody_else(settings.data_directory):
            with unfinished.open("w") as file:
                file.write(f"{path.name}\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(settings.data_directory)
            for source, target in targets:
                _place(source, target)
            _place_series(settings, folder)
            lines = put_back_influxdb(settings, folder)
            if not is_there:
                sql_copy.put_back(folder, manifest.tables, manifest.schema, settings.sql_url(), stamp)
            unfinished.unlink()
            sync_folder(settings.data_directory)
    return {
        "file": str(path), "schema": head(), "rows": sum(manifest.tables.values()),
        "files": [str(target) for _, target in targets], "series_lines": lines, "left_out": list(manifest.left_out),
    }  # fmt: skip


# --- what there is -------------------------------------------------------------------------------------------------


def _copy_database(settings: "CloudSettings", contents: Contents) -> tuple[str, dict[str, int], str]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    from cloud.adapters.sql.database import SqlDatabase

    try:
        url = make_url(settings.sql_url())
        if url.get_backend_name() == "sqlite":
            file = Path(url.database or "")
            if not file.exists():
                raise BackupError(f"no database at {file}: name its folder with --data-directory")
            members, tables, schema = sql_copy.copy_sqlite(file, contents.scratch)
            contents.files |= members
            return "sqlite", tables, schema
        database = SqlDatabase(settings.sql_url())
        try:
            members, tables, schema = sql_copy.copy_rows(database, contents.scratch)
        finally:
            database.close()
    except BackupError:
        raise
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError):  # their texts may repeat the password
        raise BackupError("FLEET_DATABASE_URL is no URL of a database; see fleet doctor") from None
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())[:200]
        raise BackupError(f"the database does not answer: {reason}; see fleet doctor") from None
    contents.files |= members
    return "postgresql", tables, schema


def _files(settings: "CloudSettings") -> Iterator[tuple[str, Path]]:
    """Name below `files/` → path, of everything that is there."""
    for name, path in _single_files(settings).items():
        if path.is_file():
            yield name, path
    for file in sorted((settings.data_directory / "photos").rglob("*")):
        if file.is_file():
            yield f"photos/{file.relative_to(settings.data_directory / 'photos').as_posix()}", file
    if settings.pki_directory is not None:
        for part in PKI_FOLDERS:
            for file in sorted((settings.pki_directory / part).rglob("*")):
                if file.is_file() and not file.name.startswith("."):
                    yield f"pki/{file.relative_to(settings.pki_directory).as_posix()}", file


def _single_files(settings: "CloudSettings") -> dict[str, Path]:
    data = settings.data_directory
    return {
        "command.key": settings.command_key_file or data / "command.key",
        "push.key": settings.web_push_key_file or data / "push.key",
    }


def _variables() -> tuple[dict[str, str], list[str]]:
    """FLEET_ variables that are no secrets, and the names of those that are."""
    from cli.settings_errors import SECRET_KEYS, variable_of

    secret = {variable_of(key) for key in SECRET_KEYS}
    ours = {name: value for name, value in os.environ.items() if name.startswith("FLEET_")}
    return {name: value for name, value in ours.items() if name not in secret}, sorted(secret & set(ours))


def _release() -> str:
    try:
        return metadata.version("gaoxin-fleet")
    except metadata.PackageNotFoundError:
        return "not installed"


# --- where it goes -------------------------------------------------------------------------------------------------


def _targets(settings: "CloudSettings", folder: Path) -> Iterator[tuple[Path, Path]]:
    files, data = folder / "files", settings.data_directory
    pki = settings.pki_directory or data / "pki"
    single = _single_files(settings)
    for source in sorted(files.rglob("*")):
        if not source.is_file():
            continue
        name = source.relative_to(files).as_posix()
        if name in single:
            yield source, single[name]
        else:
            first, _, rest = name.partition("/")
            yield source, pki / rest if first == "pki" else data / name


def _refuse_what_is_there(settings: "CloudSettings", targets: list[tuple[Path, Path]], stamp: str) -> bool:
    """Raises BackupError; True if this very restore was interrupted after it had put the whole database back.

    `stamp`: how it shows in PostgreSQL, whose tables others may have made meanwhile; empty: it was not interrupted.
    """
    from sqlalchemy import inspect
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    from cloud.adapters.sql.database import SqlDatabase

    for source, target in targets:
        if target.exists() and (not target.is_file() or target.read_bytes() != source.read_bytes()):
            raise BackupError(f"{target} is there already and is another one: restore into an empty installation")
    if not settings.database_url:
        file = settings.data_directory / "state.db"
        if file.exists() and not stamp:
            raise BackupError(f"{file} is there already: move it away, or name an empty --data-directory")
        return file.exists()
    try:
        database = SqlDatabase(settings.sql_url())
        try:
            tables = database.read_here(lambda tx: inspect(tx).get_table_names())
            is_ours = bool(stamp) and stamp == database.read_here(sql_copy.stamp_of)
        finally:
            database.close()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError):
        raise BackupError("FLEET_DATABASE_URL is no URL of a database; see fleet doctor") from None
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())[:200]
        raise BackupError(f"the database does not answer: {reason}; make an empty one and start it") from None
    if tables and not is_ours:
        raise BackupError("the database of FLEET_DATABASE_URL has tables already: make an empty one (createdb)")
    return bool(tables)


@contextlib.contextmanager
def _nobody_else(directory: Path) -> Iterator[None]:
    """While no process of ours runs in the data directory. Raises BackupError."""
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for role in ROLES:
            file = stack.enter_context((directory / f"{role}.lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BackupError(f"a process with the role {role} uses {directory}: stop it first") from None
        yield


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = target.with_name(f".{target.name}.restored")
    with source.open("rb") as file, beside.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    public = target.suffix == ".pem" and "issued" not in target.parts
    beside.chmod(0o644 if public else 0o600)
    beside.replace(target)
    sync_folder(target.parent)


def _place_series(settings: "CloudSettings", folder: Path) -> None:
    packed = folder / "sql/series.db.gz"
    if packed.exists() and not (settings.data_directory / "series.db").exists():
        sql_copy.into_place(sql_copy.unpack_file(packed, folder / "series.db"), settings.data_directory / "series.db")


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A scratch folder; where the archive can't be written beside, the machine's own."""
    directory = path.parent if os.access(path.parent, os.W_OK) else Path(tempfile.gettempdir())
    with scratch_folder(directory) as folder:
        yield folder
