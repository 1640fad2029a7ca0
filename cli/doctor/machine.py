"""This machine: Python, SQLite, programs, front-end files, settings, disks."""

import os
import platform
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.doctor.finding import Finding

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

FREE_BYTES_MIN: Final = 2 << 30
SQLITE_MIN: Final = (3, 37, 0)


def look_at_machine() -> Iterator[Finding]:
    """What the product needs of this machine, whatever runs on it."""
    yield Finding("Python", "ok", platform.python_version())
    yield _sqlite()
    yield _mosquitto()
    yield _front_end()


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        return Finding(
            "SQLite", "problem", sqlite3.sqlite_version, "use a Python with SQLite 3.37 or newer (STRICT tables)"
        )
    return Finding("SQLite", "ok", sqlite3.sqlite_version)


def _mosquitto() -> Finding:
    from cli.broker import INSTALL_HINT, find_mosquitto

    program = find_mosquitto()
    if program is None:
        return Finding("Mosquitto", "warning", "not on this machine", f"needed for demo and benches: {INSTALL_HINT}")
    return Finding("Mosquitto", "ok", program)


def _front_end() -> Finding:
    from cloud.web.app import STATIC_FOLDER

    missing = [
        name for name in ("htmx.min.js", "leaflet.js", "uPlot.iife.min.js") if not list(STATIC_FOLDER.rglob(name))
    ]
    if missing:
        return Finding("Front-end files", "problem", f"missing {', '.join(missing)}", "run: make setup")
    return Finding("Front-end files", "ok", "complete")


def look_at_settings(settings: "CloudSettings") -> Iterator[Finding]:
    """Variables that nobody reads, and files that settings name and nobody finds."""
    from cli.settings_errors import unknown_variables, variable_of, warnings

    if unknown_variables():
        found = "; ".join(warnings())
        yield Finding("Settings", "warning", found, "correct the spelling or unset it")
    else:
        yield Finding("Settings", "ok", "every FLEET_ variable is a setting")
    for name in ("broker_ca_file", "broker_certificate_file", "broker_key_file", "command_key_file"):
        path: Path | None = getattr(settings, name)
        if path is not None and not os.access(path, os.R_OK):
            what = "can't be read by this account" if path.exists() else "does not exist"
            yield Finding(
                f"Settings: {name}", "problem", f"{path} {what}",
                f"correct {variable_of(name)}, or restore the file from a backup (fleet backup restore)",
            )  # fmt: skip
    if settings.pki_directory is not None and not (settings.pki_directory / "trust").is_dir():
        yield Finding(
            "Settings: pki_directory", "problem", f"{settings.pki_directory} is no folder of certificates",
            "correct FLEET_PKI_DIRECTORY, restore it from a backup, or make one: fleet pki init",
        )  # fmt: skip


def look_at_disk(settings: "CloudSettings") -> Iterator[Finding]:
    """Room where the data lies, and for the spool to grow to its bound."""
    from cloud.data_directory import UNFINISHED_RESTORE

    directory = settings.data_directory
    if not directory.is_dir():
        if directory.exists():
            yield Finding(
                "Data directory", "problem", f"{directory} is no folder", "name a folder in FLEET_DATA_DIRECTORY"
            )
            return
        yield Finding(
            "Data directory", "warning", f"{directory} does not exist yet", "fleet serve makes it at its first start"
        )
        return
    unfinished = directory / UNFINISHED_RESTORE
    if unfinished.exists():
        yield Finding(
            "Restore", "problem", f"{unfinished.read_text().strip()} was put back in part; nothing starts on it",
            "run fleet backup restore of this archive again, with the settings it had: it goes on",
        )  # fmt: skip
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_MIN:
        yield Finding(
            "Disk", "problem", f"{free >> 20} MB free",
            "free at least 2 GB: the spool stops taking telemetry before the disk is full",
        )  # fmt: skip
    else:
        yield Finding("Disk", "ok", f"{free >> 30} GB free")
    if settings.series != "off":
        yield _spool_fits(settings, free)


def _spool_fits(settings: "CloudSettings", free: int) -> Finding:
    used = sum(file.stat().st_size for file in (settings.data_directory / "spool").glob("*") if file.is_file())
    room = free + used - FREE_BYTES_MIN
    found = f"{used >> 20} MB of at most {settings.spool_bytes_max >> 20} MB"
    if settings.spool_bytes_max > room:
        return Finding(
            "Spool's bound", "warning", f"{found}, and the disk holds {max(0, room) >> 20} MB",
            "set FLEET_SPOOL_BYTES_MAX below what the disk can hold, or give it a larger disk",
        )  # fmt: skip
    return Finding("Spool's bound", "ok", found)


def look_at_backups(settings: "CloudSettings", now_ms: int) -> Iterator[Finding]:
    """Whether there is a fresh backup that reads well."""
    from cli.backup.archive import AGE_HOURS_MAX, archives

    directory = settings.backup_directory
    make = "fleet backup create --directory …, daily: fleet backup keep"
    if directory is None:
        yield Finding("Backups", "warning", "nobody says where they are", f"set FLEET_BACKUP_DIRECTORY; {make}")
        return
    found = archives(directory) if directory.is_dir() else []
    if not found:
        yield Finding("Backups", "problem", f"none in {directory}", f"make one now: {make}")
        return
    newest = found[-1]
    hours = (now_ms - newest.made_at_ms) / 3_600_000
    if hours > AGE_HOURS_MAX:
        yield Finding(
            "Backups", "problem", f"the newest, {newest.path.name}, is {hours:.0f} hours old",
            f"see why the job stopped (docker compose logs backup), then: {make}",
        )  # fmt: skip
    else:
        yield Finding("Backups", "ok", f"{len(found)} in {directory}, the newest is {max(0.0, hours):.1f} hours old")
    free = shutil.disk_usage(directory).free
    if free < 2 * newest.path.stat().st_size:
        fix = "free space there, or keep fewer: fleet backup keep --keep N"
        yield Finding("Backups' disk", "problem", f"{free >> 20} MB free, the newest takes more than half", fix)
