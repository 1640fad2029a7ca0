"""A real PostgreSQL 15 for tests: one server per run on loopback, a fresh database per test.

    from tests.adapters.postgres_fixture import database_url, postgresql_server, postgresql_url  # noqa: F401

`database_url` runs a test on SQLite and on PostgreSQL; both are given with the schema of `cloud.tables`.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from cloud.adapters.sql.database import SqlDatabase
from cloud.tables import metadata

BINARIES = Path("/usr/lib/postgresql/15/bin")
START_S_MAX = 60


def binary(name: str) -> str | None:
    """Where a PostgreSQL program is: Debian's folder, else PATH."""
    own = BINARIES / name
    return str(own) if own.is_file() else shutil.which(name)


def free_port() -> int:
    """A port on loopback nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _as_postgres(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # initdb and postgres refuse to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    return subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        user=user,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )


@contextmanager
def running_server() -> Iterator[str]:
    """A PostgreSQL server on loopback; gives `host:port`. Raises RuntimeError where it can't be started."""
    initdb, pg_ctl = binary("initdb"), binary("pg_ctl")
    if initdb is None or pg_ctl is None:
        raise RuntimeError("PostgreSQL is not installed (apt-get install postgresql-15)")
    with tempfile.TemporaryDirectory(prefix="fleet-postgresql-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
        data, port = home / "data", free_port()
        _as_postgres(initdb, "-D", str(data), "-U", "fleet", "-A", "trust", "-E", "UTF8", "--no-sync", cwd=home)
        options = f"-p {port} -h 127.0.0.1 -k {home} -c fsync=off -c synchronous_commit=off -c max_connections=60"
        _as_postgres(
            pg_ctl,
            "-D",
            str(data),
            "-o",
            options,
            "-l",
            str(home / "log"),
            "-w",
            "-t",
            str(START_S_MAX),
            "start",
            cwd=home,
        )
        try:
            yield f"127.0.0.1:{port}"
        finally:
            _as_postgres(pg_ctl, "-D", str(data), "-m", "immediate", "-w", "stop", cwd=home)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """`host:port` of the server of this run."""
    try:
        server = running_server()
        address = server.__enter__()
    except (RuntimeError, LookupError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"PostgreSQL could not be started: {error}")
    try:
        yield address
    finally:
        server.__exit__(None, None, None)


@pytest.fixture
def postgresql_url(postgresql_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty database that is dropped after the test."""
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(f"postgresql://fleet@{postgresql_server}/postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
        try:
            yield f"postgresql+psycopg://fleet@{postgresql_server}/{name}"
        finally:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once per kind of database."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def database_url(empty_database_url: str) -> str:
    """URL of a database with the schema, once per kind of database."""
    made = SqlDatabase(empty_database_url)  # as `upgrade` does: SQLite is in WAL mode before anybody else opens it
    made.write_here(metadata.create_all)
    made.close()
    return empty_database_url


@pytest.fixture
def database(database_url: str) -> Iterator[SqlDatabase]:
    """The adapter on a database with the schema, once per kind of database."""
    opened = SqlDatabase(database_url)
    yield opened
    opened.close()
