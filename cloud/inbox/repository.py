"""Notices in SQL, for reading; their only writer is the inbox's channel, for the outbox."""

from typing import Any

from sqlalchemy import Connection, Row, select

from cloud.tables import inbox


def notices(tx: Connection, before: int | None, limit: int) -> list[Row[Any]]:
    """Newest first: in the opposite order of their arrival, which their ids stand for."""
    statement = select(inbox)
    if before is not None:
        statement = statement.where(inbox.c.id < before)
    return list(tx.execute(statement.order_by(inbox.c.id.desc()).limit(limit)))
