"""`fleet serve`: the cloud in one process, or one role of it."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from cli.output import print_json, usage_errors, words

if TYPE_CHECKING:
    from cloud.settings import CloudSettings


def serve(
    data_directory: Annotated[Path | None, typer.Option(help="Where spool, SQLite and keys live.")] = None,
    http_host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    role: Annotated[
        Literal["all", "ingest", "dispatch", "api"],
        typer.Option(help="One role per process needs PostgreSQL (FLEET_DATABASE_URL)."),
    ] = "all",
    shards: Annotated[str | None, typer.Option(help="Which devices this ingester takes: `share`, or 0-31.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="At the start, what runs with which settings as one JSON document.")
    ] = False,
) -> None:
    """Serve the cloud: take what devices report, decide, tell people, answer pages and API.

    Every setting is a FLEET_… variable; see docs/operations.md.

    Examples: [bold]fleet serve --data-directory /var/lib/fleet --http-port 8000[/bold]
    [bold]fleet serve --role ingest --shards 0-31[/bold]
    """
    import secrets

    from cli.clock import SystemClock, real_now_ms
    from cli.settings_errors import SettingsError, cloud_settings, warnings
    from cloud.bootstrap import ConfigurationError, Surroundings, run_cloud

    with usage_errors(SettingsError, ConfigurationError):
        settings = cloud_settings(
            data_directory=data_directory, http_host=http_host, http_port=http_port, shards=shards
        )
        for line in warnings():
            words.print(f"[yellow]warning:[/yellow] {escape(line)}")
        if as_json:
            print_json(_summary(settings, role))
        clock = SystemClock(
            speed=settings.clock_speed, origin_ms=settings.clock_origin_ms, shift_ms=settings.clock_shift_ms
        )
        try:
            asyncio.run(
                run_cloud(
                    settings,
                    Surroundings(
                        clock=clock,
                        real_now_ms=real_now_ms,
                        randomness=secrets.SystemRandom(),
                        new_id=lambda: secrets.token_hex(16),
                    ),
                    role,
                )
            )
        except* (SettingsError, ConfigurationError) as errors:
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise ConfigurationError(str(first)) from None
    words.print("stopped")


def _summary(settings: "CloudSettings", role: str) -> dict[str, Any]:
    """What runs, without a secret."""
    return {
        "role": role,
        "url": settings.public_url or f"http://{settings.http_host}:{settings.http_port}",
        "broker": f"{settings.broker_host}:{settings.broker_port}",
        "tls": settings.broker_ca_file is not None,
        "data_directory": str(settings.data_directory),
        "database": "external" if settings.database_url else "sqlite",
        "series": settings.series,
        "kind_folders": [str(folder) for folder in settings.kind_folders],
    }
