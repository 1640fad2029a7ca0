"""The command: points of one measurement into one file."""

import difflib
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.markup import escape

from cli.database import DataOption
from cli.kinds import KindFolderOption, add_kinds
from cli.output import JsonOption, data, fail, print_json, usage_errors
from cli.places import check_address, need_file, why_not

if TYPE_CHECKING:
    from cli.export.files import PointFile
    from cli.export.sources import Columns, Source
    from cloud.settings import CloudSettings

DAY_MS: Final = 86_400_000


class ExportError(ValueError):
    """One line for people."""


def export(
    kind: Annotated[str, typer.Option(help="Readings of this kind of device, or a measurement such as call_step.")],
    out: Annotated[Path, typer.Option(help="The file; it appears when it is whole.")],
    from_text: Annotated[
        str, typer.Option("--from", help="Beginning, for example 2026-11-21; empty: a day before.")
    ] = "",
    until_text: Annotated[str, typer.Option("--until", help="End, exclusive; empty: now.")] = "",
    form: Annotated[
        Literal["parquet", "csv"] | None,
        typer.Option("--format", help="Form of the file; default: by its ending, .parquet or .csv, else parquet."),
    ] = None,
    devices: Annotated[str, typer.Option(help="Only these, separated by commas; default all.")] = "",
    level: Annotated[
        Literal["raw", "minute", "hour"], typer.Option(help="As measured, or rolled up (InfluxDB only).")
    ] = "raw",
    time_zone: Annotated[str, typer.Option(help="Zone of the times; empty: FLEET_ROSTER_TIME_ZONE.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write points into a Parquet or CSV file, a day at a time: memory stays the same however much it is.

    Times are business time, as timestamps with a zone. A value that a point does not have is null (CSV: nothing
    between the commas, while an empty text is "").

    Example: [bold]fleet export --kind bike --from 2026-11-01 --until 2026-11-08 --out bikes.parquet[/bold]
    """
    from cli.clock import real_now_ms
    from cli.export.files import MissingLibraryError
    from cli.moments import MomentError, span_ms
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.ports import SeriesError

    with usage_errors(SettingsError, MomentError, ExportError, ValueError):
        settings = cloud_settings(data_directory=data_directory)
        add_kinds(kind_folder)
        _check_kind(kind)
        file_format = _format(out, form)
        zone = _zone(time_zone or settings.roster_time_zone)
        from_ms, until_ms = span_ms(from_text, until_text, zone, real_now_ms())
        _check_out(out, force=force)
        source = _source(settings, kind, level)
    temporary = out.with_name(out.name + ".part")
    try:
        columns = source.columns(from_ms, until_ms)
        chosen = [device.strip() for device in devices.split(",") if device.strip()]
        if unknown := sorted(set(chosen) - set(source.devices())):
            raise fail(f"no device {', '.join(unknown)} has points of {kind!r} in level {level!r}: nothing was written")
        if not columns.fields:
            raise fail(_nothing(source, kind, level, zone))
        count = _copy(source, columns, (from_ms, until_ms), chosen, _opened(file_format, temporary, columns, zone))
        if not count:
            raise fail(_nothing(source, kind, level, zone))
        temporary.replace(out)
    except MissingLibraryError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"--out {out}: {why_not(error)}; nothing was written") from error
    except sqlite3.Error as error:
        raise fail(
            f"{settings.data_directory}: the embedded series cannot be read ({error}); see that its disk has space, "
            "and ask fleet doctor"
        ) from error
    except SeriesError as error:
        raise fail(_refused(error, settings.influxdb_url)) from error
    finally:
        source.close()
        temporary.unlink(missing_ok=True)
    result = {
        "file": str(out), "format": file_format, "kind": kind, "level": level, "from_ms": from_ms, "until_ms": until_ms,
        "rows": count, "columns": ["time", *columns.tags, *columns.fields], "bytes": out.stat().st_size,
    }  # fmt: skip
    if as_json:
        print_json(result)
    else:
        data.print(f"{escape(str(out))}: {count} points, {len(columns.tags) + len(columns.fields) + 1} columns")


def _copy(source: "Source", columns: "Columns", span_ms: tuple[int, int], devices: list[str], file: "PointFile") -> int:
    from cli.bars import bar

    days = list(_days(*span_ms))
    count = 0
    try:
        with bar("exporting", len(days)) as advance:
            for day in days:
                for rows in source.rows(columns, *day, devices):
                    file.write(rows)
                    count += len(rows.times_ms)
                advance(1)
    finally:
        file.close()
    return count


def _days(from_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    start = from_ms
    while start < until_ms:
        end = min(until_ms, (start // DAY_MS + 1) * DAY_MS)
        yield start, end
        start = end


def _check_kind(kind: str) -> None:
    from devices import kinds
    from fleet.series import MEASUREMENTS

    known = sorted([*kinds(), *(one.name for one in MEASUREMENTS)])
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        meant = f"did you mean {near[0]}? There are" if near else "there are"
        raise ExportError(f"--kind {kind!r} is unknown; {meant} {', '.join(known)}")


def _check_out(out: Path, *, force: bool) -> None:
    if out.exists() and not force:
        raise ExportError(f"--out {out} is there already; remove it, or say --force")
    if not out.resolve().parent.is_dir():
        raise ExportError(f"--out {out}: there is no folder {out.resolve().parent}; make it first")
    need_file("--out", out)


def _format(out: Path, form: str | None) -> str:
    ending = out.suffix.lower().removeprefix(".")
    if ending not in {"parquet", "csv"}:
        return form or "parquet"
    if form not in {None, ending}:
        raise ExportError(f"--out {out} ends in .{ending}, but --format says {form}; leave --format out, or rename it")
    return ending


def _nothing(source: "Source", kind: str, level: str, zone: ZoneInfo) -> str:
    span = source.span_ms()
    if span is None:
        return f"no points of {kind!r} in level {level!r} at any time: nothing was written"
    first, last = (datetime.fromtimestamp(at_ms / 1000, zone).isoformat(timespec="seconds") for at_ms in span)
    return (
        f"no such points of {kind!r} in level {level!r} in that time: nothing was written; what is there lies between "
        f"{first} and {last} (--from, --until)"
    )


def _refused(error: Exception, url: str) -> str:
    from cloud.adapters.influx_setup import explain
    from cloud.ports import SeriesError

    if str(error).startswith("HTTP 401"):
        return f"{url} does not know this token (401): set FLEET_INFLUXDB_TOKEN to one that may read"
    return explain(error, url) if isinstance(error, SeriesError) else str(error)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError):
        raise ExportError(f"--time-zone {name!r} is unknown; write for example Asia/Shanghai") from None


def _source(settings: "CloudSettings", measurement: str, policy: str) -> "Source":
    from cli.export.sources import InfluxSource, SqliteSource
    from cloud.adapters.influx_http import InfluxHttp
    from cloud.timeseries.levels import LEVELS

    if settings.series == "influxdb":
        check_address("FLEET_INFLUXDB_URL", settings.influxdb_url)
        (level,) = (level for level in LEVELS if level.policy == policy)
        http = InfluxHttp(settings.influxdb_url, settings.influxdb_token.get_secret_value(), timeout_s=120.0)
        return InfluxSource(http, settings.influxdb_bucket.partition("/")[0], level, measurement)
    if policy != "raw":
        raise ExportError(
            f"--level {policy}: the embedded series keeps points as measured only; set FLEET_SERIES=influxdb"
        )
    path = settings.data_directory / "series.db"
    if not path.exists():
        raise ExportError(f"there is no {path}; name the data directory with --data-directory, or set FLEET_SERIES")
    return SqliteSource(path, measurement)


def _opened(file_format: str, path: Path, columns: "Columns", zone: ZoneInfo) -> Any:
    from cli.export.files import CsvFile, ParquetFile

    return ParquetFile(path, columns, zone.key) if file_format == "parquet" else CsvFile(path, columns, zone)
