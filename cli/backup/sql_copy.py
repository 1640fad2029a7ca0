"""Copies of the database while it is in use: SQLite by its own online backup, PostgreSQL as rows of one snapshot.

Rows are msgpack, a file per table: a map with the columns first, then one array per row. They are the same for both
databases, so an installation on SQLite moves to PostgreSQL (profile core → full) by a backup and a restore.
"""

import gzip
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.backup.archive import BackupError, sync_folder

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from cloud.adapters.sql.database import SqlDatabase

SQLITE_MEMBER: Final = "sql/state.db.gz"
ROWS_FOLDER: Final = "sql/rows"
ROWS_AT_ONCE: Final = 2_000
VERSION_TABLE: Final = "alembic_version"
_LEVEL: Final = 3


def copy_sqlite(source: Path, scratch: Path) -> tuple[dict[str, Path], dict[str, int], str]:
    """Members, rows per table, and the revision; `source` may be written meanwhile. Raises BackupError."""
    copied, packed = scratch / "state.db", scratch / "state.db.gz"
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(copied)) as copy,
        ):
            live.backup(copy)  # at once: in steps, each commit of the cloud between two would begin it anew
            copy.execute("PRAGMA journal_mode=DELETE")
            tables, revision = _look(copy)
    except sqlite3.Error as error:
        raise BackupError(f"{source} can't be copied: {error}; fleet doctor says more") from None
    with copied.open("rb") as plain, gzip.open(packed, "wb", _LEVEL) as target:
        shutil.copyfileobj(plain, target, 1 << 20)
    copied.unlink()
    return {SQLITE_MEMBER: packed}, tables, revision


def copy_series(source: Path, scratch: Path) -> dict[str, Path]:
    """The embedded series, the same way."""
    copied, packed = scratch / "series.db", scratch / "series.db.gz"
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(copied)) as copy,
        ):
            live.backup(copy)
    except sqlite3.Error as error:
        raise BackupError(f"{source} can't be copied: {error}; fleet doctor says more") from None
    with copied.open("rb") as plain, gzip.open(packed, "wb", _LEVEL) as target:
        shutil.copyfileobj(plain, target, 1 << 20)
    copied.unlink()
    return {"sql/series.db.gz": packed}


def _look(connection: sqlite3.Connection) -> tuple[dict[str, int], str]:
    (sound,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if sound != "ok":
        what = " ".join(str(sound).split())[:200]
        raise BackupError(f"the database is damaged: {what}; stop the cloud and restore an older backup")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    tables = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in names.fetchall()}  # noqa: S608
    if VERSION_TABLE not in tables:
        raise BackupError("this is no database of ours: it has no schema version")
    (revision,) = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
    del tables[VERSION_TABLE]
    return tables, revision


def copy_rows(database: "SqlDatabase", scratch: Path) -> tuple[dict[str, Path], dict[str, int], str]:
    """The same from PostgreSQL: every table as it was at one moment (REPEATABLE READ)."""
    from cloud.adapters.sql.schema import revision_of

    members: dict[str, Path] = {}
    counts: dict[str, int] = {}

    def copy(tx: "Connection") -> str:
        revision = revision_of(tx)
        if not revision:
            raise BackupError("this is no database of ours: it has no schema version")
        for table in _tables(tx):
            name = str(table.name)  # reserved words are a class of their own in SQLAlchemy
            path = scratch / f"{name}.msgpack.gz"
            counts[name] = _write_rows(tx, table, path)
            members[f"{ROWS_FOLDER}/{name}.msgpack.gz"] = path
        return revision

    return members, counts, database.read_here(copy)


def _tables(tx: "Connection") -> "list[Table]":
    """As they are in this database, those that others refer to first."""
    from sqlalchemy import MetaData

    found = MetaData()
    found.reflect(tx)
    return [table for table in found.sorted_tables if table.name != VERSION_TABLE]


def _write_rows(tx: "Connection", table: "Table", path: Path) -> int:
    import msgspec
    from sqlalchemy import select

    encode, count = msgspec.msgpack.Encoder().encode, 0
    rows = tx.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table).order_by(*table.primary_key.columns))
    with gzip.open(path, "wb", _LEVEL) as file:
        _write_item(file, encode({"table": str(table.name), "columns": [str(column.name) for column in table.columns]}))
        for part in rows.partitions():
            count += len(part)
            _write_item(file, encode([tuple(row) for row in part]))
    return count


def _write_item(file: Any, item: bytes) -> None:
    file.write(len(item).to_bytes(8, "big") + item)


def _items(path: Path) -> Iterator[Any]:
    import msgspec

    decode = msgspec.msgpack.Decoder().decode
    with gzip.open(path, "rb") as file:
        while head := file.read(8):
            yield decode(file.read(int.from_bytes(head, "big")))


# --- back ----------------------------------------------------------------------------------------------------------


def check_copy(folder: Path, tables: Mapping[str, int]) -> None:
    """Read the copied database through and count. Raises BackupError."""
    packed = folder / SQLITE_MEMBER
    try:
        if packed.exists():
            plain = unpack_file(packed, folder / "checked.db")
            with closing(sqlite3.connect(plain)) as connection:
                found, _ = _look(connection)
            plain.unlink()
        else:
            found = {name: sum(map(len, rows)) for name, _, rows in _stored_tables(folder, tables)}
    except (OSError, EOFError, sqlite3.Error) as error:
        raise BackupError(f"the copy of the database can't be read: {error}") from None
    wrong = [name for name, count in tables.items() if found.get(name) != count]
    if wrong:
        raise BackupError(f"the copy of the database lacks rows of {', '.join(sorted(wrong))}")


