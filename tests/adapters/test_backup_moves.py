"""A backup of PostgreSQL, and moves between the two databases: the same rows, counters go on, triggers work."""

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final

import pytest
from influx_fixture import TOKEN
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

from cli.backup import work
from cli.backup.archive import BackupError
from cli.backup.sql_copy import copy_series, copy_sqlite
from cli.clock import real_now_ms
from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.influx_setup import Wanted, prepare
from cloud.adapters.series_influx import InfluxSeries
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.settings import CloudSettings
from cloud.tables import (
    call,
    command,
    command_step,
    device,
    ledger_account,
    ledger_entry,
    ledger_transaction,
    metadata,
    outbox,
    quarantine,
)
from cloud.timeseries.points import Point
from tests.adapters.postgres_fixture import postgresql_server, postgresql_url  # noqa: F401

NOW_MS = 1_763_700_000_000


def complete(table, row):
    """With 0 or an empty text where a column must have something."""
    missing = (one for one in table.columns if one.name not in row and not one.nullable and one.server_default is None)
    return {**{one.name: "" if one.type.python_type is str else 0 for one in missing if not one.primary_key}, **row}


def fill(database):
    rows = {
        device: [{"device_id": f"room-{number:03}", "name": "母婴室 “一”\n"} for number in range(2_500)],
        outbox: [{"delivery_id": f"d{number}", "notification": json.dumps({"n": number})} for number in range(9)],
        quarantine: [{"payload": bytes(range(256)), "received_at": NOW_MS}],
        call: [{"id": "c1", "device_id": "room-001"}],
        command: [{"id": "k1", "device_id": "room-001", "status": "queued"}],
        ledger_account: [{"id": "a", "balance_fen": -(2**53), "may_be_negative": 1}],
        ledger_transaction: [{"id": "t"}],
        ledger_entry: [{"transaction_id": "t", "account_id": "a", "amount_fen": 5}],
    }

    def write(tx):
        for table, of_table in rows.items():
            tx.execute(insert(table), [complete(table, row) for row in of_table])

    database.write_here(write)


def contents(database):
    def read(tx):
        return {
            table.name: [tuple(row) for row in tx.execute(select(table).order_by(*table.primary_key.columns))]
            for table in metadata.sorted_tables
        }

    return database.read_here(read)


@pytest.mark.postgresql
@pytest.mark.parametrize(("source", "target"), [("postgresql", "sqlite"), ("sqlite", "postgresql")])
def test_the_same_rows_come_back_on_the_other_database(source, target, postgresql_url, tmp_path):  # noqa: F811
    def settings(kind, name):
        folder = tmp_path / name
        url = {"database_url": postgresql_url} if kind == "postgresql" else {}
        return CloudSettings(data_directory=folder, **url)

    before, after = settings(source, "before"), settings(target, "after")
    before.data_directory.mkdir()
    upgrade(before.sql_url())
    old = SqlDatabase(before.sql_url())
    fill(old)
    made = work.make(before, tmp_path / "backups", None, series=False, now_ms=NOW_MS)
    manifest = work.check(tmp_path / "backups" / made["file"].rsplit("/", 1)[-1], None)
    assert manifest.dialect == source
    assert manifest.tables["device"] == 2_500
    work.put_back(after, tmp_path / "backups" / made["file"].rsplit("/", 1)[-1], None)
    new = SqlDatabase(after.sql_url())
    try:
        assert contents(new) == contents(old)
        new.write_here(lambda tx: tx.execute(insert(outbox), [complete(outbox, {"delivery_id": "next"})]))
        assert new.read_here(lambda tx: tx.scalar(select(func.max(outbox.c.id)))) == 10, "the counter went on"
        steps = select(func.count()).select_from(command_step)
        count = new.read_here(lambda tx: tx.scalar(steps))
        new.write_here(lambda tx: tx.execute(command.update().values(status="sent")))
        assert new.read_here(lambda tx: tx.scalar(steps)) == count + 1, "triggers are back"
        with pytest.raises(DBAPIError, match="append-only"):
            new.write_here(lambda tx: tx.execute(text("DELETE FROM ledger_entry")))
        with pytest.raises(BackupError, match="already"):
            work.put_back(after, tmp_path / "backups" / made["file"].rsplit("/", 1)[-1], None)
    finally:
        new.close()
        old.close()


