"""An InfluxDB's points within an archive: the files of `fleet influx backup`, below `series/`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.backup.archive import BackupError

if TYPE_CHECKING:
    from cloud.adapters.influx_http import InfluxHttp
    from cloud.settings import CloudSettings

FOLDER: Final = "series"
REQUEST_S_MAX: Final = 120.0
POLICIES: Final = ("raw", "minute", "hour")


def copy_influxdb(settings: "CloudSettings", scratch: Path, now_ms: int) -> dict[str, Path]:
    """Members: every point before `now_ms`, in files of line protocol. Raises BackupError."""
    from cli.influx.backup import Backup

    folder = scratch / FOLDER
    with _asking(settings) as (http, database):
        work = Backup(http, database, folder, POLICIES)
        for piece in work.plan(None, now_ms):
            work.take(piece)
        work.finish()
    return {f"{FOLDER}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*") if path.is_file()}


def put_back_influxdb(settings: "CloudSettings", folder: Path) -> int:
    """Write the points back, and count on the server that all are there; lines written. Raises BackupError.

    Writing a point again changes nothing: what was interrupted is run again, and passes over what is there.
    """
    from cli.influx.restore import Restore

    if not (folder / FOLDER).is_dir():
        return 0
    with _asking(settings) as (http, database):
        work = Restore(http, database, folder / FOLDER, ())
        for entry in work.pieces:
            work.write(entry)
        for entry in work.pieces:
            work.compare(entry)
    if work.missing:
        raise BackupError(f"{work.missing} values of the series did not arrive in InfluxDB: run the restore again")
    return int(work.result()["lines_written"])


def refuse_unready(settings: "CloudSettings", folder: Path) -> None:
    """Before anything is changed: whether there is an InfluxDB that takes the points. Raises BackupError."""
    if not (folder / FOLDER).is_dir():
        return
    if settings.series != "influxdb":
        raise BackupError("the archive holds the points of an InfluxDB: set FLEET_SERIES=influxdb and where it is")
    with _asking(settings) as (http, database):
        found = {row[0] for one in http.query("SHOW RETENTION POLICIES", database=database) for row in one["values"]}
    missing = [policy for policy in POLICIES if policy not in found]
    if missing:
        raise BackupError(f"InfluxDB has no {', '.join(missing)} of {database!r}: fleet influx init, then restore")


@contextmanager
def _asking(settings: "CloudSettings") -> "Iterator[tuple[InfluxHttp, str]]":
    from cli.influx.backup import BackupError as SeriesBackupError
    from cloud.adapters.influx_http import InfluxHttp
    from cloud.adapters.influx_setup import explain
    from cloud.ports import SeriesError

    http = InfluxHttp(settings.influxdb_url, settings.influxdb_token.get_secret_value(), timeout_s=REQUEST_S_MAX)
    try:
        yield http, settings.influxdb_bucket.partition("/")[0]
    except SeriesBackupError as error:
        raise BackupError(str(error)) from None
    except SeriesError as error:
        raise BackupError(f"{explain(error, http.url)}; see fleet doctor") from None
    finally:
        http.close()
