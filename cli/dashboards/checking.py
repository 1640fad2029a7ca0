"""`fleet dashboards check`."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape

from cli.dashboards.building import BoardOption, LanguageOption, boards_of, read_secret
from cli.kinds import KindFolderOption
from cli.options import refuse_without_effect
from cli.output import FAILURE, UNHEALTHY, JsonOption, data, fail, print_json, usage_errors, words
from cli.places import check_address

if TYPE_CHECKING:
    from dashboards.check import Outcome
    from dashboards.queries import Span

InfluxUrlOption = Annotated[
    str, typer.Option(envvar="FLEET_INFLUXDB_URL", help="The InfluxDB that the boards read, for example http://…:8086.")
]
DatabaseOption = Annotated[str, typer.Option(help="Its database; on InfluxDB 2 the one of the DBRP mapping.")]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="File with the reader's token. Default: FLEET_INFLUXDB_TOKEN.")
]
FromOption = Annotated[
    str | None, typer.Option("--from", help="Begin of the time shown (now-30d, 2026-05-01). Default: the board's own.")
]
ToOption = Annotated[str | None, typer.Option("--to", help="Its end. Default: the board's own, which is now.")]
NowOption = Annotated[str | None, typer.Option(help="What `now` is, as an ISO date; for data of another time.")]
ZoneOption = Annotated[str, typer.Option(help="Time zone of whoever looks: what now/d means.")]
VariableOption = Annotated[
    list[str] | None, typer.Option("--variable", help="NAME=VALUE: chosen at the top of the boards; repeatable.")
]


_WITH_QUERIES = {
    "start": "--from", "end": "--to", "now": "--now", "zone": "--zone", "variable": "--variable", "ms_max": "--ms-max",
    "rows": "--rows", "influxdb_url": "--influxdb-url", "database": "--database", "token_file": "--token-file",
}  # fmt: skip


def token_of(path: Path | None, variable: str) -> str:
    """A token from a file or the environment; empty if there is none. Raises ValueError."""
    import os

    return read_secret(path, "token") if path is not None else os.environ.get(variable, "")


def chosen_of(items: Iterable[str]) -> dict[str, list[str]]:
    """NAME=VALUE… as a mapping; the same name twice chooses both. Raises ValueError."""
    chosen: dict[str, list[str]] = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise ValueError(f"--variable {item!r}: write NAME=VALUE, for example device=bike-001")
        chosen.setdefault(name, []).append(value)
    return chosen


def span_shown(board: dict[str, Any], start: str | None, end: str | None, now: str | None, zone: str) -> "Span":
    """The time that a board shows. Raises ValueError."""
    from dashboards.intervals import moment_ms
    from dashboards.queries import span_of

    try:
        place = ZoneInfo(zone)
    except (KeyError, OSError) as error:
        raise ValueError(f"--zone {zone!r} is no time zone; write for example Asia/Shanghai") from error
    now_ms = moment_ms(now, 0, place) if now else round(time.time() * 1000)
    shown = dict(board.get("time") or {})
    shown |= {key: value for key, value in (("from", start), ("to", end)) if value}
    span = span_of({"time": shown}, now_ms, place)
    if span.length_ms <= 0:
        raise ValueError("the time shown ends before it begins; check --from and --to")
    return span


def check(
    context: typer.Context,
    run_queries: Annotated[
        bool, typer.Option("--run-queries", help="Also run every query of every board on an InfluxDB.")
    ] = False,
    influxdb_url: InfluxUrlOption = "",
    database: DatabaseOption = "fleet",
    token_file: TokenFileOption = None,
    start: FromOption = None,
    end: ToOption = None,
    now: NowOption = None,
    zone: ZoneOption = "Asia/Shanghai",
    variable: VariableOption = None,
    ms_max: Annotated[float | None, typer.Option(help="Exit 3 if a query takes longer.")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Exit 3 if a panel has no rows.")] = False,
    board: BoardOption = None,
    language: LanguageOption = "zh",
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the boards' structure, and with --run-queries what every query answers.

    Each query is taken from the board's JSON, its variables are filled in as Grafana would, and it is run. Exit code 1
    if a board is broken or a query fails.

    Example: [bold]fleet dashboards check --run-queries --influxdb-url http://127.0.0.1:8086 --json[/bold]
    """
    if not run_queries:
        refuse_without_effect(
            context, _WITH_QUERIES, "without effect unless --run-queries is given; add it, or leave that out"
        )
    boards = boards_of(language, kind_folder)
    from dashboards.check import faults_of

    faults = faults_of(boards)  # of all: links lead from one to another
    wanted = {uid: boards[uid] for uid in boards if not board or uid in board}
    if missing := sorted(set(board or ()) - boards.keys()):
        raise fail(f"there is no board {', '.join(missing)}; there are {', '.join(boards)}", 2)
    outcomes: list[Outcome] = []
    if run_queries:
        with usage_errors(ValueError):
            if not influxdb_url:
                raise ValueError("--run-queries needs --influxdb-url")
            check_address("--influxdb-url", influxdb_url)
            token, chosen = token_of(token_file, "FLEET_INFLUXDB_TOKEN"), chosen_of(variable or ())
            spans = {uid: span_shown(one, start, end, now, zone) for uid, one in wanted.items()}
        outcomes = _run(wanted, spans, influxdb_url, database, token, chosen)
    report = _report(boards, faults, outcomes)
    if as_json:
        print_json(report)
    else:
        _say(report)
    if faults or report["errors"]:
        raise typer.Exit(FAILURE)
    slow = [one for one in report["queries"] if ms_max is not None and one["ms"] > ms_max]
    empty = [one for one in report["queries"] if rows and one["place"] == "panel" and not one["rows"]]
    for one in slow:
        words.print(f"slow: {one['board']} {one['name']} {one['ref']}: {one['ms']} ms", markup=False)
    for one in empty:
        words.print(f"empty: {one['board']} {one['name']} {one['ref']}", markup=False)
    if slow or empty:
        raise typer.Exit(UNHEALTHY)


