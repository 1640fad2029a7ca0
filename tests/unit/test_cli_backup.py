"""`fleet backup`: what is in an archive, what makes one worthless, and a fresh installation filled from it."""

import fcntl
import json
import shutil
import sqlite3
import stat
import tarfile
import threading
from datetime import UTC, datetime

import pytest
from cli_support import fleet, one_line

from cli.backup import archive, sealing
from cli.backup.schedule import TimeOfDay, next_run_s, prune
from cli.backup.sql_copy import SQLITE_MEMBER
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.adapters.sql.schema import head
from cloud.tables import device, ledger_account, ledger_entry, ledger_transaction

HOUR_MS = 3_600_000
DEVICES = 30


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A database with the schema and a few devices, made once."""
    file = tmp_path_factory.mktemp("filled") / "state.db"
    fill(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file


@pytest.fixture
def home(tmp_path, filled):
    """A small installation: database, keys, certificates with offline keys, a photo."""
    data, pki = tmp_path / "data", tmp_path / "pki"
    data.mkdir()
    shutil.copy(filled, data / "state.db")
    (data / "command.key").write_text("command")
    (data / "push.key").write_text("push")
    (data / "photos").mkdir()
    (data / "photos/a.jpg").write_bytes(bytes(range(256)) * 400)
    for name in (
        "offline/devices-root.key", "online/devices.key", "trust/devices.pem", "crl/devices.pem", "issued/broker.key",
    ):  # fmt: skip
        (pki / name).parent.mkdir(parents=True, exist_ok=True)
        (pki / name).write_text(name)
    return tmp_path


def fill(url):
    upgrade(url)
    database = SqlDatabase(url)
    rows = [{"device_id": f"bike-{number:03}", "kind": "bike", "enrolled_at": 1} for number in range(DEVICES)]
    database.write_here(lambda tx: tx.execute(device.insert(), [complete(device, row) for row in rows]))
    database.close()


def complete(table, row):
    """With 0 or an empty text where a column must have something."""
    missing = (one for one in table.columns if one.name not in row and not one.nullable and one.server_default is None)
    return {**{one.name: "" if one.type.python_type is str else 0 for one in missing}, **row}


def make(home, *more, **settings):
    done = fleet(
        "backup", "create", "--data-directory", home / "data", "--directory", home / "backups", "--json", *more,
        FLEET_PKI_DIRECTORY=str(home / "pki"), FLEET_PUBLIC_URL="https://fleet.example.org",
        FLEET_SMTP_URL="smtps://u:s3cret@h", **settings,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return archive.Path(json.loads(done.stdout)["file"])


def restore(home, file, *more, folder="fresh", **settings):
    return fleet(
        "backup", "restore", file, "--data-directory", home / folder, "--json", *more,
        **{"FLEET_PKI_DIRECTORY": str(home / folder / "pki"), **settings},
    )  # fmt: skip


def devices_in(home, folder="fresh"):
    with sqlite3.connect(home / folder / "state.db") as connection:
        return connection.execute("SELECT count(*) FROM device").fetchone()[0]


def test_a_fresh_installation_is_filled_and_nothing_secret_travels_that_need_not(home):
    file = make(home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in (home / "backups").iterdir()] == [file.name], "nothing half made stays behind"
    with tarfile.open(file) as tar:
        names = tar.getnames()
        manifest = json.load(tar.extractfile("manifest.json"))
        settings = json.load(tar.extractfile("settings.json"))
    assert names[0] == "manifest.json"
    assert not any("offline" in name for name in names)
    assert settings["FLEET_PUBLIC_URL"] == "https://fleet.example.org"
    assert "s3cret" not in json.dumps([manifest, settings])
    assert any(line.startswith("FLEET_SMTP_URL") for line in manifest["left_out"])
    assert manifest["tables"]["device"] == DEVICES
    assert manifest["schema"] == head()

    done = restore(home, file)
    assert done.exit_code == 0, done.output
    assert devices_in(home) == DEVICES
    for name in ("command.key", "push.key", "photos/a.jpg"):
        assert (home / "fresh" / name).read_bytes() == (home / "data" / name).read_bytes()
    for name in ("online/devices.key", "trust/devices.pem", "crl/devices.pem", "issued/broker.key"):
        assert (home / "fresh/pki" / name).read_text() == name
    assert not (home / "fresh/pki/offline").exists()
    assert stat.S_IMODE((home / "fresh/command.key").stat().st_mode) == 0o600
    again = restore(home, file)
    assert again.exit_code == 1
    assert "there already" in one_line(again)


def test_any_byte_that_changed_and_any_end_that_is_missing_is_found(home):
    file = make(home)
    whole = file.read_bytes()
    assert fleet("backup", "verify", file, "--json").exit_code == 0
    broken, scratch = home / file.name, home / "scratch"
    for place in range(700, len(whole) - 10_240, len(whole) // 40):
        if not whole[place]:
            continue  # padding between members
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(archive.BackupError):
            archive.unpack(broken, scratch, None)
        shutil.rmtree(scratch, ignore_errors=True)
    for length in (0, 100, 5_000, len(whole) // 2, len(whole) - 20_000):
        broken.write_bytes(whole[:length])
        with pytest.raises(archive.BackupError):
            archive.unpack(broken, scratch, None)
        shutil.rmtree(scratch, ignore_errors=True)
    refused = fleet("backup", "verify", broken)
    assert refused.exit_code == 3
    assert one_line(refused)
    assert restore(home, broken).exit_code == 1
    assert not (home / "fresh/state.db").exists()


def test_a_sealed_archive_opens_with_its_key_alone(home):
    key, other = home / "key", home / "other"
    for one in (key, other):
        assert fleet("backup", "key", one).exit_code == 0
    assert fleet("backup", "key", key).exit_code == 1, "a key is never replaced"
    file = make(home, "--key-file", key)
    assert b"bike-001" not in file.read_bytes()
    assert fleet("backup", "verify", file, "--key-file", key).exit_code == 0
    for options in ([], ["--key-file", other]):
        assert fleet("backup", "verify", file, *options).exit_code == 3
    assert fleet("backup", "verify", file, "--key-file", file).exit_code == 2
    whole, block = file.read_bytes(), sealing.BLOCK_BYTES + sealing.TAG_BYTES
    start = len(sealing.MAGIC) + sealing.SALT_BYTES
    swapped = (
        whole[:start]
        + whole[start + block : start + 2 * block]
        + whole[start : start + block]
        + whole[start + 2 * block :]
    )
    for bad in (whole[: start + block], whole[: start + 2 * block], swapped, whole[:-1], whole[:start]):
        broken = home / file.name
        broken.write_bytes(bad)
        assert fleet("backup", "verify", broken, "--key-file", key).exit_code == 3
    assert restore(home, file, "--key-file", key).exit_code == 0
    assert devices_in(home) == DEVICES


def test_a_newer_schema_is_refused_and_an_older_one_led_forward(home):
    def stand_at(revision):
        with sqlite3.connect(home / "data/state.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))

    stand_at("9999")
    refused = restore(home, make(home))
    assert refused.exit_code == 1
    assert "9999" in one_line(refused)
    assert not (home / "fresh").exists() or not any((home / "fresh").iterdir())
    (home / "data/state.db").unlink()
    upgrade(f"sqlite:///{home / 'data/state.db'}", "0011")
    (home / "backups").rename(home / "before")
    done = restore(home, make(home))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["schema"] == head()
    with sqlite3.connect(home / "fresh/state.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (head(),)


def test_what_is_in_use_is_not_overwritten(home):
    file = make(home)
    (home / "fresh").mkdir()
    with (home / "fresh/ingest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = restore(home, file)
    assert refused.exit_code == 1
    assert "stop it first" in one_line(refused)
    (home / "fresh/command.key").write_text("another one")
    refused = restore(home, file)
    assert refused.exit_code == 1
    assert "command.key" in one_line(refused)
    assert not (home / "fresh/state.db").exists()


def test_a_copy_is_of_one_moment_while_money_moves(home):
    url = f"sqlite:///{home / 'data/state.db'}"
    database, stopped, moved = SqlDatabase(url), threading.Event(), []
    database.write_here(lambda tx: tx.execute(ledger_account.insert(), [{"id": "a", "may_be_negative": 1}]))

    def move():
        while not stopped.is_set():
            name = f"t{len(moved)}"

            def both(tx, name=name):
                tx.execute(ledger_transaction.insert(), [{"id": name, "cause": "", "at": 1}])
                amounts = [{"transaction_id": name, "account_id": "a", "amount_fen": sign} for sign in (5, -5)]
                tx.execute(ledger_entry.insert(), amounts)

            database.write_here(both)
            moved.append(name)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        while len(moved) < 20:
            stopped.wait(0.01)
        file = make(home)
    finally:
        stopped.set()
        mover.join(20)
        database.close()
    assert restore(home, file).exit_code == 0
    with sqlite3.connect(home / "fresh/state.db") as connection:
        (entries,) = connection.execute("SELECT count(*) FROM ledger_entry").fetchone()
        (transactions,) = connection.execute("SELECT count(*) FROM ledger_transaction").fetchone()
    assert entries == 2 * transactions >= 40


def test_a_damaged_database_makes_no_backup(home):
    with sqlite3.connect(home / "data/state.db") as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    file = home / "data/state.db"
    content = bytearray(file.read_bytes())
    content[8192:20_480] = b"\x55" * 12_288
    file.write_bytes(content)
    done = fleet("backup", "create", "--data-directory", home / "data", "--directory", home / "backups")
    assert done.exit_code == 1
    assert one_line(done)
    assert list((home / "backups").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "settings", "word"),
    [
        (["create"], {}, "--directory"),
        (["create", "--directory", "b", "--data-directory", "nowhere"], {}, "no database"),
        (["create", "--directory", "b"], {"FLEET_DATABASE_URL": "s3cret nonsense"}, "FLEET_DATABASE_URL"),
        (
            ["create", "--directory", "b"],
            {"FLEET_DATABASE_URL": "postgresql+psycopg://u:s3cret@127.0.0.1:1/n"},
            "does not answer",
        ),
        (["create", "--directory", "b", "--key-file", "absent"], {}, "fleet backup key"),
        (["verify", "absent.tar"], {}, "absent.tar"),
        (["restore", "absent.tar", "--data-directory", "b"], {}, "absent.tar"),
        (["keep", "--directory", "b", "--at", "25:00"], {}, "03:15"),
        (["keep", "--directory", "b", "--once", "--data-directory", "nowhere"], {}, "no database"),
    ],
)
def test_what_is_wrong_is_one_line_without_secrets(arguments, settings, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = fleet("backup", *arguments, **settings)
    assert done.exit_code in {1, 2, 3}
    assert word in one_line(done)
    assert "s3cret" not in done.output


def test_old_ones_go_and_the_age_of_the_newest_is_an_exit_code(home, monkeypatch):
    folder = home / "backups"
    folder.mkdir()
    made = [archive.name_of(number * HOUR_MS, sealed=False) for number in range(5)]
    for name in (*made, "notes.txt"):
        (folder / name).write_text("")
    assert [path.name for path in prune(folder, 2)] == made[:3]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*made[3:], "notes.txt"])
    monkeypatch.setattr("cli.backup.commands.real_now_ms", lambda: 30 * HOUR_MS)
    assert fleet("backup", "list", "--directory", folder, "--hours-max", 26, "--json").exit_code == 0
    monkeypatch.setattr("cli.backup.commands.real_now_ms", lambda: 31 * HOUR_MS)
    assert fleet("backup", "list", "--directory", folder, "--hours-max", 26).exit_code == 3
    assert fleet("backup", "list", "--directory", home / "absent", "--hours-max", 26).exit_code == 3
    kept = fleet(
        "backup", "keep", "--once", "--keep", 1, "--data-directory", home / "data", "--directory", folder, "--json"
    )
    assert json.loads(kept.stdout)["removed"] == made[3:], kept.output


def test_the_next_one_is_due_at_its_time_of_day_and_at_once_when_one_was_missed(tmp_path):
    at = TimeOfDay.parse("03:15", "Asia/Shanghai")
    now_ms = int(datetime(2026, 11, 21, 18, 15, tzinfo=UTC).timestamp() * 1000)  # 02:15 there
    assert next_run_s(tmp_path, now_ms, at) == 0
    (tmp_path / archive.name_of(now_ms - HOUR_MS, sealed=False)).write_text("")
    assert next_run_s(tmp_path, now_ms, at) == 3600
    assert next_run_s(tmp_path, now_ms + HOUR_MS, at) == 86_400
    assert next_run_s(tmp_path, now_ms + 24 * HOUR_MS, at) == 0


def test_an_archive_names_only_what_it_holds(home):
    file = make(home)
    with tarfile.open(file) as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}
    assert SQLITE_MEMBER in members
    for evil in ("../outside", "/outside", "files/more"):
        forged = home / file.name
        with tarfile.open(forged, "w") as tar:
            for name, content in [*members.items(), (evil, b"x")]:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, archive.io.BytesIO(content))
        refused = fleet("backup", "verify", forged)
        assert refused.exit_code == 3
        assert "does not name" in one_line(refused)
