"""`fleet people`: how the first admin of an installation comes to be."""

import json

import pytest
from cli_support import fleet, one_line
from pwdlib import PasswordHash
from sqlalchemy import select

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import audit, person, session

PASSWORD = "harbour-seagull-77"


@pytest.fixture
def data(tmp_path):
    upgrade(f"sqlite:///{tmp_path / 'state.db'}")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return "--data-directory", tmp_path


def add(data, login="wang", *options, name="Wang", password=None):
    file = password or data[1] / "password"
    return fleet("people", "add", login, "--name", name, "--password-file", file, *options, *data)


def rows(data, query):
    database = SqlDatabase(f"sqlite:///{data[1] / 'state.db'}")
    try:
        return database.read_here(lambda tx: tx.execute(query).all())
    finally:
        database.close()


def test_the_first_admin_can_sign_in_and_stands_in_the_audit(data):
    result = add(data, "wang", "--role", "admin", "--json")
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output
    made = json.loads(result.stdout)
    (row,) = rows(data, select(person))
    assert (row.id, row.login, row.role, row.disabled_at) == (made["id"], "wang", "admin", None)
    assert PasswordHash.recommended().verify(PASSWORD, row.password_hash)
    assert [(line.actor, line.action) for line in rows(data, select(audit))] == [("command-line", "person.create")]


def test_the_list_holds_everybody_without_secrets_and_disabling_is_visible_there(data):
    add(data, "wang", "--role", "admin")
    add(data, "li")
    assert fleet("people", "disable", "li", *data).exit_code == 0
    result = fleet("people", "list", "--json", *data)
    assert [(one["login"], one["disabled_at"] is None) for one in json.loads(result.stdout)] == [
        ("li", False), ("wang", True),
    ]  # fmt: skip
    assert "argon2" not in result.stdout
    assert rows(data, select(session)) == []


@pytest.mark.parametrize(
    ("login", "password", "exit_code", "words"),
    [
        ("Wang!", PASSWORD, 2, ["login"]),
        ("li", "short", 2, ["password", "10"]),
        ("wang", PASSWORD, 1, ["wang", "taken"]),
    ],
)
def test_what_can_not_be_added_is_told_in_one_line_without_the_password(data, login, password, exit_code, words):
    add(data)
    file = data[1] / "other"
    file.write_text(password)
    result = add(data, login, password=file)
    assert result.exit_code == exit_code
    assert all(word in one_line(result) for word in words)
    assert password not in result.output
    assert len(rows(data, select(person))) == 1


def test_without_terminal_file_or_database_it_says_what_to_do(data, tmp_path):
    asked = fleet("people", "add", "wang", "--name", "Wang", *data)
    assert asked.exit_code == 2
    assert "--password-file" in one_line(asked)
    missing = add(data, password=tmp_path / "gone")
    assert missing.exit_code == 2
    assert "gone" in one_line(missing)
    nowhere = fleet("people", "list", "--data-directory", tmp_path / "empty")
    assert nowhere.exit_code == 2
    assert "fleet serve" in one_line(nowhere)
    nobody = fleet("people", "disable", "zhao", *data)
    assert nobody.exit_code == 1
    assert "zhao" in one_line(nobody)
