"""The commands; what they do stands in `cloud.adapters.influx_…` and beside this file."""

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.output import USAGE, JsonOption, data, fail, print_json, usage_errors, words
from cli.places import check_address, need_folder, why_not, why_unread

if TYPE_CHECKING:
    from cloud.adapters.influx_http import InfluxHttp
    from cloud.settings import CloudSettings

app = typer.Typer(help="Make an InfluxDB ready, roll it up by hand, back it up, restore it.", no_args_is_help=True)

UrlOption = Annotated[str | None, typer.Option("--url", help="Instead of FLEET_INFLUXDB_URL.")]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="File with the token, instead of FLEET_INFLUXDB_TOKEN.")
]
DatabaseOption = Annotated[str | None, typer.Option("--database", help="Instead of FLEET_INFLUXDB_BUCKET.")]
FromOption = Annotated[str, typer.Option("--from", help="Beginning, for example 2026-11-21 or 2026-11-21T08:00+08:00.")]
UntilOption = Annotated[str, typer.Option("--until", help="End, exclusive; empty: now.")]
HOURS_PER_DAY = 24
LEVEL_NAMES = ("raw", "minute", "hour")
REQUEST_S_MAX = 120.0
"""A roll-up or a backup asks for much at once, and nobody waits for it."""


@app.command()
def init(
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    database: DatabaseOption = None,
    raw_days: Annotated[int | None, typer.Option(min=1, max=36_500, help="How long readings are kept; 30.")] = None,
    minute_days: Annotated[int | None, typer.Option(min=1, max=36_500, help="How long minutes are kept; 365.")] = None,
    hour_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="How long hours and steps are kept; 1825.")
    ] = None,
    tokens_directory: Annotated[
        Path | None, typer.Option(help="Where the tokens of 2.x are written: influxdb-writer, influxdb-reader.")
    ] = None,
    shorten: Annotated[
        bool, typer.Option("--shorten", help="Levels named here may be kept shorter than now: deletes data.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made and changed; change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make database, levels, mappings and tokens, or say that they are there; run it as often as you like.

    On 2.x it needs an operator's or an all-access token, and makes two with least rights: a writer for `fleet serve`
    and a reader for Grafana. On 1.x it needs an administrator's access.

    Example: [bold]fleet influx init --token-file operator-token --tokens-directory deploy/secrets --dry-run[/bold]
    """
    from cloud.adapters.influx_setup import SetupError, Wanted, explain, prepare
    from cloud.ports import SeriesError
    from cloud.timeseries.levels import HOUR, LEVELS, MINUTE, RAW

    settings, http = opened(url, token_file, database)
    with usage_errors(UnusableFolderError):
        folder = _tokens_folder(tokens_directory, dry_run=dry_run)
    written: list[str] = []

    def keep_token(role: str, token: str) -> None:
        path = folder / f"influxdb-{role}"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR), "w") as file:
            file.write(token)
        written.append(str(path))

    named = {level: days for level, days in ((RAW, raw_days), (MINUTE, minute_days), (HOUR, hour_days)) if days}
    levels = tuple(
        replace(level, days=days, shard_days=min(level.shard_days, days))
        for level in LEVELS
        for days in (named.get(level, level.days),)
    )
    wanted = Wanted(
        database=settings.influxdb_bucket.partition("/")[0], organisation=settings.influxdb_org, levels=levels,
        shorten=frozenset(level.policy for level in named) if shorten else frozenset(), dry_run=dry_run,
    )  # fmt: skip
    try:
        if not http.version():
            raise fail(f"{http.url} answers, but is no InfluxDB; correct --url or FLEET_INFLUXDB_URL (port 8086?)")
        version, steps = prepare(http, wanted, keep_token)
    except SetupError as error:
        raise fail(str(error)) from error
    except SeriesError as error:
        raise fail(explain(error, http.url)) from error
    finally:
        http.close()
    if as_json:
        document = {"url": http.url, "version": version, "dry_run": dry_run, "steps": [asdict(step) for step in steps]}
        print_json(document | {"token_files": written})
        return
    words.print(f"InfluxDB {escape(version)} at {escape(http.url)}")
    for step in steps:
        change = escape(step.is_now) if step.was == step.is_now else f"{escape(step.was)} → {escape(step.is_now)}"
        data.print(f"{step.outcome:>12}  {escape(step.thing)}: {change}")
    for path in written:
        words.print(f"token written to {escape(path)}, readable by you alone; nobody can show it again")


@app.command()
def rollup(
    from_text: FromOption = "",
    until_text: UntilOption = "",
    measurement: Annotated[list[str] | None, typer.Option(help="Only these; default all.")] = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Roll a stretch of time up again, by minute and by hour; the same again changes nothing.

    `fleet serve` does this by itself. By hand it is for points that were there before, or came another way.

    Example: [bold]fleet influx rollup --from 2026-11-01 --until 2026-11-08[/bold]
    """
    from cli.bars import bar
    from cli.moments import MomentError, span_ms
    from cloud.adapters.influx_rollup import InfluxRollup
    from cloud.adapters.influx_setup import explain
    from cloud.ports import SeriesError
    from cloud.timeseries.levels import HOUR, LEVELS, ROLLED

    settings, http = opened(url, token_file, database)
    with usage_errors(MomentError):
        from_ms, until_ms = span_ms(from_text, until_text, zone_of(settings), now_ms())
    store = InfluxRollup(http, settings.influxdb_bucket.partition("/")[0])
    check_there(http, settings, [level.policy for level in LEVELS])
    first_hour, end_hour = from_ms // HOUR.window_ms, -(-until_ms // HOUR.window_ms)
    lines: dict[str, int] = {level.policy: 0 for level in ROLLED}
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    try:
        known = store.measurements()
        unknown = sorted(set(measurement or ()) - set(known))
        if unknown:
            raise fail(f"no measurement {unknown[0]!r} in the database; there are {', '.join(known) or 'none'}")
        chosen = sorted(measurement or known)
        with bar("rolling up", (end_hour - first_hour) * len(chosen)) as advance:
            for name in chosen:
                for hour in range(first_hour, end_hour):
                    span = (hour * HOUR.window_ms, (hour + 1) * HOUR.window_ms)
                    for level in ROLLED:
                        lines[level.policy] += store.roll_here(level, name, *span)
                    advance(1)
    except SeriesError as error:
        raise fail(f"{explain(error, http.url)}; what was rolled up stays, run it again") from error
    finally:
        http.close()
    result: dict[str, Any] = {
        "from_ms": first_hour * HOUR.window_ms, "until_ms": end_hour * HOUR.window_ms, "measurements": chosen,
        "lines": lines, "cost": _cost(
            time.monotonic() - began_s, time.process_time() - began_cpu_s, (end_hour - first_hour) / HOURS_PER_DAY
        ),
    }  # fmt: skip
    if as_json:
        print_json(result)
    else:
        data.print(f"{len(chosen)} measurements, {lines['minute']} minutes and {lines['hour']} hours written")
        words.print(
            f"{result['cost']['seconds_per_day']} s for a day, {result['cost']['cpu_s_per_day']} s of it CPU here"
        )


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where the files go; one that holds a part of it is continued.")],
    from_text: FromOption = "",
    until_text: UntilOption = "",
    policy: Annotated[list[str] | None, typer.Option(help="Only these levels; default raw, minute and hour.")] = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the points as line protocol (gzip) with a manifest of counts and checksums. Goes on where it broke off.

    Without --from everything is taken from the first point on.

    Example: [bold]fleet influx backup /backup/series-2026-11-21[/bold]
    """
    from cli.bars import bar
    from cli.influx.backup import Backup, BackupError
    from cli.moments import MomentError, moment_ms
    from cloud.adapters.influx_setup import explain
    from cloud.ports import SeriesError

    settings, http = opened(url, token_file, database)
    with usage_errors(MomentError):
        zone = zone_of(settings)
        until_ms = moment_ms("--until", until_text, zone) if until_text else now_ms()
        from_ms = moment_ms("--from", from_text, zone) if from_text else None
    policies = tuple(dict.fromkeys(policy or LEVEL_NAMES))
    # Older databases lack a level; one that is named must be there.
    there = check_there(http, settings, policy or ())
    need_folder("backup", folder)
    try:
        database_name = settings.influxdb_bucket.partition("/")[0]
        work = Backup(http, database_name, folder, tuple(name for name in policies if name in there))
        pieces = work.plan(from_ms, until_ms)
        with bar("backing up", len(pieces)) as advance:
            for piece in pieces:
                work.take(piece)
                advance(1)
        if work.is_empty:
            work.discard()
            raise fail(
                f"nothing was backed up: database {database_name!r} holds no points of that time in "
                f"{', '.join(name for name in policies if name in there) or 'any level'}"
            )
        _told(work.finish(), as_json=as_json)
    except BackupError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"backup {folder}: {why_not(error)}; then run it again, it goes on here") from error
    except SeriesError as error:
        raise fail(f"{explain(error, http.url)}; run it again, it goes on here") from error
    finally:
        http.close()


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `fleet influx backup` wrote.")],
    policy: Annotated[list[str] | None, typer.Option(help="Only these levels; default all in it.")] = None,
    check_only: Annotated[bool, typer.Option("--check", help="Compare checksums and counts; write nothing.")] = False,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a backup's points, then count them on the server. Points that are there already stay as they are.

    Levels must be there first: `fleet influx init`. Points older than a level keeps are refused by InfluxDB and
    reported as expired.

    Example: [bold]fleet influx restore /backup/series-2026-11-21 --database fleet[/bold]
    """
    from cli.bars import bar
    from cli.influx.backup import BackupError
    from cli.influx.restore import Restore, UnknownLevelError, check_levels
    from cloud.adapters.influx_setup import explain
    from cloud.ports import SeriesError

    settings, http = opened(url, token_file, database)
    try:
        with usage_errors(UnknownLevelError):
            check_levels(folder, policy or ())
        work = Restore(http, settings.influxdb_bucket.partition("/")[0], folder, tuple(policy or ()))
        if not work.pieces:
            raise fail(f"{folder} is a backup of nothing: it holds no points, and nothing was restored")
        check_there(http, settings, sorted({piece.policy for piece in work.pieces}))
        with bar("checking" if check_only else "restoring", len(work.pieces) * (1 if check_only else 2)) as advance:
            for piece in () if check_only else work.pieces:
                work.write(piece)
                advance(1)
            for piece in work.pieces:
                work.compare(piece)
                advance(1)
        _told(work.result(), as_json=as_json)
    except BackupError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"{error.filename or folder}: {why_unread(error)}") from error
    except SeriesError as error:
        raise fail(f"{explain(error, http.url)}; run it again, what is written stays") from error
    finally:
        http.close()
    if work.missing:
        raise fail(
            f"{work.missing} values of the backup are not on the server: run it again, or see `docs/operations.md`"
        )


def _cost(seconds: float, cpu_s: float, days: float) -> dict[str, float]:
    """Of a roll-up by hand, without the rests of the worker; `cpu_s` is of this process, not of InfluxDB's."""
    return {
        "seconds": round(seconds, 2), "cpu_s": round(cpu_s, 2),
        "seconds_per_day": round(seconds / days, 2), "cpu_s_per_day": round(cpu_s / days, 2),
    }  # fmt: skip


# --- shared ----------------------------------------------------------------------------------------------------------


class UnusableFolderError(ValueError):
    """One line for people."""


def opened(url: str | None, token_file: Path | None, database: str | None) -> "tuple[CloudSettings, InfluxHttp]":
    """Settings with what the options say instead, and a client; ends the command where they are wrong."""
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.adapters.influx_http import InfluxHttp

    with usage_errors(SettingsError, UnusableFolderError, ValueError):
        settings = cloud_settings(influxdb_url=url, influxdb_token=_token(token_file), influxdb_bucket=database)
        check_address("FLEET_INFLUXDB_URL" if url is None else "--url", settings.influxdb_url)
    token = settings.influxdb_token.get_secret_value()
    return settings, InfluxHttp(settings.influxdb_url, token, timeout_s=REQUEST_S_MAX)


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UnusableFolderError(f"--token-file {path}: {why_unread(error)}") from error
    except UnicodeError as error:
        raise UnusableFolderError(f"--token-file {path}: holds no token: a token is plain ASCII") from error


def check_there(http: "InfluxHttp", settings: "CloudSettings", policies: Sequence[str]) -> list[str]:
    """The levels (retention policies) of the database; ends the command where it or one of `policies` is missing."""
    from cloud.adapters.influx_http import identifier
    from cloud.adapters.influx_setup import explain
    from cloud.ports import SeriesAccessError, SeriesError

    name = settings.influxdb_bucket.partition("/")[0]
    try:
        try:
            there = _column(http, f"SHOW RETENTION POLICIES ON {identifier(name)}")
        except SeriesAccessError as error:
            if "database not found" not in str(error):
                raise
            there = []
        if not there:
            known = ", ".join(sorted(set(_column(http, "SHOW DATABASES")) - {"_internal"})) or "none"
            raise fail(f"there is no database {name!r} at {http.url}; there are: {known} (fleet influx init)", USAGE)
    except SeriesError as error:
        raise fail(explain(error, http.url)) from error
    if missing := [policy for policy in policies if policy not in there]:
        named = ", ".join(missing)
        raise fail(
            f"database {name!r} has no level {named}; there are: {', '.join(there)} (fleet influx init makes ours)",
            USAGE,
        )
    return there


def _column(http: "InfluxHttp", statement: str) -> list[str]:
    return [str(row[0]) for one in http.query(statement) for row in one.get("values") or ()]


def zone_of(settings: "CloudSettings") -> Any:
    """In which moments without an offset are meant."""
    from zoneinfo import ZoneInfo

    return ZoneInfo(settings.roster_time_zone)


def now_ms() -> int:
    """Now; the commands of this file work on deployments, whose time is real."""
    from cli.clock import real_now_ms

    return real_now_ms()


def _tokens_folder(folder: Path | None, *, dry_run: bool) -> Path:
    """The folder exists and is writable before anything is made: a token is shown by the server only once."""
    chosen = folder or Path()
    if not dry_run and not (chosen.is_dir() and os.access(chosen, os.W_OK)):
        raise UnusableFolderError(f"--tokens-directory {chosen}: no folder that can be written to; make it first")
    return chosen


def _told(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        data.print(f"{name.replace('_', ' ')}: {escape(str(value))}")