def _run(
    boards: dict[str, Any], spans: dict[str, Any], url: str, database: str, token: str, chosen: dict[str, list[str]]
) -> "list[Outcome]":
    from cli.dashboards.influx import InfluxError, InfluxReader
    from dashboards.check import run_board

    try:
        with InfluxReader(url, database, token) as reader:
            reader.check_database()
            return [
                outcome for uid, one in boards.items() for outcome in run_board(one, reader.run, spans[uid], chosen)
            ]
    except InfluxError as error:
        raise fail(str(error)) from error


def _report(boards: dict[str, Any], faults: Any, outcomes: "list[Outcome]") -> dict[str, Any]:
    queries = [
        {
            "board": one.query.board, "place": one.query.place, "panel_id": one.query.panel_id, "name": one.query.name,
            "ref": one.query.ref, "rows": one.answer.rows, "series": len(one.answer.series),
            "ms": round(one.answer.ms, 1), "error": one.answer.error, "query": one.filled.text,
        }
        for one in outcomes
    ]  # fmt: skip
    return {
        "boards": len(boards),
        "panels": sum(len(board.get("panels") or ()) for board in boards.values()),
        "faults": [{"board": fault.board, "where": fault.where, "words": fault.words} for fault in faults],
        "queries": queries,
        "errors": sum(one["error"] is not None for one in queries),
        "empty": sum(one["place"] == "panel" and not one["rows"] and one["error"] is None for one in queries),
        "ms_max": max((round(one.answer.ms, 1) for one in outcomes), default=None),
    }


def _say(report: dict[str, Any]) -> None:
    for fault in report["faults"]:
        data.print(f"[red]broken[/red] {escape(fault['board'])}: {escape(fault['where'])}: {escape(fault['words'])}")
    for one in report["queries"]:
        name = escape(f"{one['board']} {one['place']} {one['name']} {one['ref']}".rstrip())
        if one["error"] is not None:
            data.print(f"[red]error[/red]  {name}: {escape(one['error'])}\n       {escape(one['query'])}")
        else:
            data.print(f"{one['rows']:6d} rows {one['ms']:8.1f} ms  {name}")
    counts = f"{report['boards']} boards, {report['panels']} panels: {len(report['faults'])} broken"
    if report["queries"]:
        counts += f"; {len(report['queries'])} queries, {report['errors']} failed, {report['empty']} without rows, "
        counts += f"slowest {report['ms_max']} ms"
    words.print(counts)
