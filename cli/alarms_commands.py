"""`fleet alarms …`: what needs people, what is hidden and why, and people's acts on it.

They work on the database of this machine or of FLEET_DATABASE_URL. An act enters the lane of its device: the process
that ingests picks it up within a second, so `fleet serve` must run for it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cli.alarm_desk import COLUMNS, Desk, at_desk, dumped, moment, one_of, print_history, readable, refused
from cli.database import DataOption
from cli.kinds import KindFolderOption
from cli.maintenance_commands import ReasonOption, incidents_app, windows_app
from cli.output import USAGE, JsonOption, data, fail, print_json, print_rows, usage_errors, words

app = typer.Typer(help="See alarms, acknowledge and hide them, and how much they ask of people.", no_args_is_help=True)
app.add_typer(windows_app, name="windows")
app.add_typer(incidents_app, name="incidents")

AlarmArgument = Annotated[str, typer.Argument(help="Its id, from `fleet alarms list`.")]
LanguageOption = Annotated[str, typer.Option("--language", help="zh or en, for titles.")]


@app.command("list")
def list_alarms(
    state: Annotated[str, typer.Option(help="Only this state.")] = "",
    kind: Annotated[str, typer.Option(help="Only this kind of device.")] = "",
    priority: Annotated[str, typer.Option(help="Only this priority.")] = "",
    device_id: Annotated[str, typer.Option("--device", help="Only this device.")] = "",
    site: Annotated[str, typer.Option(help="Only this site.")] = "",
    hidden: Annotated[bool, typer.Option("--hidden", help="Only those that are hidden.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also what is back to normal.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 100,
    language: LanguageOption = "en",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Alarms that are not back to normal, newest first.

    Example: [bold]fleet alarms list --priority high --json[/bold]
    """
    from fleet.incident import AlarmState, Priority

    one_of("--state", state, [one.value for one in AlarmState])
    one_of("--priority", priority, [one.value for one in Priority])
    wanted = {"state": state, "kind": kind, "priority": priority, "device_id": device_id, "site": site}
    wanted = {name: value for name, value in wanted.items() if value}
    if hidden:
        wanted["hidden"] = "yes"

    async def read(desk: Desk) -> list[dict[str, Any]]:
        found = await desk.alarms.alarms(wanted, is_open=not everything, before=None, limit=limit)
        return [line.model_dump(mode="json") for line in found.alarms]

    rows = at_desk(data_directory, kind_folder, read)
    if not as_json:
        rows = [readable(row, language) for row in rows]
    print_rows(rows, COLUMNS, as_json=as_json, empty="No such alarm.")


@app.command("show")
def show(
    alarm_id: AlarmArgument,
    language: LanguageOption = "en",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """One alarm: what it means, what to do, and every transition with who and why.

    Example: [bold]fleet alarms show 0a1b… --json[/bold]
    """
    answer = at_desk(data_directory, kind_folder, lambda desk: dumped(desk.alarms.alarm(alarm_id)))
    if as_json:
        print_json(answer)
        return
    guide, steps = answer.pop("guide"), answer.pop("transitions")
    for name, value in readable(answer, language).items():
        data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape(str(value))}")
    for name, value in (guide or {}).items():
        text = value[language] if isinstance(value, dict) else value
        data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape(str(text))}")
    print_history(steps)


