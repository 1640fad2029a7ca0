"""`fleet doctor`: checks what this machine and a running deployment need, and names the fix for each finding."""

import platform
import shutil
import socket
import sqlite3
import statistics
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from cli.clock import real_now_ms
from cli.output import UNHEALTHY, JsonOption, data, print_json, usage_errors, words

Verdict = Literal["ok", "warning", "problem"]
FREE_BYTES_MIN: Final = 2 << 30
DAY_MS: Final = 86_400_000
SQLITE_MIN: Final = (3, 37, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def doctor(
    data_directory: Annotated[Path | None, typer.Option(help="Where `fleet serve` keeps its data.")] = None,
    url: Annotated[str, typer.Option(help="A running `fleet serve`; empty looks at the configured port.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Check this machine and the deployment; exit code 3 if something needs mending.

    Example: [bold]fleet doctor --url http://127.0.0.1:8000[/bold]
    """
    from cli.settings_errors import SettingsError, cloud_settings, unknown_variables

    with usage_errors(SettingsError, UrlError):
        settings = cloud_settings(data_directory=data_directory)
        _check_url(url)
    base_url = url.rstrip("/") or f"http://{settings.http_host}:{settings.http_port}"
    findings = [
        Finding("Python", "ok", platform.python_version()),
        _sqlite(),
        _mosquitto(),
        _front_end(),
        _settings(unknown_variables()),
        *_data(settings.data_directory, settings.sql_url(), real_time=settings.clock_speed == 1.0),
        # Another deployment's broker, a demo's for one, is judged by that deployment: its ports are its own.
        *(() if url else (_broker(settings.broker_host, settings.broker_port),)),
        *_service(base_url),
    ]
    healthy = all(found.verdict != "problem" for found in findings)
    if as_json:
        print_json({"healthy": healthy, "findings": [asdict(found) for found in findings]})
    else:
        signs = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}
        for found in findings:
            data.print(f"{signs[found.verdict]} {found.check}: {escape(found.found)}")
            if found.fix:
                data.print(f"    → {escape(found.fix)}")
    if not healthy:
        words.print("Something needs mending; see the arrows.")
        raise typer.Exit(UNHEALTHY)


class UrlError(ValueError):
    """One line for people."""


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise UrlError(f"--url {url!r} is no address of a cloud; write for example http://127.0.0.1:8000")


def _settings(unknown: Sequence[str]) -> Finding:
    if unknown:
        return Finding(
            "Settings", "warning", f"{', '.join(unknown)} is read by nobody", "correct the spelling or unset it"
        )
    return Finding("Settings", "ok", "every FLEET_ variable is a setting")


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


def _data(directory: Path, sql_url: str, *, real_time: bool) -> Iterator[Finding]:
    if not directory.exists():
        yield Finding(
            "Data directory", "warning", f"{directory} does not exist yet", "fleet serve makes it at its first start"
        )
        return
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_MIN:
        yield Finding(
            "Disk",
            "problem",
            f"{free >> 20} MB free",
            "free at least 2 GB: the spool stops taking telemetry before the disk is full",
        )
    else:
        yield Finding("Disk", "ok", f"{free >> 30} GB free")
    if sql_url.startswith("sqlite") and not (directory / "state.db").exists():
        yield Finding(
            "Database", "warning", f"no state.db in {directory} yet", "fleet serve makes it at its first start"
        )
        return
    database = _checked(
        "Database", lambda: _count_devices(sql_url), "check FLEET_DATABASE_URL, and that its server runs"
    )
    yield database
    if database.verdict == "ok" and real_time:
        yield from _clock(sql_url)


def _clock(sql_url: str) -> Iterator[Finding]:
    """This machine's clock against what is stored: devices take their time from here."""
    from sqlalchemy import select

    from cloud.adapters.sql.database import SqlDatabase
    from cloud.ingest.clock_watch import AHEAD_MS, BEHIND_MS
    from cloud.tables import twin

    database = SqlDatabase(sql_url)
    try:
        heard = database.read_here(
            lambda tx: tx.execute(select(twin.c.last_heard_at).where(twin.c.last_heard_at > 0)).scalars().all()
        )
    finally:
        database.close()
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


def _count_devices(sql_url: str) -> str:
    from sqlalchemy import func, select

    from cloud.adapters.sql.database import SqlDatabase
    from cloud.tables import device

    database = SqlDatabase(sql_url)
    try:
        count = database.read_here(lambda tx: tx.execute(select(func.count()).select_from(device)).scalar_one())
    finally:
        database.close()
    return f"{count} devices enrolled"


def _broker(host: str, port: int) -> Finding:
    def connect() -> str:
        with socket.create_connection((host, port), timeout=2):
            return f"{host}:{port} accepts connections"

    return _checked(
        "Broker", connect, f"start Mosquitto on {host}:{port}, or set FLEET_BROKER_HOST and FLEET_BROKER_PORT"
    )


def _service(base_url: str) -> Iterator[Finding]:
    def ready() -> str:
        with urllib.request.urlopen(f"{base_url}/readyz", timeout=3) as answer:
            return str(answer.read().decode())

    try:
        found = ready()
    except urllib.error.HTTPError as error:
        yield Finding(
            "Cloud",
            "problem",
            f"not ready: {error.read().decode()}",
            "the check that is not ok names the part to look at",
        )
    except (urllib.error.URLError, OSError) as error:
        yield Finding(
            "Cloud", "problem", f"{base_url} does not answer: {error}", "start it: fleet serve, or give --url"
        )
    else:
        yield Finding("Cloud", "ok", found)


def _checked(check: str, look: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(check, "ok", look())
    except Exception as error:  # noqa: BLE001  # whatever is wrong is the finding
        return Finding(check, "problem", (str(error) or type(error).__name__).splitlines()[0], fix)
