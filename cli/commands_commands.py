"""`fleet commands …`: what devices were told to do, on the database of this machine or of FLEET_DATABASE_URL.

A command sent here is a row; the process that holds the link to the broker sends it within a second.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape

from cli.database import DataOption, Installation, command_line, new_id, with_services
from cli.kinds import KindFolderOption
from cli.output import FAILURE, USAGE, JsonOption, data, fail, print_json, print_rows, words

if TYPE_CHECKING:
    from cloud.devices.service import DeviceService

T = TypeVar("T")

app = typer.Typer(help="Send commands to devices and see how they ended.", no_args_is_help=True)

_COLUMNS = ("id", "device_id", "action", "status", "reason", "actor", "issued_at", "not_after")


def _with_devices(
    data_directory: Path | None, kind_folder: list[Path] | None, work: "Callable[[DeviceService], Awaitable[T]]"
) -> T:
    from cloud.device_commands.keys import KeyRingError, KeyRingFile

    async def act(here: Installation) -> T:
        from cloud.device_commands.service import DeviceCommands
        from cloud.devices.service import DeviceService

        unused: Any = None  # reading and ordering need neither the series nor the lanes
        keys = KeyRingFile(here.settings.command_key_file or here.settings.data_directory / "command.key")
        commands = DeviceCommands(here.database, here.clock, lambda _: None, keys, new_id)
        return await work(DeviceService(here.database, here.clock, unused, commands, unused))

    try:
        return with_services(data_directory, act, kind_folder)
    except (KeyRingError, OSError) as error:
        raise fail(f"command_key_file: {error}", USAGE) from None


@app.command("list")
def list_commands(
    device_id: Annotated[str, typer.Argument(help="Whose.")],
    open_only: Annotated[bool, typer.Option("--open", help="Only those without an end yet.")] = False,
    action: Annotated[str, typer.Option(help="Only this action.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """A device's commands, newest first, and how each ended.

    Example: [bold]fleet commands list bike-001 --open --json[/bold]
    """
    from cloud.device_commands.repository import OPEN
    from cloud.devices.views import command_answer

    async def read(service: "DeviceService") -> list[dict[str, Any]]:
        await service.kind_of(device_id)
        statuses = OPEN if open_only else ()
        rows = await service.commands_of(device_id, limit, statuses=statuses, action=action)
        return [command_answer(row).model_dump() for row in rows]

    rows = _with_devices(data_directory, kind_folder, read)
    print_rows(
        rows if as_json else [_readable(row) for row in rows], _COLUMNS, as_json=as_json,
        empty=f"No such command of {device_id} yet. Send one: fleet commands send {device_id} ACTION",
    )  # fmt: skip


@app.command("show")
def show(
    command_id: Annotated[str, typer.Argument(help="Its id.")],
    wait_s: Annotated[float, typer.Option(min=0, max=30, help="Wait so many seconds for its end.")] = 0.0,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """One command and how far it came.

    Example: [bold]fleet commands show 0a1b… --wait-s 10 --json[/bold]
    """
    from cloud.devices.views import command_answer

    async def read(service: "DeviceService") -> dict[str, Any]:
        return command_answer(await service.command_row(command_id, command_line(), wait_s)).model_dump()

    _print(_with_devices(data_directory, kind_folder, read), as_json=as_json)


@app.command("send")
def send(
    device_id: Annotated[str, typer.Argument(help="To whom.")],
    action: Annotated[str, typer.Argument(help="What, as `fleet serve` lists it under /api/v1/kinds.")],
    argument: Annotated[
        list[str] | None, typer.Option("--argument", "-a", help="NAME=VALUE, the value as JSON or plain text.")
    ] = None,
    wait_s: Annotated[float, typer.Option(min=0, max=30, help="Wait so many seconds for its end.")] = 0.0,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a command. It is carried out at most once, and never after its limit.

    Exit code 1 if it ended otherwise than `succeeded` while we waited.

    Example: [bold]fleet commands send bike-001 ring -a duration_seconds=5 --wait-s 10[/bold]
    """
    from cloud.devices.views import command_answer

    body = {"action": action, **dict(_pair(text) for text in argument or ())}

    async def order(service: "DeviceService") -> dict[str, Any]:
        command_id = await service.command(device_id, body, command_line())
        return command_answer(await service.command_row(command_id, command_line(), wait_s)).model_dump()

    answer = _with_devices(data_directory, kind_folder, order)
    _print(answer, as_json=as_json)
    if answer["device_offline"]:
        words.print(
            f"{escape(device_id)} cannot be reached now; the command ends `expired` unless that changes in time"
        )
    if answer["final"] and answer["status"] != "succeeded":
        raise typer.Exit(FAILURE)


@app.command("cancel")
def cancel(
    command_id: Annotated[str, typer.Argument(help="Its id.")],
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back a command that has not left yet.

    Example: [bold]fleet commands cancel 0a1b… --json[/bold]
    """
    from cloud.devices.views import command_answer

    async def end(service: "DeviceService") -> dict[str, Any]:
        return command_answer(await service.cancel_command(command_id, command_line())).model_dump()

    _print(_with_devices(data_directory, kind_folder, end), as_json=as_json)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise fail(f"--argument {text!r}: write NAME=VALUE", USAGE)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    for name, value in _readable(answer).items():
        data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape(str(value))}")


def _readable(answer: dict[str, Any]) -> dict[str, Any]:
    from cli.enrolment_commands import moment

    return {name: moment(value) if name in {"issued_at", "not_after", "changed_at"} else value
            for name, value in answer.items()}  # fmt: skip
