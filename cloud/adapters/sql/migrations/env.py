"""Run by Alembic; `migrate.py` passes the connection, whose transaction it leaves to its owner."""

from alembic import context

from cloud.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
    compare_server_default=True,
)
context.run_migrations()
