"""The command: which checks there are, in which order, and how their findings are told."""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from cli.clock import real_now_ms
from cli.doctor.finding import Finding, guarded
from cli.output import UNHEALTHY, JsonOption, data, print_json, usage_errors, words

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

_TELL = "please report it with what stands here; the other checks are not affected"


def doctor(
    data_directory: Annotated[Path | None, typer.Option(help="Where `fleet serve` keeps its data.")] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(help="A running `fleet serve`, once for each role; none looks at the configured port."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine and the deployment; exit code 3 if something needs mending.

    Run it with the settings of the deployment (FLEET_…): broker, database, InfluxDB, Grafana, watchdog, certificates
    and backups are looked at as the processes see them. It changes nothing.

    Examples: [bold]fleet doctor --url http://127.0.0.1:8000[/bold]
    [bold]docker compose --profile full run --rm doctor[/bold]
    """
    from cli.settings_errors import SettingsError, cloud_settings

    with usage_errors(SettingsError, UrlError):
        settings = cloud_settings(data_directory=data_directory)
        urls = [_url(one) for one in url or [] if one]
    findings = list(_findings(settings, urls))
    healthy = all(found.verdict != "problem" for found in findings)
    if as_json:
        print_json({"healthy": healthy, "findings": [asdict(found) for found in findings]})
    else:
        show(findings)
    if not healthy:
        words.print("Something needs mending; see the arrows.")
        raise typer.Exit(UNHEALTHY)


def show(findings: Iterable[Finding]) -> None:
    """For people: a sign, what was found, and an arrow to the fix."""
    signs = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}
    for found in findings:
        data.print(f"{signs[found.verdict]} {escape(found.check)}: {escape(found.found)}")
        if found.fix:
            data.print(f"    → {escape(found.fix)}")


def _findings(settings: "CloudSettings", urls: list[str]) -> Iterator[Finding]:
    from cli.doctor.broker import look_at_broker, look_at_certificates
    from cli.doctor.grafana import look_at_grafana
    from cli.doctor.machine import look_at_backups, look_at_disk, look_at_machine, look_at_settings
    from cli.doctor.series import look_at_series
    from cli.doctor.service import look_at_service, look_at_watch
    from cli.doctor.sql import look_at_sql

    yield from guarded("Machine", look_at_machine, _TELL)
    yield from guarded("Settings", lambda: look_at_settings(settings), _TELL)
    yield from guarded("Data directory", lambda: look_at_disk(settings), "let this account read FLEET_DATA_DIRECTORY")
    yield from guarded("Database", lambda: look_at_sql(settings), _TELL)
    # Another deployment's broker, a demo's for one, is judged by that deployment: its ports are its own.
    if not urls or settings.broker_ca_file is not None:
        yield from guarded("Broker", lambda: look_at_broker(settings, _now()), "fleet broker check")
    yield from guarded("Certificates", lambda: look_at_certificates(settings, _now()), "fleet pki status")
    yield from guarded("InfluxDB", lambda: look_at_series(settings, _now), "look at its log")
    yield from guarded("Grafana", lambda: look_at_grafana(settings), "look at its log")
    for name, base_url in _services(settings, urls):
        yield from guarded(name, partial(look_at_service, base_url, name), _TELL)
    yield from guarded("Watchdog", lambda: look_at_watch(settings), _TELL)
    yield from guarded("Backups", lambda: look_at_backups(settings, real_now_ms()), "correct FLEET_BACKUP_DIRECTORY")


def _services(settings: "CloudSettings", urls: list[str]) -> Iterator[tuple[str, str]]:
    """What each process is called, and where it answers."""
    if not urls:
        host = "127.0.0.1" if settings.http_host in {"0.0.0.0", "::"} else settings.http_host  # noqa: S104  # asked, not listened on
        yield "Cloud", f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}"
    for url in urls:
        yield "Cloud" if len(urls) == 1 else f"Cloud {urlsplit(url).netloc}", url


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class UrlError(ValueError):
    """One line for people."""


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise UrlError(f"--url {text!r} is no address of a cloud; write for example http://127.0.0.1:8000")
    return text.rstrip("/")
