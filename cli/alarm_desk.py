"""What the commands about alarms share: the services on this machine's database, and how answers are printed."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer
from rich.markup import escape

from cli.enrolment_commands import moment as readable_moment
from cli.kinds import add_kinds
from cli.output import FAILURE, USAGE, fail, print_rows, usage_errors, words

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
    from sqlalchemy.exc import DBAPIError

    import devices
    from cli.clock import SystemClock
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.adapters.sql.database import SqlDatabase
    from cloud.alarms.maintenance import MaintenanceService
    from cloud.alarms.service import AlarmService
    from cloud.api.access import Person, Role
    from cloud.api.changes import Changes
    from cloud.api.problem import ProblemError
    from cloud.incidents.service import IncidentService
    from cloud.intents import IntentDesk

    with usage_errors(SettingsError, devices.UnknownKindError, ValueError):
        settings = cloud_settings(data_directory=data_directory)
        add_kinds(kind_folder)
    file = settings.data_directory / "state.db"
    if not settings.database_url and not file.exists():
        raise fail(f"no database at {file}: start `fleet serve` once, or name its folder with --data-directory", USAGE)
    clock = SystemClock(
        speed=settings.clock_speed, origin_ms=settings.clock_origin_ms, shift_ms=settings.clock_shift_ms
    )
    database = SqlDatabase(settings.sql_url())
    intents = IntentDesk(database, clock, lambda: secrets.token_hex(16))
    alarms = AlarmService(database, clock, intents)
    desk = Desk(
        alarms,
        MaintenanceService(database, clock, intents, lambda: secrets.token_hex(16)),
        IncidentService(database, clock, intents, alarms, Changes()),
        Person("command-line", "command-line", "command-line", Role.ADMIN, "en"),
    )
    try:
        return asyncio.run(_run(work, desk))
    except ProblemError as problem:
        raise fail(problem.detail or problem.title, USAGE if problem.status == 422 else FAILURE) from None
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise fail(f"database_url: {reason}; start `fleet serve` once, or correct FLEET_DATABASE_URL", USAGE) from None
    finally:
        database.close()


async def _run(work: Callable[[Desk], Awaitable[T]], desk: Desk) -> T:
    return await work(desk)


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
