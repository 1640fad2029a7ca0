"""Alembic revisions: how the schema came to be what `cloud.tables` says."""
