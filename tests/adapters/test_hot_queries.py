"""The statements that run all the time, as the code itself sends them, explained by both databases on tables of a year.

None of them may read a large table from its beginning to its end: what grows with time must not slow down what is now.
"""

import re
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from sqlalchemy import event, insert, text

from cloud import watch
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.alarms import repository as alarm_rows
from cloud.calls import repository as call_rows
from cloud.device_commands import repository as command_rows
from cloud.dispatch import leases
from cloud.history.steps import SOURCES
from cloud.tables import alarm, alarm_transition, call, command, outbox
from tests.adapters.postgres_fixture import postgresql_server  # noqa: F401

NOW_MS = 1_763_700_000_000
ROWS = 8_000
WAITING = 20
AT_ONCE = 2_000
MOMENT = leases.Moment(NOW_MS, NOW_MS, 3_600_000, 60_000)
LARGE = {"outbox", "alarm", "alarm_transition", "call", "command"}


def old(number):
    return NOW_MS - (ROWS - number) * 60_000


def rows_of(table):
    """A year of what is over, and a few that are not."""
    for number in range(ROWS):
        over = number < ROWS - WAITING
        at = old(number)
        common = {"id": f"{number:08}"}
        yield {
            "outbox": {"id": number + 1, "delivery_id": f"d{number}", "channel": "webhook", "reference": f"r{number}",
                       "notification": "{}", "urgent": number % 3, "created_at": at, "available_at": at,
                       "delivered_at": at if over else None},
            "alarm": {**common, "device_id": f"room-{number % 190:03}", "kind": "nursing_room", "key": "silent",
                      "priority": "high", "state": "normal" if over else "unacknowledged", "activated_at": at,
                      "changed_at": at},
            "alarm_transition": {"id": number + 1, "alarm_id": f"{number:08}", "event": "rise", "before": "normal",
                                 "after": "active", "at": at, "actor": ""},
            "call": {**common, "device_id": f"room-{number % 190:03}", "state": "cleared" if over else "calling",
                     "pressed_at": at, "changed_at": at, "key": "call", "kind": "nursing_room", "priority": "emergency",
                     "opened_at": at},
            "command": {**common, "device_id": f"bike-{number % 180:03}", "kind": "bike", "action": "unlock",
                        "status": "succeeded" if over else "queued", "reason": "", "issued_at": at, "changed_at": at,
                        "not_after": at + 10_000, "actor": f"p{number % 500}", "payload": "{}", "body": "{}"},
        }[table.name]  # fmt: skip


def fill(tx, table):
    """Columns that the table has; what is missing and may not be null becomes 0 or empty."""
    rows = []
    for given in rows_of(table):
        row = {}
        for column in table.columns:
            if column.name in given:
                row[column.name] = given[column.name]
            elif not column.nullable and column.server_default is None:
                row[column.name] = "" if column.type.python_type is str else 0
        rows.append(row)
    for first in range(0, len(rows), AT_ONCE):
        tx.execute(insert(table), rows[first : first + AT_ONCE])


@contextmanager
def fresh_postgresql(address):
    with psycopg.connect(f"postgresql://fleet@{address}/postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE hot_queries")
        yield f"postgresql+psycopg://fleet@{address}/hot_queries"
        admin.execute("DROP DATABASE hot_queries WITH (FORCE)")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def old_database(request, tmp_path_factory):
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('hot') / 'state.db'}"
        else:
            url = stack.enter_context(fresh_postgresql(request.getfixturevalue("postgresql_server")))
        upgrade(url)
        database = SqlDatabase(url)
        stack.callback(database.close)
        for table in (outbox, alarm, alarm_transition, call, command):
            database.write_here(lambda tx, table=table: fill(tx, table))
        if not database.is_sqlite:  # which gathers statistics by itself; a SQLite of ours never has any
            database.write_here(lambda tx: tx.execute(text("ANALYZE")))
        yield database


def hot():
    source = next(one for one in SOURCES if one.name == "alarm_transition")
    return {
        "the outbox takes what is due": lambda tx: leases.lease(
            tx, MOMENT, urgent=0, room={"webhook": 8}, token="t", until_ms=NOW_MS + 1
        ),
        "the outbox asks what is next": lambda tx: leases.next_due_ms(tx, MOMENT, urgent=1, channels=["webhook"]),
        "the watch counts what waits": watch._depth,
        "the desk lists open alarms": lambda tx: alarm_rows.open_alarms(tx, None, 200),
        "the list of all alarms, newest first": lambda tx: alarm_rows.alarms(
            tx, wanted={}, is_open=False, before=None, limit=100
        ),
        "the desk lists open calls": lambda tx: call_rows.open_calls(tx, None, 200),
        "queued commands are sent": lambda tx: command_rows.queued(tx, 100, lambda _: True),
        "commands of a device are counted": lambda tx: command_rows.open_count(tx, "bike-001", urgent=False),
        "overdue commands end": lambda tx: command_rows.overdue(tx, NOW_MS - 60_000, NOW_MS - 300_000),
        "the history follows": lambda tx: source.read(tx, ROWS - 30, ROWS, 500),
    }


def explained(database, work):
    """Each statement that `work` sends, with what the database plans for it."""
    sent = []

    def note(_connection, _cursor, statement, parameters, *_):
        sent.append((statement, parameters))

    event.listen(database.writer, "before_cursor_execute", note)
    try:
        database.write_here(work)
    finally:
        event.remove(database.writer, "before_cursor_execute", note)
    verb = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    for statement, parameters in sent:
        if re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)", statement):
            rows = database.write_here(lambda tx, s=statement, p=parameters: tx.exec_driver_sql(verb + s, p).fetchall())
            yield statement, [str(row[-1]) for row in rows]


def whole_tables(database, lines):
    """Large tables that a plan reads from beginning to end, in no order that ends it early."""
    pattern = r"^SCAN (\w+)(?! USING)" if database.is_sqlite else r"Seq Scan on (\w+)"
    return {found[1] for line in lines if (found := re.search(pattern, line)) and found[1] in LARGE}


@pytest.mark.parametrize("name", sorted(hot()))
def test_no_hot_query_reads_a_large_table_whole(old_database, name):
    plans = list(explained(old_database, hot()[name]))
    assert plans
    for statement, lines in plans:
        assert whole_tables(old_database, lines) == set(), (statement, lines)


def test_a_query_without_an_index_would_be_noticed(old_database):
    (plan,) = explained(old_database, lambda tx: tx.execute(text("SELECT * FROM outbox WHERE last_error = 'x'")))
    assert whole_tables(old_database, plan[1]) == {"outbox"}
