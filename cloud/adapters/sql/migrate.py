"""Brings a database to the schema of this release, with the revisions in `migrations/`.

A change of `cloud/tables` needs a revision; a test tells so. Make one with
`python -m cloud.adapters.sql.migrate "<what changed>"`, then read and correct it.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from cloud.adapters.sql.database import SqlDatabase
from cloud.tables import append_only_statements

FOLDER: Final = Path(__file__).parent / "migrations"
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
    command.upgrade(_config(tx), revision)
    for statement in append_only_statements(tx.dialect.name):  # triggers: made again is made the same
        tx.exec_driver_sql(statement)


def revise(message: str, revision: str | None = None) -> None:
    """Write the revision that leads from the newest one to `cloud.tables`."""
    with tempfile.TemporaryDirectory() as folder:
        database = SqlDatabase(f"sqlite:///{Path(folder) / 'empty.db'}")
        try:
            database.write_here(lambda tx: command.upgrade(_config(tx), "head"))
            database.write_here(
                lambda tx: command.revision(_config(tx), message=message, autogenerate=True, rev_id=revision)
            )
        finally:
            database.close()


def _config(tx: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    return config


if __name__ == "__main__":
    revise(*sys.argv[1:3])