@app.command("history")
def history(
    alarm_id: AlarmArgument,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every transition of one alarm: the reading's time, when it was received, who and why.

    Example: [bold]fleet alarms history 0a1b…[/bold]
    """
    answer = at_desk(data_directory, kind_folder, lambda desk: dumped(desk.alarms.alarm(alarm_id)))
    if as_json:
        print_json(answer["transitions"])
        return
    print_history(answer["transitions"])


@app.command("acknowledge")
def acknowledge(
    alarm_ids: Annotated[list[str], typer.Argument(help="Their ids.")],
    note: Annotated[str, typer.Option(help="What is to be remembered with it.")] = "",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that you have seen them. They stay until their causes are gone.

    Example: [bold]fleet alarms acknowledge 0a1b… --note "going there"[/bold]
    """
    _bulk(data_directory, kind_folder, as_json, act="acknowledge", alarm_ids=alarm_ids, reason=note)


@app.command("shelve")
def shelve(
    alarm_ids: Annotated[list[str], typer.Argument(help="Their ids.")],
    reason: ReasonOption,
    for_s: Annotated[float | None, typer.Option("--for-s", min=60, help="Seconds; the priority has a maximum.")] = None,
    one_shot: Annotated[bool, typer.Option("--one-shot", help="Only until it returns.")] = False,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hide alarms for a while: high at most 4 hours, medium a day, low a week.

    Example: [bold]fleet alarms shelve 0a1b… --for-s 3600 --reason "new antenna comes today"[/bold]
    """
    if for_s is None and not one_shot:
        raise fail("say for how long with --for-s, or --one-shot", USAGE)
    _bulk(
        data_directory, kind_folder, as_json, act="shelve", alarm_ids=alarm_ids, reason=reason, for_s=for_s,
        one_shot=one_shot,
    )  # fmt: skip


@app.command("unshelve")
def unshelve(
    alarm_ids: Annotated[list[str], typer.Argument(help="Their ids.")],
    reason: ReasonOption = "",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show them again before their time.

    Example: [bold]fleet alarms unshelve 0a1b…[/bold]
    """
    _bulk(data_directory, kind_folder, as_json, act="unshelve", alarm_ids=alarm_ids, reason=reason)


@app.command("reset-latch")
def reset_latch(
    alarm_ids: Annotated[list[str], typer.Argument(help="Their ids.")],
    reason: ReasonOption,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that the devices were inspected on site.

    Example: [bold]fleet alarms reset-latch 0a1b… --reason "lock is sound"[/bold]
    """
    _bulk(data_directory, kind_folder, as_json, act="reset-latch", alarm_ids=alarm_ids, reason=reason)


@app.command("hidden")
def hidden(
    language: LanguageOption = "en",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is hidden, by whom, why and until when; and what follows from another alarm.

    Example: [bold]fleet alarms hidden --json[/bold]
    """
    answer = at_desk(data_directory, kind_folder, lambda desk: dumped(desk.alarms.hidden()))
    if as_json:
        print_json(answer)
        return
    rows = [
        {**row, "alarm": row["title"][language] if row["title"] else "all", "until": moment(row["until_at"])}
        for row in answer["hidden"]
    ]
    columns = ("id", "form", "device_id", "alarm", "until", "actor_name", "reason")
    print_rows(rows, columns, as_json=False, empty="Nobody hides an alarm now.")
    if answer["suppressed"]:
        words.print(f"{len(answer['suppressed'])} more follow from other alarms: fleet alarms list --hidden")


@app.command("out-of-service")
def out_of_service(
    device_id: Annotated[str, typer.Argument(help="Which device.")],
    reason: ReasonOption,
    key: Annotated[str, typer.Option(help="Only this alarm of it.")] = "",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hide all alarms of a device, or one of them, until somebody puts it back into service. Calls still come.

    Example: [bold]fleet alarms out-of-service bike-001 --reason "in the workshop"[/bold]
    """
    _service("out_of_service", device_id, key, reason, data_directory, kind_folder, as_json)


@app.command("in-service")
def in_service(
    device_id: Annotated[str, typer.Argument(help="Which device.")],
    reason: ReasonOption,
    key: Annotated[str, typer.Option(help="Only this alarm of it.")] = "",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put it back into service; what is still true is told again.

    Example: [bold]fleet alarms in-service bike-001 --reason "repaired"[/bold]
    """
    _service("in_service", device_id, key, reason, data_directory, kind_folder, as_json)


@app.command("stats")
def stats(
    days: Annotated[int, typer.Option(min=1, max=92, help="How many days back.")] = 7,
    language: LanguageOption = "en",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """The load on people: alarms a day, per person and ten minutes, bad actors, chattering, stale.

    Example: [bold]fleet alarms stats --days 30 --json[/bold]
    """
    answer = at_desk(data_directory, kind_folder, lambda desk: dumped(desk.alarms.statistics(days)))
    if as_json:
        print_json(answer)
        return
    lists = ("per_day", "people", "bad_actors", "chattering", "stale")
    for name, value in answer.items():
        if name not in lists and not name.endswith("_at"):
            data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape(str(value))}")
    for row in answer["per_day"]:
        data.print(f"{moment(row['day'])[:10]}: {row['announced']} announced of {row['activations']}")
    for row in answer["people"]:
        who = row["recipient"] or f"all who read {row['channel']}"
        data.print(escape(f"{who}: {row['notifications']} ({row['ten_minutes_max']} at most in 10 min)"))
    for name in lists[2:]:
        data.print(f"[bold]{name.replace('_', ' ')}[/bold]{'' if answer[name] else ': none'}")
        for row in answer[name]:
            data.print(escape(f"  {row['device_id']} {row['title'][language]}: {row['count']}"))


def _bulk(data_directory: Path | None, kind_folder: list[Path] | None, as_json: bool, **body: Any) -> None:
    from cloud.alarms.schemas import BulkBody

    with usage_errors(ValueError):
        acts = BulkBody.model_validate(body)
    answer = at_desk(data_directory, kind_folder, lambda desk: dumped(desk.alarms.bulk(acts, desk.person)))
    if as_json:
        print_json(answer)
    else:
        data.print(f"{answer['done']} of {len(answer['alarms'])} done")
    refused({line["alarm_id"]: line["refused"] for line in answer["alarms"] if line["refused"]})


def _service(
    act: str, device_id: str, key: str, reason: str, data_directory: Path | None, kind_folder: list[Path] | None,
    as_json: bool,
) -> None:  # fmt: skip
    from cloud.alarms.schemas import OutageBody

    with usage_errors(ValueError):
        body = OutageBody(device_id=device_id, key=key, reason=reason)

    async def submit(desk: Desk) -> dict[str, Any]:
        service = desk.maintenance
        answer = await (service.out_of_service if act == "out_of_service" else service.in_service)(body, desk.person)
        return {"device_id": device_id, "key": key, **answer}

    answer = at_desk(data_directory, kind_folder, submit)
    if as_json:
        print_json(answer)
    else:
        data.print(escape(f"{device_id}: {act.replace('_', ' ')}"))
