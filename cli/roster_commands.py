"""`fleet roster …`: who is on duty, on the database of this machine or of FLEET_DATABASE_URL.

What is changed here a running `fleet serve` sees with its next look, within a second for calls.
"""

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.markup import escape

from cli.database import DataOption, Installation, command_line, with_services
from cli.output import FAILURE, USAGE, JsonOption, data, fail, print_json, print_rows, words

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cloud.roster.schemas import ImportAnswer
    from cloud.roster.service import RosterService

T = TypeVar("T")

app = typer.Typer(help="See and change who is on duty: now, the next days, holes, swaps.", no_args_is_help=True)

DaysOption = Annotated[int, typer.Option("--days", min=1, max=56, help="How many days from now on.")]


def with_roster(data_directory: Path | None, work: "Callable[[RosterService], Awaitable[T]]") -> T:
    """Run `work` on the roster of this machine; what is wrong ends the command in words."""

    async def act(here: Installation) -> T:
        from zoneinfo import ZoneInfo

        from cloud.api.changes import Changes
        from cloud.api.problem import ProblemError
        from cloud.roster.service import RosterService

        zone = ZoneInfo(here.settings.roster_time_zone)
        try:
            return await work(RosterService(here.database, here.clock, Changes(), zone))
        except ProblemError as problem:
            if "lines" not in problem.extra:
                raise
            for line in problem.extra["lines"]:
                words.print(escape(f"line {line['line']}: {line['why']['en']}; {line['fix']['en']}"))
            count = len(problem.extra["lines"])
            raise fail(f"{count} bad line{'s' if count > 1 else ''}, nothing was imported") from None

    return with_services(data_directory, act)


def print_model(answer: "BaseModel") -> None:
    """An answer as JSON."""
    print_json(answer.model_dump(mode="json"))


def _local(at_ms: int | None, zone: Any) -> str:
    from cloud.roster.calendars import moment_of

    return "" if at_ms is None else f"{moment_of(at_ms, zone):%Y-%m-%d %H:%M}"


