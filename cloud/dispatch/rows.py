"""Writes that both databases understand: insert what is new, and learn what was."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Row, Table
from sqlalchemy.dialects import postgresql, sqlite

Insert = postgresql.Insert | sqlite.Insert


def insert_into(tx: Connection, table: Table) -> Insert:
    """The dialect's INSERT, which knows ON CONFLICT."""
    return postgresql.insert(table) if tx.dialect.name == "postgresql" else sqlite.insert(table)


def insert_new(
    tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]], returning: Sequence[Column[Any]]
) -> list[Row[Any]]:
    """Insert the rows that no unique constraint knows yet; returns `returning` of exactly those, in no order."""
    if not rows:
        return []
    statement = insert_into(tx, table).on_conflict_do_nothing().returning(*returning)
    return list(tx.execute(statement, rows))


def identity(*parts: object) -> str:
    """32 hexadecimal digits that the same parts always give: a repeated decision names the same row."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()
