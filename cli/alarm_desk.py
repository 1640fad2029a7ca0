"""What the commands about alarms share: the services on this machine's database, and how answers are printed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer
from rich.markup import escape

from cli.database import Installation, command_line, new_id, with_services
from cli.enrolment_commands import moment as readable_moment
from cli.output import FAILURE, USAGE, fail, print_rows, words

if TYPE_CHECKING:
    from cloud.alarms.maintenance import MaintenanceService
    from cloud.alarms.service import AlarmService
    from cloud.api.access import Person
    from cloud.incidents.service import IncidentService

T = TypeVar("T")

COLUMNS: Final = ("id", "priority", "state", "view", "title", "device_id", "site", "since", "hidden_until")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the commands work with."""

    alarms: "AlarmService"
    maintenance: "MaintenanceService"
    incidents: "IncidentService"
    person: "Person"


def at_desk(data_directory: Path | None, kind_folder: list[Path] | None, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Run `work` at the desk of this installation; what is wrong ends the command with one line."""
    return with_services(data_directory, lambda here: work(_desk(here)), kind_folder)


def _desk(here: Installation) -> Desk:
    from cloud.alarms.maintenance import MaintenanceService
    from cloud.alarms.service import AlarmService
    from cloud.api.changes import Changes
    from cloud.incidents.service import IncidentService
    from cloud.intents import IntentDesk

    intents = IntentDesk(here.database, here.clock, new_id)
    alarms = AlarmService(here.database, here.clock, intents)
    return Desk(
        alarms,
        MaintenanceService(here.database, here.clock, intents, new_id),
        IncidentService(here.database, here.clock, intents, alarms, Changes()),
        command_line(),
    )


async def dumped(asked: Awaitable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await asked).model_dump(mode="json")
    return found


def refused(refused: dict[str, str]) -> None:
    for name, why in refused.items():
        words.print(escape(f"{name}: {why}"))
    if refused:
        raise typer.Exit(FAILURE)


def print_history(steps: list[dict[str, Any]]) -> None:
    rows = [{**step, "at": moment(step["at"]), "received": moment(step["received_at"])} for step in steps]
    columns = ("at", "received", "event", "before", "after", "actor_name", "note")
    print_rows(rows, columns, as_json=False, empty="No transitions.")


def readable(row: dict[str, Any], language: str) -> dict[str, Any]:
    times = {name: moment(value) for name, value in row.items() if name.endswith("_at") or name == "hidden_until"}
    return {**row, **times, "title": row["title"][language], "since": moment(row["activated_at"])}


def moment(at_ms: int | None) -> str:
    return str(readable_moment(at_ms)) if at_ms else ""


def one_of(what: str, value: str, allowed: list[str]) -> None:
    if value and value not in allowed:
        raise fail(f"{what} {value!r}: one of {', '.join(allowed)}", USAGE)
