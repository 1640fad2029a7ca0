"""The commands: make, verify, restore, list and keep backups."""

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.backup.archive import BackupError
from cli.backup.sealing import SealError
from cli.clock import real_now_ms
from cli.output import OK, UNHEALTHY, JsonOption, fail, print_json, print_rows, usage_errors, words

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

app = typer.Typer(help="Database, keys, certificates and settings in one checked file, and back.", no_args_is_help=True)

RETRY_S: Final = 600.0
"""After a backup that failed; the doctor tells when the newest is too old."""

DataOption = Annotated[Path | None, typer.Option("--data-directory", help="Where `fleet serve` keeps its data.")]
DirectoryOption = Annotated[
    Path | None, typer.Option("--directory", help="Where the archives lie; FLEET_BACKUP_DIRECTORY if not given.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key-file", help="Seal with this key (`fleet backup key FILE`), or open what is sealed."),
]
SeriesOption = Annotated[
    bool, typer.Option("--series", help="The time series too, also those of an InfluxDB: much larger.")
]


@app.command()
def create(
    data_directory: DataOption = None,
    directory: DirectoryOption = None,
    key_file: KeyOption = None,
    series: SeriesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make one while everything runs, and read it back before it counts.

    In it: the database as it was at one moment, the keys that sign commands and web pushes, the folder of `fleet pki`
    without the offline keys, photos, and FLEET_ settings without secrets.

    Example: [bold]fleet backup create --directory /backups[/bold]
    """
    from cli.backup.work import make

    with usage_errors(_settings_error()):
        settings = _settings(data_directory)
    place = _place(settings, directory)
    try:
        made = make(settings, place, _key(key_file), series=series, now_ms=real_now_ms())
    except (BackupError, SealError) as error:
        raise fail(str(error)) from None
    _say(made, as_json=as_json)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="An archive.")], key_file: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Read all of it: every checksum, and the database inside, row by row. Exit code 3 if it can't be relied on.

    Example: [bold]fleet backup verify /backups/fleet-backup-20261121T031500Z.tar[/bold]
    """
    from cli.backup.work import check

    try:
        manifest = check(file, _key(key_file))
    except (BackupError, SealError) as error:
        if as_json:
            print_json({"file": str(file), "healthy": False, "problem": str(error)})
        raise fail(str(error), UNHEALTHY) from None
    if as_json:
        print_json({"file": str(file), "healthy": True, **_shown(manifest)})
    else:
        words.print(f"{file.name} is whole: schema {manifest.schema}, {sum(manifest.tables.values())} rows")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="An archive.")],
    data_directory: DataOption = None,
    key_file: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill a fresh installation: an empty database, an empty data directory; nothing that is there is overwritten.

    The database is that of FLEET_DATABASE_URL, or SQLite in the data directory; an archive of one fills the other as
    well. Keys and certificates go to FLEET_COMMAND_KEY_FILE, FLEET_WEB_PUSH_KEY_FILE and FLEET_PKI_DIRECTORY, where
    these are set, else into the data directory. Start the cloud afterwards: devices resend what it does not have.

    Example: [bold]fleet backup restore /backups/fleet-backup-20261121T031500Z.tar --data-directory data[/bold]
    """
    from cli.backup.work import put_back

    with usage_errors(_settings_error()):
        settings = _settings(data_directory)
    try:
        done = put_back(settings, file, _key(key_file))
    except (BackupError, SealError) as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(done)
        return
    words.print(f"restored {done['rows']} rows and {len(done['files'])} files; schema {done['schema']}")
    for line in done["left_out"]:
        words.print(f"to be set by hand: {line}", markup=False)


@app.command("list")
def list_(
    directory: DirectoryOption = None,
    hours_max: Annotated[
        int | None, typer.Option("--hours-max", min=1, help="Exit code 3 if the newest is older.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Those there are, oldest first.

    Example: [bold]fleet backup list --hours-max 26[/bold]
    """
    from cli.backup.archive import archives

    with usage_errors(_settings_error()):
        place = _place(_settings(None), directory)
    now_ms = real_now_ms()
    found = archives(place) if place.is_dir() else []
    rows = [
        {
            "file": one.path.name, "hours_old": round((now_ms - one.made_at_ms) / 3_600_000, 1),
            "bytes": one.path.stat().st_size, "sealed": one.sealed,
        }
        for one in found
    ]  # fmt: skip
    print_rows(rows, ["file", "hours_old", "bytes", "sealed"], as_json=as_json, empty=f"none in {place}")
    if hours_max is not None and (not rows or float(str(rows[-1]["hours_old"])) > hours_max):
        words.print(f"the newest is older than {hours_max} hours: fleet backup create")
        raise typer.Exit(UNHEALTHY)
    raise typer.Exit(OK)


