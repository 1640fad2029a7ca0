"""Migrations lead to exactly the schema of `cloud.tables`, on both databases."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from cloud.adapters.sql.migrate import upgrade
from cloud.tables import metadata

pytest_plugins = ("tests.adapters.postgres_fixture",)

VERSIONS = "alembic_version"


def described(connection: Connection) -> dict[str, object]:
    """Everything about a schema that matters, in an order of its own."""
    inspector = inspect(connection)
    tables = [name for name in inspector.get_table_names() if name != VERSIONS]
    found: dict[str, object] = {}
    for name in sorted(tables):
        found[name] = {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], str(column["default"]).strip("()"))
                for column in inspector.get_columns(name)
            ],
            "key": inspector.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted(tuple(found["column_names"]) for found in inspector.get_unique_constraints(name)),
            "checks": sorted((found["name"], found["sqltext"]) for found in inspector.get_check_constraints(name)),
            "foreign": sorted(
                (tuple(found["constrained_columns"]), found["referred_table"], tuple(found["referred_columns"]))
                for found in inspector.get_foreign_keys(name)
            ),
            "indexes": sorted(
                (
                    found["name"],
                    tuple(found["column_names"]),
                    bool(found["unique"]),
                    str(sorted((key, str(value)) for key, value in found.get("dialect_options", {}).items())),
                )
                for found in inspector.get_indexes(name)
            ),
        }
    if connection.dialect.name == "sqlite":
        strict = connection.execute(text("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'"))
        found["strict"] = sorted(tuple(row) for row in strict if row[0] in tables)
        triggers = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    else:
        triggers = connection.execute(
            text("SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal")
        )
    found["triggers"] = sorted(tuple(row) for row in triggers)
    return found


def schema_of(url: str) -> dict[str, object]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = described(connection)
    engine.dispose()
    return found


def test_migrations_equal_the_tables(empty_database_url):
    upgrade(empty_database_url)
    migrated = schema_of(empty_database_url)
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
    engine.dispose()
    made = schema_of(empty_database_url)
    assert set(migrated) == set(made)
    for name, expected in made.items():
        assert migrated[name] == expected, f"{name}: write a revision with cloud/adapters/sql/migrate.py"


def test_an_upgrade_of_an_up_to_date_database_changes_nothing(empty_database_url):
    upgrade(empty_database_url)
    before = schema_of(empty_database_url)
    upgrade(empty_database_url)
    assert schema_of(empty_database_url) == before


def test_processes_that_start_together_upgrade_once(empty_database_url):
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(upgrade, empty_database_url) for _ in range(3)]:
            done.result()
    assert "device" in schema_of(empty_database_url)


def test_a_failing_upgrade_leaves_nothing_behind(empty_database_url):
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE work_order (id TEXT)"))  # in the way of the revision
    engine.dispose()
    with pytest.raises(Exception, match="already exists"):
        upgrade(empty_database_url)
    assert list(schema_of(empty_database_url)) in (["work_order", "strict", "triggers"], ["work_order", "triggers"])


def test_revisions_are_one_line_without_branches():
    from alembic.script import ScriptDirectory

    from cloud.adapters.sql.migrate import FOLDER

    script = ScriptDirectory(str(FOLDER))
    assert len(script.get_heads()) == 1
    revisions = list(script.walk_revisions())
    assert all(Path(revision.path).is_file() for revision in revisions)
    # A start looks at the names of the files: it takes the highest for the newest.
    assert all(Path(revision.path).name.startswith(f"{revision.revision}_") for revision in revisions)
    assert script.get_current_head() == max(revision.revision for revision in revisions)


def test_a_start_without_anything_to_do_does_without_alembic(empty_database_url):
    """Which is 7 MB and a fifth of a second; a database one revision behind is brought forward all the same."""
    upgrade(empty_database_url)
    start = "from cloud.adapters.sql.migrate import *; upgrade(sys.argv[1]); print('alembic' in sys.modules)"
    again = [sys.executable, "-c", start, empty_database_url]
    assert subprocess.run(again, capture_output=True, text=True, check=True).stdout == "False\n"
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSIONS} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Exception, match="9999"):
        upgrade(empty_database_url)
