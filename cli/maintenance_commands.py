"""`fleet alarms windows …` and `fleet alarms incidents …`: planned work, and many alarms with one cause."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from cli.alarm_desk import COLUMNS, Desk, at_desk, dumped, moment, one_of, readable, refused
from cli.database import DataOption
from cli.kinds import KindFolderOption
from cli.output import JsonOption, data, print_json, print_rows

windows_app = typer.Typer(help="Maintenance windows: alarms hidden while people work.", no_args_is_help=True)
incidents_app = typer.Typer(help="Incidents: many alarms with one cause.", no_args_is_help=True)

ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; kept with the act.")]


@windows_app.command("list")
def list_windows(
    data_directory: DataOption = None, kind_folder: KindFolderOption = None, as_json: JsonOption = False
) -> None:
    """Maintenance windows, newest first.

    Example: [bold]fleet alarms windows list --json[/bold]
    """
    answer = at_desk(data_directory, kind_folder, lambda desk: dumped(desk.maintenance.windows()))
    rows = answer["windows"]
    if not as_json:
        rows = [{**row, "from": moment(row["from_at"]), "until": moment(row["until_at"])} for row in rows]
    columns = ("id", "scope", "target", "from", "until", "device_count", "reason")
    print_rows(rows, columns, as_json=as_json, empty="No maintenance window yet.")


@windows_app.command("plan")
def plan_window(
    scope: Annotated[str, typer.Argument(help="device, kind or site.")],
    target: Annotated[str, typer.Argument(help="Which one.")],
    reason: ReasonOption,
    for_s: Annotated[float, typer.Option("--for-s", min=60, help="How long, in seconds; at most 72 hours.")] = 3600.0,
    in_s: Annotated[float, typer.Option("--in-s", min=0, help="Begins in so many seconds.")] = 0.0,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hide the alarms of what is being worked on, for a time. Calls for help still come.

    Example: [bold]fleet alarms windows plan site "Building A" --for-s 7200 --reason "power cut"[/bold]
    """
    from cloud.alarms.schemas import WindowBody

    one_of("SCOPE", scope, ["device", "kind", "site"])

    async def plan(desk: Desk) -> dict[str, Any]:
        from_at = desk.alarms.now_ms() + round(in_s * 1000)
        times = {"from_at": from_at, "until_at": from_at + round(for_s * 1000)}
        body = WindowBody.model_validate({"scope": scope, "target": target, "reason": reason, **times})
        return await dumped(desk.maintenance.plan(body, desk.person))

    _print_window(at_desk(data_directory, kind_folder, plan), as_json=as_json)


@windows_app.command("end")
def end_window(
    window_id: Annotated[str, typer.Argument(help="Its id.")],
    reason: ReasonOption,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a window before its time.

    Example: [bold]fleet alarms windows end 0a1b… --reason "power is back"[/bold]
    """
    answer = at_desk(
        data_directory, kind_folder, lambda desk: dumped(desk.maintenance.end(window_id, desk.person, reason))
    )
    _print_window(answer, as_json=as_json)


@incidents_app.command("list")
def list_incidents(
    everything: Annotated[bool, typer.Option("--all", help="Also those that ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Incidents that did not end yet, newest first.

    Example: [bold]fleet alarms incidents list --all --json[/bold]
    """

    async def read(desk: Desk) -> list[dict[str, Any]]:
        found = await desk.incidents.incidents(is_open=not everything, before=None, limit=limit)
        return [line.model_dump(mode="json") for line in found.incidents]

    rows = at_desk(data_directory, kind_folder, read)
    if not as_json:
        rows = [{**row, "opened": moment(row["opened_at"])} for row in rows]
    columns = ("id", "state", "priority", "site", "opened", "alarm_count", "open_count")
    print_rows(rows, columns, as_json=as_json, empty="No incident.")


@incidents_app.command("show")
def show_incident(
    incident_id: Annotated[str, typer.Argument(help="Its id.")],
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """One incident with its alarms.

    Example: [bold]fleet alarms incidents show flood:page:1800000000000[/bold]
    """
    answer = at_desk(data_directory, kind_folder, lambda desk: dumped(desk.incidents.incident(incident_id)))
    if as_json:
        print_json(answer)
        return
    rows = [readable(row, "en") for row in answer["alarms"]]
    print_rows(rows, COLUMNS, as_json=False, empty="It has no alarms.")


@incidents_app.command("acknowledge")
def acknowledge_incident(
    incident_id: Annotated[str, typer.Argument(help="Its id.")],
    note: Annotated[str, typer.Option(help="What is to be remembered with it.")] = "",
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Acknowledge an incident with every alarm of it.

    Example: [bold]fleet alarms incidents acknowledge flood:page:1800000000000 --note "power cut"[/bold]
    """
    answer = at_desk(
        data_directory,
        kind_folder,
        lambda desk: dumped(desk.incidents.acknowledge(incident_id, desk.person, note)),
    )
    if as_json:
        print_json(answer)
    else:
        data.print(f"acknowledged {answer['acknowledged_alarms']} alarms")
    refused(answer["refused"])


def _print_window(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        times = f"{moment(answer['from_at'])} to {moment(answer['until_at'])}"
        data.print(escape(f"{answer['id']}: {answer['device_count']} devices, {times}"))
    refused(answer["refused"])
