"""kill -9 in the middle of a backup and of a restore: what was there before stays, or the new is there as a whole.

A child of this process does the work and kills itself at its n-th durable step: a file synced, a name replaced or
removed, a transaction filled in part or about to be committed. `FLEET_TEST_EVERY_STEP=1` takes every n (minutes), else
every few.
"""

import itertools
import os
import shutil
import signal
import sys
import traceback

import pytest
from sqlalchemy import event, insert, inspect, select
from sqlalchemy.engine import Engine

from cli.backup import work
from cli.backup.archive import BackupError, archives
from cli.doctor.machine import look_at_disk
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.data_directory import PlaceError, refuse_unusable
from cloud.settings import CloudSettings
from cloud.tables import device, metadata
from tests.adapters.postgres_fixture import free_port, postgresql_server, postgresql_url  # noqa: F401

NOW_MS = 1_763_700_000_000
STEPS_MAX = 400
STRIDES = (1, 1, 1) if os.environ.get("FLEET_TEST_EVERY_STEP") else (7, 11, 31)
DEVICES = 40


def settings_of(folder, url=""):
    return CloudSettings(data_directory=folder / "data", pki_directory=folder / "pki", database_url=url)


def installation(folder, url=""):
    """A small one: database, keys, certificates, a photo."""
    settings = settings_of(folder, url)
    files = ("data/command.key", "data/push.key", "data/photos/a.jpg", "pki/online/devices.key", "pki/crl/devices.pem")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * 50)
    upgrade(settings.sql_url())
    database = SqlDatabase(settings.sql_url())
    rows = [
        {"device_id": f"bike-{number:03}", "kind": "bike", "name": "单车", "enrolled_at": 1}
        for number in range(DEVICES)
    ]
    database.write_here(lambda tx: tx.execute(insert(device), [complete(device, row) for row in rows]))
    database.close()
    return settings


def complete(table, row):
    missing = (one for one in table.columns if one.name not in row and not one.nullable and one.server_default is None)
    return {**{one.name: "" if one.type.python_type is str else 0 for one in missing}, **row}


def killed_at(number, act):
    """Fork; the child does `act` and dies at its `number`-th durable step. True if it died of that."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            _count_steps(number)
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # a forked child must not run on
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _count_steps(number):
    steps = itertools.count(1)

    def step(*_):
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("fsync", "replace", "unlink", "rename"):
        before = getattr(os, name)

        def watched(*arguments, _before=before, **options):
            step()
            done = _before(*arguments, **options)
            step()
            return done

        setattr(os, name, watched)
    event.listen(Engine, "commit", step)
    statements = itertools.count(1)
    event.listen(Engine, "before_cursor_execute", lambda *_: step() if next(statements) % 60 == 0 else None)


def contents(url):
    database = SqlDatabase(url)
    try:
        return database.read_here(
            lambda tx: {
                table.name: [tuple(row) for row in tx.execute(select(table).order_by(*table.primary_key.columns))]
                for table in metadata.sorted_tables
            }
        )
    finally:
        database.close()


def tables_in(settings):
    if not settings.database_url and not (settings.data_directory / "state.db").exists():
        return []
    database = SqlDatabase(settings.sql_url())
    try:
        return database.read_here(lambda tx: inspect(tx).get_table_names())
    finally:
        database.close()


def starts(settings):
    """Whether `fleet serve` would take this data directory; where not, the doctor says why."""
    unfinished = [one for one in look_at_disk(settings) if one.check == "Restore"]
    try:
        refuse_unusable(settings.data_directory, "127.0.0.1", free_port())
    except PlaceError as error:
        return "fleet backup restore" not in str(error) or "restore" not in unfinished[0].fix
    return not unfinished


def test_a_backup_that_is_killed_leaves_those_there_are_and_no_name_that_is_not_whole(tmp_path):
    settings, place = installation(tmp_path / "home"), tmp_path / "backups"
    work.make(settings, place, None, series=False, now_ms=NOW_MS)
    left_behind = 0
    for number in range(1, STEPS_MAX, STRIDES[0]):
        made_at_ms = NOW_MS + number * 1_000

        def act(made_at_ms=made_at_ms):
            work.make(settings, place, None, series=False, now_ms=made_at_ms)

        died = killed_at(number, act)
        found = archives(place)
        assert {one.made_at_ms for one in found} <= {NOW_MS, made_at_ms}
        assert any(one.made_at_ms == NOW_MS for one in found)
        left_behind += any(one.name.startswith(".") for one in place.iterdir())
        for one in found[1:]:
            work.check(one.path, None)
            one.path.unlink()
        if not died:
            break
    assert 5 < number < STEPS_MAX - 1
    assert left_behind > 1
    assert [one.name for one in place.iterdir() if one.name.startswith(".")] == [], (
        "copies of secrets went by themselves"
    )


def assert_old_or_new(settings, expected):
    """The fresh installation it was, or everything; nothing in between can be started."""
    if tables_in(settings):
        assert contents(settings.sql_url()) == expected
        assert (settings.data_directory / "photos/a.jpg").is_file()
    elif settings.data_directory.exists() and any(settings.data_directory.glob("*.key")):
        assert not starts(settings)


def swept(settings, archive, expected, clear, every):
    """Kill the restore at every `every`-th step; each time it is finished by running it again."""
    deaths = 0
    for number in range(1, STEPS_MAX, every):
        died = killed_at(number, lambda: work.put_back(settings, archive, None))
        assert_old_or_new(settings, expected)
        if died:
            deaths += 1
            if starts(settings) and tables_in(settings):
                with pytest.raises(BackupError, match="already"):  # it had finished
                    work.put_back(settings, archive, None)
            else:
                work.put_back(settings, archive, None)
        assert contents(settings.sql_url()) == expected
        assert (settings.data_directory / "command.key").read_text() == "data/command.key" * 50
        assert (settings.pki_directory / "online/devices.key").is_file()
        assert starts(settings)
        if not died:
            return deaths
        shutil.rmtree(settings.data_directory.parent)
        clear()
    raise AssertionError("it never ended")


def test_a_restore_that_is_killed_leaves_a_fresh_installation_or_all_of_it(tmp_path):
    before = installation(tmp_path / "home")
    made = work.make(before, tmp_path / "backups", None, series=False, now_ms=NOW_MS)
    archive = tmp_path / "backups" / made["file"].rsplit("/", 1)[-1]
    fresh = settings_of(tmp_path / "fresh")
    assert swept(fresh, archive, contents(before.sql_url()), lambda: None, STRIDES[1]) > 3


@pytest.mark.postgresql
def test_the_same_into_postgresql(tmp_path, postgresql_url):  # noqa: F811
    before = installation(tmp_path / "home")
    made = work.make(before, tmp_path / "backups", None, series=False, now_ms=NOW_MS)
    archive = tmp_path / "backups" / made["file"].rsplit("/", 1)[-1]

    def clear():
        database = SqlDatabase(postgresql_url)
        database.write_here(lambda tx: tx.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        database.close()

    fresh = settings_of(tmp_path / "fresh", postgresql_url)
    assert killed_at(5, lambda: work.put_back(fresh, archive, None))
    upgrade(postgresql_url)  # somebody started a process on the empty database
    with pytest.raises(BackupError, match="make an empty one"):
        work.put_back(fresh, archive, None)
    shutil.rmtree(tmp_path / "fresh")
    clear()
    assert swept(fresh, archive, contents(before.sql_url()), clear, STRIDES[2]) > 2
