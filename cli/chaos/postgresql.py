"""A PostgreSQL server of our own for a round, on loopback, with what a fresh SQLite database holds copied into it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Table, select

from cli.broker import free_port
from cli.chaos.processes import ChaosError
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import metadata

BINARIES: Final = Path("/usr/lib/postgresql/15/bin")
START_S_MAX: Final = 60


def binary(name: str) -> str | None:
    """Where a program of PostgreSQL is: Debian's folder, else PATH."""
    own = BINARIES / name
    return str(own) if own.is_file() else shutil.which(name)


@contextmanager
def running_server(home: Path) -> Iterator[str]:
    """URL of an empty database; durable as in production, so that only processes of ours die. Raises ChaosError."""
    initdb, pg_ctl = binary("initdb"), binary("pg_ctl")
    if initdb is None or pg_ctl is None:
        raise ChaosError("--postgresql: it is not installed (apt-get install postgresql-15)")
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:  # both refuse to run as root
        for folder in (home, *home.parents):
            if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o111)
        shutil.chown(home, "postgres")
    data, port = home / "data", free_port()
    _run(home, initdb, "-D", str(data), "-U", "fleet", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -h 127.0.0.1 -k {home} -c max_connections=60"
    _run(home, pg_ctl, "-D", str(data), "-o", options, "-l", str(home / "log"), "-w", "-t", str(START_S_MAX), "start")
    try:
        yield f"postgresql+psycopg://fleet@127.0.0.1:{port}/postgres"
    finally:
        _run(home, pg_ctl, "-D", str(data), "-m", "immediate", "-w", "stop")


def _run(home: Path, *command: str) -> None:
    user = "postgres" if os.geteuid() == 0 else None
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=START_S_MAX, user=user, cwd=home,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise ChaosError(f"PostgreSQL could not be started: {words.strip()[-500:]}") from error


def copy_database(source_url: str, target_url: str) -> None:
    """Make the schema and copy every row; rows get new numbers where the database gives them."""
    upgrade(target_url)
    source, target = SqlDatabase(source_url), SqlDatabase(target_url)

    def read(tx: Connection) -> list[tuple[Table, list[dict[str, Any]]]]:
        return [
            (table, [_without_number(table, row) for row in tx.execute(select(table)).mappings()])
            for table in metadata.sorted_tables
        ]

    def fill(tx: Connection) -> None:
        for table, rows in found:
            tx.execute(table.delete())
            if rows:
                tx.execute(table.insert(), rows)

    try:
        found = source.read_here(read)
        target.write_here(fill)
    finally:
        source.close()
        target.close()


def _without_number(table: Table, row: RowMapping) -> dict[str, Any]:
    return {name: value for name, value in row.items() if table.c[name] is not table.autoincrement_column}
