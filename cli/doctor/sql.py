"""The database: reachable, of this release, durable, with room in its pool, quick, and an outbox that moves."""

import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.clock import SystemClock, real_now_ms
from cli.doctor.finding import Finding, guarded, reason_of

if TYPE_CHECKING:
    from cloud.adapters.sql.database import SqlDatabase
    from cloud.settings import CloudSettings

DAY_MS: Final = 86_400_000
CONNECT_S_MAX: Final = 5
ANSWER_MS_MAX: Final = 50.0
"""Median of a round trip: each commit of the pipeline pays several."""
CONNECTIONS_SHARE_MAX: Final = 0.8
TRANSACTION_S_MAX: Final = 60
URGENT_WAITS_MS_MAX: Final = 30_000
WAITS_MS_MAX: Final = 600_000
CHECKED_BYTES_MAX: Final = 256 << 20
POSTGRESQL_MIN: Final = 150_000


def look_at_sql(settings: "CloudSettings") -> Iterator[Finding]:
    """Everything about the database, in the order in which one thing needs the other."""
    directory, url = settings.data_directory, settings.sql_url()
    sqlite = url.startswith("sqlite")
    if not settings.database_url and not (directory / "state.db").exists():
        fix = "fleet serve makes it at its first start"
        yield Finding("Database", "warning", f"no state.db in {directory} yet", fix)
        return
    fix = "restore a backup (fleet backup restore)" if sqlite else "check FLEET_DATABASE_URL, and that its server runs"
    try:
        with _opened(url) as database:
            count = database.read_here(_count_devices)
            yield Finding("Database", "ok", f"{count} devices enrolled")
            yield from guarded("Database", lambda: _inside(settings, database, directory / "state.db"), fix)
    except Exception as error:  # noqa: BLE001  # the drivers' errors have no common root
        reason = _without_secret(error)
        if "no such table" in reason or ("relation" in reason and "does not exist" in reason):
            fix = "start `fleet serve` once, so that its schema is made"
        yield Finding("Database", "problem", reason, fix)


@contextmanager
def _opened(url: str) -> "Iterator[SqlDatabase]":
    from sqlalchemy.engine import make_url

    from cloud.adapters.sql.database import SqlDatabase

    address = make_url(url)
    if address.get_backend_name() == "postgresql":
        address = address.update_query_dict({"connect_timeout": str(CONNECT_S_MAX)})
    database = SqlDatabase(address.render_as_string(hide_password=False))
    try:
        yield database
    finally:
        database.close()


def _without_secret(error: Exception) -> str:
    from sqlalchemy.exc import ArgumentError

    if isinstance(error, (ArgumentError, ValueError)):  # its text may repeat the URL, which holds a password
        return "FLEET_DATABASE_URL is no URL of a database; write postgresql+psycopg://user:password@host/name"
    return reason_of(error)


def _count_devices(tx: Any) -> int:
    from sqlalchemy import func, select

    from cloud.tables import device

    return int(tx.execute(select(func.count()).select_from(device)).scalar_one())


def _inside(settings: "CloudSettings", database: "SqlDatabase", file: Path) -> Iterator[Finding]:
    yield _schema(database)
    yield _speed(database)
    if database.is_sqlite:
        if not settings.database_url:
            yield _sound(file)
    else:
        yield from _server(database)
    yield from _outbox(settings, database)
    yield from _quarantine(settings, database)
    if settings.clock_speed == 1.0:
        yield from _clock(database)


def _schema(database: "SqlDatabase") -> Finding:
    from cloud.adapters.sql.schema import head, is_known, revision_of

    found, wanted = database.read_here(revision_of), head()
    if found == wanted:
        return Finding("Schema", "ok", f"{found}, of this release")
    if is_known(found):
        fix = "make a backup, then start fleet serve of this release: it brings the schema up to date"
        return Finding("Schema", "problem", f"{found}, this release needs {wanted}", fix)
    fix = "start the newer release again, or restore a backup of this one: the schema only goes forward"
    return Finding("Schema", "problem", f"{found or 'none'}, which this release ({wanted}) does not know", fix)