@app.command()
def keep(
    data_directory: DataOption = None,
    directory: DirectoryOption = None,
    key_file: KeyOption = None,
    at: Annotated[str, typer.Option(help="When every day, by FLEET_ROSTER_TIME_ZONE.")] = "03:15",
    keep_count: Annotated[int, typer.Option("--keep", min=1, help="How many stay.")] = 14,
    series: SeriesOption = False,
    once: Annotated[bool, typer.Option("--once", help="Make one, remove what is too many, end: for cron.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make one every day, read it back, and keep the newest; the first at once if the newest is older than a day.

    An older one is removed only after a newer one was read back. What fails is said, and tried again in ten minutes.

    Example: [bold]fleet backup keep --directory /backups --at 03:15 --keep 14[/bold]
    """
    from cli.backup.schedule import TimeOfDay, next_run_s, prune
    from cli.backup.work import make

    with usage_errors(_settings_error(), ValueError):
        settings = _settings(data_directory)
        time_of_day = TimeOfDay.parse(at, settings.roster_time_zone)
        key = _key(key_file)
    place = _place(settings, directory)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(0 if once else next_run_s(place, real_now_ms(), time_of_day)):
        try:
            made = make(settings, place, key, series=series, now_ms=real_now_ms())
            removed = prune(place, keep_count)
        except (BackupError, SealError, OSError) as error:
            if once:
                raise fail(str(error)) from None
            words.print(f"backup failed, next try in {RETRY_S:.0f} s: {error}", markup=False)
            stopped.wait(RETRY_S)
            continue
        _say({**made, "removed": [path.name for path in removed]}, as_json=as_json)
        if once:
            return


@app.command()
def key(file: Annotated[Path, typer.Argument(help="Where the new key goes.")], as_json: JsonOption = False) -> None:
    """Make a key that archives are sealed with. Keep it elsewhere: without it a sealed archive is lost.

    Example: [bold]fleet backup key /media/usb/fleet-backup.key[/bold]
    """
    from cli.backup.sealing import make_key

    try:
        make_key(file)
    except OSError as error:
        raise fail(f"{file}: {error.strerror}; name a new file in a folder that can be written") from None
    if as_json:
        print_json({"file": str(file)})
    else:
        words.print(f"{file}: keep a copy away from this machine, and away from the archives")


def _settings(data_directory: Path | None) -> "CloudSettings":
    from cli.settings_errors import cloud_settings

    return cloud_settings(data_directory=data_directory)


def _settings_error() -> type[Exception]:
    from cli.settings_errors import SettingsError

    return SettingsError


def _place(settings: "CloudSettings", directory: Path | None) -> Path:
    found = directory or settings.backup_directory
    if found is None:
        raise fail("name the folder of the archives with --directory, or in FLEET_BACKUP_DIRECTORY", 2)
    if found.exists() and not found.is_dir():
        raise fail(f"{found} is no folder; name one with --directory", 2)
    return found


def _key(file: Path | None) -> bytes | None:
    from cli.backup.sealing import read_key

    if file is None:
        return None
    try:
        return read_key(file)
    except SealError as error:
        raise fail(str(error), 2) from None


def _shown(manifest: Any) -> dict[str, Any]:
    return {
        "made_at_ms": manifest.made_at_ms, "release": manifest.release, "schema": manifest.schema,
        "database": manifest.dialect, "rows": sum(manifest.tables.values()), "files": len(manifest.members),
        "left_out": list(manifest.left_out),
    }  # fmt: skip


def _say(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        words.print(f"{made['file']}: {made['rows']} rows, {made['bytes']} bytes, read back in {made['seconds']} s")
