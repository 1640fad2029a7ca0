"""Brings a database to the schema of this release, with the revisions in `migrations/`.

A change of `cloud/tables` needs a revision; a test tells so. Make one with
`python -m cloud.adapters.sql.migrate "<what changed>"`, then read and correct it.
"""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from cloud.adapters.sql.database import SqlDatabase
from cloud.tables import append_only_statements

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER: Final = Path(__file__).parent / "migrations"
VERSION_TABLE: Final = "alembic_version"
_POSTGRESQL_LOCK: Final = 7_361_200_418  # any number that nobody else uses


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply what is missing, in one transaction; without anything missing it does nothing.

    Several processes may start it at once: they wait for each other.
    """
    database = SqlDatabase(database_url)
    try:
        with database.schema_change() as tx:
            upgrade_within(tx, revision)
    finally:
        database.close()


def upgrade_within(tx: Connection, revision: str = "head") -> None:
    """The same within a transaction of `schema_change` that does more: all of it is there afterwards, or nothing."""
    if tx.dialect.name == "postgresql":
        tx.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _POSTGRESQL_LOCK})
    if revision != "head" or not _stands_at_the_newest(tx):
        from alembic import command  # noqa: PLC0415  # 7 MB that only a start after an upgrade shall pay

        command.upgrade(_config(tx), revision)
    for statement in append_only_statements(tx.dialect.name):  # triggers: made again is made the same
        tx.exec_driver_sql(statement)


def _stands_at_the_newest(tx: Connection) -> bool:
    newest = max(path.name.partition("_")[0] for path in (FOLDER / "versions").glob("[0-9]*_*.py"))
    if not inspect(tx).has_table(VERSION_TABLE):
        return False
    return tx.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all() == [newest]  # noqa: S608


def revise(message: str, revision: str | None = None) -> None:
    """Write the revision that leads from the newest one to `cloud.tables`."""
    from alembic import command  # noqa: PLC0415  # as above

    with tempfile.TemporaryDirectory() as folder:
        database = SqlDatabase(f"sqlite:///{Path(folder) / 'empty.db'}")
        try:
            database.write_here(lambda tx: command.upgrade(_config(tx), "head"))
            database.write_here(
                lambda tx: command.revision(_config(tx), message=message, autogenerate=True, rev_id=revision)
            )
        finally:
            database.close()


def _config(tx: Connection) -> "Config":
    from alembic.config import Config  # noqa: PLC0415  # as above

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    return config


if __name__ == "__main__":
    revise(*sys.argv[1:3])