@app.command("now")
def now(data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Who is on call now, until when, and who comes next. Exit code 1 when nobody is.

    Example: [bold]fleet roster now --json[/bold]
    """

    async def read(roster: "RosterService") -> tuple[Any, Any]:
        return await roster.now(), roster.zone

    answer, zone = with_roster(data_directory, read)
    if as_json:
        print_model(answer)
    else:
        rows = [
            {
                "tier": tier.tier.value,
                "person": one.name,
                "id": one.person_id,
                "crew": one.crew_id,
                "until": _local(one.until_at, zone),
                "stands_in_for": one.stands_in_for_name,
                "reached": f"no: {one.unreachable.en}" if one.unreachable else "yes",
            }
            for tier in answer.tiers
            for one in tier.people
        ]
        columns = ("tier", "person", "id", "crew", "until", "stands_in_for", "reached")
        print_rows(rows, columns, as_json=False, empty="Nobody is on duty.")
        for tier in answer.tiers:
            if not tier.people and answer.planned:
                words.print(f"[red]hole:[/red] nobody is on duty as {tier.tier.value}")
            if tier.next_at:
                names = escape(", ".join(tier.next_names))
                words.print(f"{tier.tier.value} from {_local(tier.next_at, zone)}: {names}")
        if not answer.planned:
            words.print("There is no roster yet: everybody is on duty. Import one: fleet roster import FILE")
    if not answer.tiers[0].people:
        raise typer.Exit(FAILURE)


@app.command("show")
def show(
    days: DaysOption = 14,
    person: Annotated[str, typer.Option(help="Only this person, by id, login or name.")] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The shifts of the next days.

    Example: [bold]fleet roster show --days 7 --person li[/bold]
    """

    async def read(roster: "RosterService") -> tuple[Any, Any, set[str]]:
        listed = await roster.crews()
        members = [*listed.without_crew, *(one for crew in listed.crews for one in crew.members)]
        wanted = {one.person_id for one in members if person in {one.person_id, one.login, one.name}}
        return await roster.roster(days), roster.zone, wanted

    answer, zone, wanted = with_roster(data_directory, read)
    if person and not wanted:
        raise fail(f"no member {person!r}; list them: fleet roster crews")
    if person:
        answer.shifts = [one for one in answer.shifts if one.person_id in wanted]
        answer.total = len(answer.shifts)
    if as_json:
        print_model(answer)
        return
    rows = [
        {
            "tier": one.tier.value, "person": one.name, "crew": one.crew_id, "from": _local(one.from_at, zone),
            "until": _local(one.until_at, zone), "stands_in_for": one.stands_in_for_name,
        }
        for one in answer.shifts
    ]  # fmt: skip
    columns = ("tier", "person", "crew", "from", "until", "stands_in_for")
    print_rows(rows, columns, as_json=False, empty="No shifts in that time. Import some: fleet roster import FILE")


@app.command("check")
def check(days: DaysOption = 14, data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Whether every minute is covered by people who can be reached. Exit code 1 when not.

    Example: [bold]fleet roster check --days 14 --json[/bold]
    """

    async def read(roster: "RosterService") -> tuple[Any, Any]:
        return await roster.check(days), roster.zone

    answer, zone = with_roster(data_directory, read)
    if as_json:
        print_model(answer)
    else:
        rows = [
            {
                "what": one.what.value, "tier": one.tier.value, "from": _local(one.from_at, zone),
                "until": _local(one.until_at, zone), "person": one.name, "why": one.text.en,
            }
            for one in answer.findings
        ]  # fmt: skip
        columns = ("what", "tier", "from", "until", "person", "why")
        print_rows(rows, columns, as_json=False, empty=f"Covered for {days} days, by people who can be reached.")
        if not answer.planned:
            words.print("There is no roster yet: everybody is on duty. Import one: fleet roster import FILE")
    if not answer.ok:
        raise typer.Exit(FAILURE)


@app.command("import")
def import_roster(
    file: Annotated[Path, typer.Argument(help="A table (.csv) or a calendar (.ics); `-` reads stdin.")],
    file_format: Annotated[
        Literal["csv", "ical"] | None, typer.Option("--format", help="What it is; else told by its name.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="End plans that the file does not have.")] = False,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take over a file, all of it or nothing. Each bad line is named with what is wrong and how to mend it.

    Exit code 1 when lines are bad, also for a dry run.

    Example: [bold]fleet roster import december.csv --dry-run[/bold]
    """
    from cloud.roster.schemas import FileFormat

    raw = _read(file)
    kind = FileFormat(file_format or ("ical" if file.suffix.lower() in {".ics", ".ical"} else "csv"))

    async def bring(roster: "RosterService") -> tuple["ImportAnswer", Any]:
        return await roster.import_file(raw, kind, command_line(), dry_run=dry_run, replace=replace), roster.zone

    answer, zone = with_roster(data_directory, bring)
    if as_json:
        print_model(answer)
    else:
        _say_import(answer, zone)
    if answer.bad:
        raise typer.Exit(FAILURE)


def _read(file: Path) -> bytes:
    from cloud.roster.drafts import BYTES_MAX

    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(BYTES_MAX + 1)
        with file.open("rb") as opened:
            return opened.read(BYTES_MAX + 1)
    except OSError as error:
        raise fail(f"{file} can't be read ({error.strerror}); name a file that is there", USAGE) from None


def _say_import(answer: "ImportAnswer", zone: Any) -> None:
    rows = [
        {"change": name, "line": one.line or None, "tier": one.tier, "who": one.who, "next": _local(one.next_at, zone)}
        for name, those in (("added", answer.added), ("changed", answer.changed), ("removed", answer.removed))
        for one in those
    ]
    print_rows(rows, ("change", "line", "tier", "who", "next"), as_json=False, empty="No plan changes.")
    for line in answer.bad:
        words.print(escape(f"line {line.line}: {line.why.en}; {line.fix.en}"))
    if answer.take_overs_lost:
        words.print(f"take-overs that are lost: {answer.take_overs_lost}")
    for hole in answer.holes_after:
        times = f"{_local(hole.from_at, zone)} – {_local(hole.until_at, zone)}"
        words.print(f"[yellow]hole:[/yellow] nobody on duty as {hole.tier.value}, {times}")
    done = "Imported" if answer.imported else "Nothing was changed"
    words.print(f"{done}. Unchanged: {answer.unchanged_count}")


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; else stdout.")] = None,
    file_format: Annotated[
        Literal["csv", "ical"] | None, typer.Option("--format", help="csv or ical; else told by the name.")
    ] = None,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """All plans as a file that `import` takes back unchanged.

    Example: [bold]fleet roster export roster.ics[/bold]
    """
    from cloud.roster.schemas import FileFormat

    by_name = "ical" if file is not None and file.suffix.lower() in {".ics", ".ical"} else "csv"
    kind = FileFormat(file_format or by_name)
    content = with_roster(data_directory, lambda roster: roster.export(kind))
    if file is None and as_json:
        print_json({"format": kind.value, "content": content.decode("utf-8-sig")})
        return
    if file is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        file.write_bytes(content)
    except OSError as error:
        raise fail(f"{file} can't be written ({error.strerror}); choose another place", USAGE) from None
    if as_json:
        print_json({"format": kind.value, "file": str(file), "bytes": len(content)})
    else:
        words.print(f"written: {escape(str(file))}")


@app.command("take-over")
def take_over(
    from_person: Annotated[str, typer.Option("--from", help="Whose shift, by id or login.")],
    to_person: Annotated[str, typer.Option("--to", help="Who does it, by id or login.")],
    at: Annotated[str, typer.Option(help="From when, as 2026-12-01T18:00 on the roster's clock; else now.")] = "",
    until: Annotated[str, typer.Option(help="Until when; else to the end of the shift.")] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Somebody does (the rest of) another's shift.

    Example: [bold]fleet roster take-over --from li --to an --until 2026-12-01T20:00[/bold]
    """
    from cloud.roster.schemas import TakeOverBody

    async def swap(roster: "RosterService") -> tuple[Any, Any]:
        times = {"at": _moment(at, roster.zone), "until": _moment(until, roster.zone)}
        body = TakeOverBody(from_person=from_person, to_person=to_person, **times)
        return await roster.take_over(body, command_line()), roster.zone

    answer, zone = with_roster(data_directory, swap)
    if as_json:
        print_model(answer)
        return
    for one in answer.shifts:
        times = f"{_local(one.from_at, zone)} – {_local(one.until_at, zone)}"
        data.print(escape(f"{one.name} is on duty as {one.tier.value}, {times}"))


def _moment(text: str, zone: Any) -> int | None:
    from cloud.roster.calendars import aware, ms_of

    if not text:
        return None
    try:
        return ms_of(aware(datetime.fromisoformat(text), zone))
    except ValueError:
        raise fail(f"{text!r}: write a time as 2026-12-01T18:00", USAGE) from None