def _speed(database: "SqlDatabase") -> Finding:
    from sqlalchemy import text

    def one(tx: Any) -> float:
        began = time.perf_counter()
        tx.execute(text("SELECT 1")).scalar_one()
        return (time.perf_counter() - began) * 1000

    ms = statistics.median(database.read_here(one) for _ in range(7))
    if ms > ANSWER_MS_MAX:
        fix = (
            "put the database nearer, and look at its machine's CPU and disk: every commit waits several times as long"
        )
        return Finding("Database's speed", "warning", f"{ms:.0f} ms for nothing at all", fix)
    return Finding("Database's speed", "ok", f"{ms:.1f} ms a round trip")


def _sound(file: Path) -> Finding:
    """`quick_check` of a database small enough for it."""
    log = file.with_name(file.name + "-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    if log_bytes > CHECKED_BYTES_MAX:
        fix = "something reads for hours without an end; restart fleet serve"
        return Finding("Database's file", "warning", f"{log_bytes >> 20} MB of log are not folded in", fix)
    if file.stat().st_size > CHECKED_BYTES_MAX:
        return Finding("Database's file", "ok", f"{file.stat().st_size >> 20} MB; not read through, being so large")
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    finally:
        connection.close()
    if answer != "ok":
        fix = "stop fleet serve, keep the file, restore the newest backup (fleet backup restore)"
        return Finding("Database's file", "problem", f"is damaged: {reason_of(ValueError(answer))}", fix)
    return Finding("Database's file", "ok", f"{file.stat().st_size >> 20} MB, sound")


def _server(database: "SqlDatabase") -> Iterator[Finding]:
    from sqlalchemy import text

    def ask(tx: Any) -> dict[str, Any]:
        names = ("server_version_num", "max_connections", "superuser_reserved_connections", "fsync",
                 "synchronous_commit", "full_page_writes")  # fmt: skip
        found = {name: tx.execute(text(f"SHOW {name}")).scalar_one() for name in names}
        found["used"] = tx.execute(text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))
        found["used"] = found["used"].scalar_one()
        found["longest_s"] = tx.execute(
            text("SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity "
                 "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                 "AND state IN ('active', 'idle in transaction') AND query NOT LIKE 'LISTEN%'")
        ).scalar_one()  # fmt: skip
        return found

    found = database.read_here(ask)
    if int(found["server_version_num"]) < POSTGRESQL_MIN:
        fix = "use PostgreSQL 15 or later"
        yield Finding("PostgreSQL", "problem", f"version {found['server_version_num']}", fix)
    careless = [name for name in ("fsync", "synchronous_commit", "full_page_writes") if found[name] == "off"]
    if careless:
        fix = (
            f"set {', '.join(careless)} to on: devices forget what we acknowledged, and a power cut would lose it here"
        )
        yield Finding("PostgreSQL's durability", "problem", f"{', '.join(careless)} off", fix)
    else:
        yield Finding("PostgreSQL's durability", "ok", "a commit is on the disk")
    most = int(found["max_connections"]) - int(found["superuser_reserved_connections"])
    share = f"{found['used']} of {most} connections in use"
    if int(found["used"]) > CONNECTIONS_SHARE_MAX * most:
        fix = "raise max_connections (each process of ours keeps up to 11), or see who else has them (pg_stat_activity)"
        yield Finding("PostgreSQL's pool", "problem", share, fix)
    else:
        yield Finding("PostgreSQL's pool", "ok", share)
    if float(found["longest_s"]) > TRANSACTION_S_MAX:
        fix = "find it in pg_stat_activity by xact_start and end it (pg_terminate_backend): it keeps old rows alive"
        yield Finding("Long transaction", "warning", f"one is open for {float(found['longest_s']):.0f} s", fix)


def _business_now(settings: "CloudSettings") -> int | None:
    """None where only the running process knows what time it is."""
    if settings.clock_speed != 1.0 and not settings.clock_origin_ms:
        return None
    clock = SystemClock(
        speed=settings.clock_speed, origin_ms=settings.clock_origin_ms, shift_ms=settings.clock_shift_ms
    )
    return clock.now_ms()


def _outbox(settings: "CloudSettings", database: "SqlDatabase") -> Iterator[Finding]:
    from sqlalchemy import func, literal_column, select

    from cloud.tables import outbox

    now_ms = _business_now(settings)
    if now_ms is None:
        return
    waits = (outbox.c.delivered_at.is_(None)) & (outbox.c.given_up_at.is_(None)) & (outbox.c.available_at <= now_ms)
    is_urgent = outbox.c.urgent > literal_column("0")  # the same text twice: PostgreSQL groups by nothing else
    query = select(is_urgent, func.count(), func.min(outbox.c.created_at), func.max(outbox.c.last_error))
    rows = database.read_here(lambda tx: tx.execute(query.where(waits).group_by(is_urgent)).all())
    late = False
    for urgent, count, oldest, error in rows:
        waited_ms = now_ms - oldest
        if waited_ms <= (URGENT_WAITS_MS_MAX if urgent else WAITS_MS_MAX):
            continue
        late = True
        what = "about emergencies" if urgent else "ordinary"
        said = f"; the last error: {reason_of(Exception(error))}" if error else ""
        fix = "fleet notifications attempts; correct the channel that fails, and see that a role dispatch runs"
        yield Finding(
            "Outbox", "problem" if urgent else "warning",
            f"{count} {what} wait, the oldest for {waited_ms / 1000:.0f} s{said}", fix,
        )  # fmt: skip
    if not late:
        yield Finding("Outbox", "ok", f"{sum(row[1] for row in rows)} wait, none for too long")


def _quarantine(settings: "CloudSettings", database: "SqlDatabase") -> Iterator[Finding]:
    from sqlalchemy import func, select

    from cloud.tables import quarantine

    now_ms = _business_now(settings) or 0
    lately = quarantine.c.received_at > now_ms - DAY_MS

    def ask(tx: Any, *, series: bool) -> tuple[int, str]:
        mine = quarantine.c.reason.startswith("series:")
        where = lately & (mine if series else ~mine)
        count, newest = tx.execute(select(func.count(), func.max(quarantine.c.id)).where(where)).one()
        reason = tx.scalar(select(quarantine.c.reason).where(quarantine.c.id == newest)) if newest else ""
        return count, reason

    count, reason = database.read_here(lambda tx: ask(tx, series=True))
    if count:
        fix = (
            "the field has another type in InfluxDB than we write: rename or drop that measurement there, or write "
            "into a new bucket (FLEET_INFLUXDB_BUCKET, fleet influx init); the points are kept: fleet quarantine"
        )
        yield Finding("Series refuses points", "problem", f"{count} in a day; the latest: {reason}"[:300], fix)
    count, reason = database.read_here(lambda tx: ask(tx, series=False))
    if count:
        fix = "fleet quarantine shows them; firmware and cloud do not fit together, or somebody forges"
        yield Finding("Quarantine", "warning", f"{count} in a day; the latest: {reason}"[:300], fix)


def _clock(database: "SqlDatabase") -> Iterator[Finding]:
    """This machine's clock against what is stored: devices take their time from here."""
    from sqlalchemy import select

    from cloud.ingest.clock_watch import AHEAD_MS, BEHIND_MS
    from cloud.tables import twin

    heard = database.read_here(
        lambda tx: tx.execute(select(twin.c.last_heard_at).where(twin.c.last_heard_at > 0)).scalars().all()
    )
    if not heard:
        return
    after_ms = real_now_ms() - statistics.median_low(heard)
    if after_ms < -BEHIND_MS:
        yield Finding(
            "Clock", "problem", f"{-after_ms / DAY_MS:.1f} days before what devices said last",
            "set the clock (timedatectl), then restart nothing: devices get the right time by themselves",
        )  # fmt: skip
    elif after_ms > AHEAD_MS:
        yield Finding(
            "Clock", "warning", f"{after_ms / DAY_MS:.0f} days after what devices said last",
            "was everything off for so long? If not, the clock is ahead: set it (timedatectl), then start fleet serve",
        )  # fmt: skip
    else:
        yield Finding("Clock", "ok", "fits what is stored")
