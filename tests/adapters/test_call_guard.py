"""The lock that the database itself keeps on open calls, on the schema that the migrations make."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.dispatch.planner import Dispatch
from cloud.tables import call, call_transition
from fleet.incident import CallEvent, CallState
from tests.unit.dispatch_cases import NOW, call_change, decided, press, rows

pytest_plugins = ("tests.adapters.postgres_fixture",)

FORGED = (
    "INSERT INTO call_transition (call_id, step, before, after, at, received_at, actor, event_id) VALUES "
    "('call-1', 'clear_at_origin', 'calling', 'cleared', 1, 1, 'an-admin', 'x')"
)


@pytest.fixture
def migrated(empty_database_url):
    upgrade(empty_database_url)
    database = SqlDatabase(empty_database_url)
    database.write_here(lambda tx: Dispatch().plan(tx, decided(press()), NOW))
    yield database
    database.close()


@pytest.mark.parametrize(
    ("statements", "error"),
    [
        (["UPDATE call SET state = 'cleared'"], "cleared only at its origin"),
        (["UPDATE call SET state = 'cleared', id = 'another'"], "cleared only at its origin"),
        (["UPDATE call SET state = 'acknowledged'", "UPDATE call SET state = 'cleared'"], "cleared only at its origin"),
        ([FORGED, "UPDATE call SET state = 'cleared'"], "cleared only at its origin"),
        (["DELETE FROM call"], "open call cannot be deleted"),
        (["DELETE FROM call WHERE id = 'call-1'"], "open call cannot be deleted"),
    ],
    ids=["clear", "clear and rename", "after an acknowledgement", "with a person's transition", "delete", "delete one"],
)
def test_an_open_call_is_neither_cleared_nor_deleted_by_a_statement(migrated, statements, error):
    def work(tx):
        for statement in statements:
            tx.execute(text(statement))

    with pytest.raises(DBAPIError, match=error):
        migrated.write_here(work)
    assert [row["state"] for row in migrated.read_here(lambda tx: rows(tx, call))] == ["calling"]


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_table_with_an_open_call_is_not_emptied(migrated):
    with pytest.raises(DBAPIError, match="open call cannot be deleted"):
        migrated.write_here(lambda tx: tx.execute(text("TRUNCATE call CASCADE")))
    assert len(migrated.read_here(lambda tx: rows(tx, call))) == 1


def test_the_rooms_own_key_ends_it_and_then_it_may_be_deleted(migrated):
    cleared = call_change(CallEvent.CLEAR_AT_ORIGIN, CallState.CALLING, at=NOW + 1, press=2)
    migrated.write_here(lambda tx: Dispatch().plan(tx, decided(cleared), NOW + 1))
    assert [row["state"] for row in migrated.read_here(lambda tx: rows(tx, call))] == ["cleared"]
    migrated.write_here(lambda tx: tx.execute(call_transition.delete()))
    assert migrated.write_here(lambda tx: tx.execute(call.delete()).rowcount) == 1
