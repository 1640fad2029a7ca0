"""The web inbox: what people on duty are told in the application itself."""

from typing import Final

import msgspec
from sqlalchemy import Connection

from cloud.api.changes import Changes
from cloud.dispatch.notices import INBOX, encode
from cloud.dispatch.rows import insert_new
from cloud.model import Notification
from cloud.ports import Database
from cloud.tables import inbox

TOPIC: Final = "inbox"


class InboxChannel:
    """Keeps a notification in SQL, then tells open pages. A repeat is dropped by its delivery id."""

    name = INBOX

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """Store it; raises what the database raises."""
        row = {
            "delivery_id": delivery_id,
            "notification": encode(notification),
            "created_at": notification.created_at,
        }

        def store(tx: Connection) -> int | None:
            new = insert_new(tx, inbox, [row], [inbox.c.id])
            return int(new[0].id) if new else None

        identifier = await self._database.write(store)
        if identifier is not None:
            facts = {"id": str(identifier), "delivery_id": delivery_id, **msgspec.to_builtins(notification)}
            self._changes.publish(TOPIC, facts)
