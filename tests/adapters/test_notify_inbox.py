"""The web inbox on both databases."""

import pytest

from cloud.adapters.notify.inbox import InboxChannel
from cloud.api.changes import Changes
from cloud.dispatch.notices import decode
from cloud.model import Notification
from cloud.tables import inbox
from tests.unit.dispatch_cases import NOW, rows

pytest_plugins = ("tests.adapters.postgres_fixture",)

NOTIFICATION = Notification("alarm", "alarm-1", "high", "bike-001", "报警", "Alarm", {"key": "silent"}, NOW)


async def test_it_keeps_a_notification_once_and_tells_open_pages_once(database):
    changes = Changes()
    channel = InboxChannel(database, changes)
    with changes.subscribe() as subscription:
        for _ in range(3):
            await channel.send(NOTIFICATION, delivery_id="d1")
        (told,) = subscription.pending.values()
    (row,) = await database.read(lambda tx: rows(tx, inbox))
    assert decode(row["notification"]) == NOTIFICATION
    assert (row["delivery_id"], row["created_at"]) == ("d1", NOW)
    assert told.topic == "inbox"
    assert (told.facts["id"], told.facts["title_zh"], told.facts["reference"]) == (str(row["id"]), "报警", "alarm-1")


async def test_a_database_that_fails_is_no_delivery_and_tells_nobody():
    changes = Changes()

    class Broken:
        async def write(self, _work):
            raise OSError("disk full")

    with changes.subscribe() as subscription:
        with pytest.raises(OSError, match="disk full"):
            await InboxChannel(Broken(), changes).send(NOTIFICATION, delivery_id="d1")
        assert not subscription.pending
