"""`fleet notifications`: contact points an admin vouches for, the log, and a test of somebody's channels."""

import json

import pytest
from cli_support import fleet, one_line
from sqlalchemy import insert, select

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import audit, delivery_attempt, outbox, person


@pytest.fixture
def data(tmp_path):
    upgrade(f"sqlite:///{tmp_path / 'state.db'}")
    values = {"id": "p1", "login": "wang", "name": "Wang", "role": "crew", "password_hash": "", "created_at": 1}
    run(tmp_path, lambda tx: tx.execute(insert(person).values(**values)))
    return "--data-directory", tmp_path


def run(folder, work):
    database = SqlDatabase(f"sqlite:///{folder / 'state.db'}")
    try:
        return database.write_here(work)
    finally:
        database.close()


def add(data, *arguments, **environment):
    return fleet("notifications", "contacts", "add", *arguments, *data, **environment)


def test_contacts_are_added_listed_and_removed(data):
    made = add(data, "wang", "chat", "wecombot://0123456789abcdef", "--json")
    assert made.exit_code == 0, made.output
    contact = json.loads(made.stdout)
    assert contact["verified_at"] is not None
    assert run(data[1], lambda tx: tx.execute(select(outbox)).all()) == [], "nobody is sent a code"
    listed = fleet("notifications", "contacts", "list", "wang", "--json", *data)
    assert [one["id"] for one in json.loads(listed.stdout)] == [contact["id"]]
    assert "0123456789" not in listed.stdout
    assert json.loads(fleet("notifications", "contacts", "list", "--failing", "--json", *data).stdout) == []
    removed = fleet("notifications", "contacts", "remove", contact["id"], "--json", *data)
    assert json.loads(removed.stdout) == {"id": contact["id"], "removed": True}
    lines = run(data[1], lambda tx: tx.execute(select(audit.c.actor, audit.c.action)).all())
    assert [tuple(line) for line in lines] == [("command-line", "contact.add"), ("command-line", "contact.remove")]


def test_mistakes_are_one_line_with_the_fix(data):
    for result, exit_code, said in (
        (add(data, "nobody", "chat", "wecombot://x"), 1, "there is no person"),
        (add(data, "wang", "pigeon", "x"), 2, "one of push, chat"),
        (add(data, "wang", "sms", "13800000000"), 1, "no channel 'sms'"),
        (add(data, "wang", "chat", "json://127.0.0.1"), 2, "begins with wecombot://"),
        (fleet("notifications", "test", "wang", *data), 1, "no such contact point"),
        (fleet("notifications", "list", "--outcome", "lost", *data), 2, "one of delivered"),
    ):
        assert (result.exit_code, said in one_line(result)) == (exit_code, True), result.output


def test_the_log_and_a_test_that_nobody_delivers(data):
    line = {
        "at": 1, "delivery_id": "d", "reference": "call-1", "kind_of": "call", "channel": "sms", "recipient": "p1",
        "contact_id": "c", "attempt": 1, "urgent": 1, "outcome": "failed", "duration_ms": 4, "error": "HTTP 500",
    }  # fmt: skip
    run(data[1], lambda tx: tx.execute(insert(delivery_attempt).values(**line)))
    listed = fleet("notifications", "list", "--person", "wang", "--reference", "call-1", "--json", *data)
    (found,) = json.loads(listed.stdout)
    assert (found["recipient_name"], found["error"]) == ("Wang", "HTTP 500")
    assert json.loads(fleet("notifications", "list", "--outcome", "delivered", "--json", *data).stdout) == []
    add(data, "wang", "chat", "wecombot://0123456789abcdef")
    tested = fleet("notifications", "test", "wang", "--wait-s", "0", "--json", *data)
    assert tested.exit_code == 1
    (outcome,) = json.loads(tested.stdout)
    assert (outcome["channel"], outcome["outcome"]) == ("chat", "waiting")
    (row,) = run(data[1], lambda tx: tx.execute(select(outbox)).all())
    assert row.delivery_id == outcome["delivery_id"]