@pytest.mark.influxdb
async def test_the_points_of_an_influxdb_come_back_with_the_rest(influx, tmp_path):
    def settings(name, bucket):
        return CloudSettings(
            data_directory=tmp_path / name, series="influxdb", influxdb_url=influx.url, influxdb_token=TOKEN,
            influxdb_bucket=bucket,
        )  # fmt: skip

    def prepare_levels(bucket):
        http = InfluxHttp(influx.url, TOKEN)
        prepare(http, Wanted(database=bucket, organisation="fleet"), lambda *_: None)
        http.close()

    def counted(bucket):
        http = InfluxHttp(influx.url, TOKEN)
        found = http.query('SELECT count(*) FROM "raw"."bike" GROUP BY device_id', database=bucket)
        http.close()
        return {one["tags"]["device_id"]: one["values"][0][1:] for one in found}

    now_ms = real_now_ms()
    before, after = settings("before", "backed_up"), settings("after", "put_back")
    before.data_directory.mkdir()
    upgrade(before.sql_url())
    prepare_levels("backed_up")
    store = InfluxSeries(url=influx.url, token=TOKEN, org="fleet", bucket="backed_up")
    points = [
        Point(
            "bike",
            f"bike-{number % 3:03}",
            (now_ms - number * 60_000) * 1_000_000,
            {"message_seq": number, "speed": 1.5},
        )
        for number in range(900)
    ]
    await store.write(points)
    await store.close()
    made = work.make(before, tmp_path / "backups", None, series=True, now_ms=now_ms + 1)
    archive = tmp_path / "backups" / made["file"].rsplit("/", 1)[-1]
    assert len([one for one in work.check(archive, None).members if one.name.startswith("series/raw/")]) >= 1

    with pytest.raises(BackupError, match="fleet influx init"):
        work.put_back(after, archive, None)
    assert not (after.data_directory / "state.db").exists()
    prepare_levels("put_back")
    assert work.put_back(after, archive, None)["series_lines"] == 900
    assert counted("put_back") == counted("backed_up")
    assert sum(values[0] for values in counted("put_back").values()) == 900
    none = CloudSettings(data_directory=tmp_path / "none")
    with pytest.raises(BackupError, match="FLEET_SERIES"):
        work.put_back(none, archive, None)


COMMITS: Final = """
import sqlite3, sys
live = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
live.execute("PRAGMA synchronous=OFF")
print("ready", flush=True)
while True:
    live.execute("UPDATE beat SET number = number + 1")
"""


@pytest.mark.parametrize("copied", [copy_series, copy_sqlite])
def test_a_file_is_copied_while_a_process_commits_all_the_time(copied, tmp_path):
    """In steps it would begin anew with each commit that falls between two of them, and never end."""
    source = tmp_path / "live.db"
    with closing(sqlite3.connect(source)) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE alembic_version AS SELECT '0013' AS version_num")
        live.execute("CREATE TABLE beat AS SELECT 1 AS number")
        live.execute("CREATE TABLE big (content BLOB)")
        live.executemany("INSERT INTO big VALUES (zeroblob(1000000))", [()] * 40)
        live.commit()
    with (
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen([sys.executable, "-c", COMMITS, source], stdout=subprocess.PIPE, text=True) as writer,
    ):
        try:
            assert writer.stdout.readline() == "ready\n"
            pool.submit(copied, source, tmp_path).result(timeout=30)
            assert writer.poll() is None
        finally:
            writer.kill()