def _stored_tables(folder: Path, tables: Mapping[str, int]) -> Iterator[tuple[str, list[str], Iterator[list[Any]]]]:
    for name in tables:
        items = _items(folder / ROWS_FOLDER / f"{name}.msgpack.gz")
        yield name, next(items)["columns"], items


def put_back(folder: Path, tables: Mapping[str, int], revision: str, target_url: str, stamp: str) -> None:
    """Fill an empty database; afterwards it has the schema of this release. Raises BackupError.

    Whatever ends this, the target is as empty as it was or complete: SQLite is built in `folder` and renamed into its
    place, PostgreSQL gets schema, rows and `stamp` in one transaction.
    """
    from cloud.adapters.sql.database import SqlDatabase
    from cloud.adapters.sql.migrate import upgrade

    packed, built = folder / SQLITE_MEMBER, folder / "state.db"
    is_sqlite = target_url.startswith("sqlite")
    if packed.exists():
        unpack_file(packed, built)
        upgrade(f"sqlite:///{built}")
        if not is_sqlite:
            source = SqlDatabase(f"sqlite:///{built}")
            try:
                source.read_here(
                    lambda old: _build(target_url, "head", lambda: _live_tables(old, tables), tables, stamp)
                )
            finally:
                source.close()
    else:
        url = f"sqlite:///{built}" if is_sqlite else target_url
        _build(url, revision, lambda: _stored_tables(folder, tables), tables, stamp)
    if is_sqlite:
        into_place(built, Path(target_url.removeprefix("sqlite:///")))


def _build(
    url: str,
    revision: str,
    stored: Callable[[], Iterator[tuple[str, list[str], Iterator[list[Any]]]]],
    tables: Mapping[str, int],
    stamp: str,
) -> None:
    """Schema of then, rows, schema of now; in one transaction."""
    from cloud.adapters.sql.database import SqlDatabase
    from cloud.adapters.sql.migrate import upgrade_within

    database = SqlDatabase(url)
    try:
        with database.schema_change() as tx:
            upgrade_within(tx, revision)
            with _without_triggers(tx, tables):
                _fill(tx, stored(), tables)
            upgrade_within(tx)
            if not database.is_sqlite:
                words = stamp.replace("'", "''").replace("%", "%%")
                tx.exec_driver_sql(f"COMMENT ON TABLE {VERSION_TABLE} IS '{words}'")
    finally:
        database.close()


def stamp_of(tx: "Connection") -> str:
    """What `put_back` left in a PostgreSQL; empty where it was filled in another way."""
    return str(tx.exec_driver_sql(f"SELECT obj_description(to_regclass('{VERSION_TABLE}'))").scalar() or "")


@contextmanager
def _without_triggers(tx: "Connection", tables: Mapping[str, int]) -> Iterator[None]:
    """What triggers wrote once is among the rows that come back: it is not to be written a second time."""
    if tx.dialect.name == "postgresql":
        for name in tables:
            tx.exec_driver_sql(f'ALTER TABLE "{name}" DISABLE TRIGGER USER')
        yield
        for name in tables:
            tx.exec_driver_sql(f'ALTER TABLE "{name}" ENABLE TRIGGER USER')
        return
    found = tx.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in found:
        tx.exec_driver_sql(f'DROP TRIGGER "{name}"')
    yield
    for _, statement in found:
        tx.exec_driver_sql(statement)


def _live_tables(tx: "Connection", tables: Mapping[str, int]) -> Iterator[tuple[str, list[str], Iterator[list[Any]]]]:
    from sqlalchemy import select

    for table in _tables(tx):
        if table.name in tables:
            rows = tx.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table))
            yield (
                table.name,
                [column.name for column in table.columns],
                ([*map(tuple, part)] for part in rows.partitions()),
            )


def _fill(
    tx: "Connection", stored: Iterator[tuple[str, list[str], Iterator[list[Any]]]], counts: Mapping[str, int]
) -> None:
    """Into empty tables, those first that others refer to; then every counter goes on after its highest number."""
    from sqlalchemy import func, insert, select, text

    places = _tables(tx)
    order = {table.name: table for table in places}
    missing = sorted(set(counts) - set(order))
    if missing:
        raise BackupError(f"this release has no table {', '.join(missing)}")
    by_name = {name: (columns, rows) for name, columns, rows in stored}
    for table in places:
        if table.name not in by_name:
            continue
        columns, rows = by_name[table.name]
        for part in rows:
            if part:
                tx.execute(insert(table), [dict(zip(columns, row, strict=True)) for row in part])
        found = tx.scalar(select(func.count()).select_from(table))
        if found != counts[table.name]:
            raise BackupError(f"{table.name}: {found} rows arrived of {counts[table.name]}")
        if tx.dialect.name == "postgresql":
            for column in table.primary_key.columns:
                sequence = tx.scalar(
                    text("SELECT pg_get_serial_sequence(:t, :c)"), {"t": f'"{table.name}"', "c": column.name}
                )
                if sequence:
                    highest = select(func.coalesce(func.max(column), 0) + 1)
                    tx.execute(text("SELECT setval(:s, :n, false)"), {"s": sequence, "n": tx.scalar(highest)})


def unpack_file(packed: Path, target: Path) -> Path:
    """Unzip to `target`, durably; readable by us alone."""
    target.touch(0o600)
    with gzip.open(packed, "rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    return target


def into_place(file: Path, target: Path) -> None:
    """Move a whole SQLite database to where it is used, durably. There is none yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    for rest in ("-wal", "-shm"):  # of a database that was moved away: they are not this one's
        target.with_name(target.name + rest).unlink(missing_ok=True)
    beside = target.with_name(f".{target.name}.restored")
    beside.touch(0o600)
    with file.open("rb") as source, beside.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    beside.replace(target)
    sync_folder(target.parent)
