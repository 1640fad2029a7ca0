"""`fleet devices link`: is one device there, and how do its messages come in?"""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.database import DataOption, with_database
from cli.enrolment_commands import moment
from cli.kinds import KindFolderOption, add_kinds
from cli.output import JsonOption, data, fail, print_json, usage_errors

if TYPE_CHECKING:
    from sqlalchemy import Connection


def link(
    device_id: Annotated[str, typer.Argument(help="Its id.")],
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """One device's link, data and sensors, and how its messages come in: gaps, repeats, late and refused ones.

    Example: [bold]fleet devices link room-007 --json[/bold]
    """
    from cloud.devices import repository
    from cloud.devices.link_rows import Moment, read_link
    from cloud.devices.link_views import data_link_answer, presence_answer
    from cloud.devices.service import TWIN_DELAY_S

    with usage_errors(ValueError):
        add_kinds(kind_folder)

    def read(tx: "Connection") -> dict[str, Any] | None:
        rows, row = read_link(tx, device_id), repository.line(tx, {}, device_id)
        if rows is None or row is None:
            return None
        presence = presence_answer(row, Moment(round(time.time() * 1000), round(TWIN_DELAY_S * 1000)))
        return {
            "presence": None if presence is None else presence.model_dump(),
            **data_link_answer(rows).model_dump(),
        }

    found = with_database(data_directory, read)
    if found is None:
        raise fail(f"no device {device_id!r}; list them: fleet devices list")
    if as_json:
        print_json(found)
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    presence = found.pop("presence")
    if presence is not None:
        data.print(f"[bold]link[/bold]: {presence['link']['state']}{' (unstable)' * presence['link']['unstable']}")
        data.print(f"[bold]data[/bold]: {presence['data']['state']}")
        for sensor in presence["sensors"].values():
            data.print(f"[bold]{escape(sensor['title_en'].lower())}[/bold]: {sensor['state']}")
    for name, stored in found.items():
        value = moment(stored) if name.endswith("_at") else stored
        if isinstance(value, list):
            for one in value:
                parts = ", ".join(f"{key.replace('_', ' ')} {part}" for key, part in one.items() if part is not None)
                data.print(f"[bold]{name}[/bold]: {escape(parts)}")
        else:
            data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape(str(value))}")
