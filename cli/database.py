"""The database of this machine, or of FLEET_DATABASE_URL, for commands: errors in one line that name the fix."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.kinds import add_kinds
from cli.output import FAILURE, USAGE, fail, usage_errors

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cli.clock import SystemClock
    from cloud.adapters.sql.database import SqlDatabase
    from cloud.api.access import Person
    from cloud.settings import CloudSettings

T = TypeVar("T")

DataOption = Annotated[Path | None, typer.Option("--data-directory", help="Where `fleet serve` keeps its data.")]


@dataclass(frozen=True, slots=True)
class Installation:
    """What a command needs to make the services of the cloud."""

    settings: "CloudSettings"
    database: "SqlDatabase"
    clock: "SystemClock"


def new_id() -> str:
    """Of a row that a command makes."""
    return secrets.token_hex(16)


def command_line() -> "Person":
    """Who acts here, for the audit."""
    from cloud.api.access import Person, Role

    return Person("command-line", "command-line", "command-line", Role.ADMIN, "en")


@contextmanager
def installation(data_directory: Path | None, kind_folders: list[Path] | None = None) -> Iterator[Installation]:
    """The installation at `data_directory`; an unknown or unreachable database ends the command with one line."""
    from sqlalchemy.exc import DBAPIError, IntegrityError

    import devices
    from cli.clock import SystemClock
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.adapters.sql.database import SqlDatabase

    with usage_errors(SettingsError, devices.UnknownKindError, ValueError):
        settings = cloud_settings(data_directory=data_directory)
        add_kinds(kind_folders)
    file = settings.data_directory / "state.db"
    if not settings.database_url and not file.exists():
        raise fail(f"no database at {file}: start `fleet serve` once, or name its folder with --data-directory", USAGE)
    clock = SystemClock(
        speed=settings.clock_speed, origin_ms=settings.clock_origin_ms, shift_ms=settings.clock_shift_ms
    )
    database = SqlDatabase(settings.sql_url())
    try:
        yield Installation(settings, database, clock)
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise fail(
            f"the database does not answer as it should: {_reason(error)}; {_fix(settings.database_url)}"
        ) from error
    finally:
        database.close()


def with_database(data_directory: Path | None, work: "Callable[[Connection], T]", *, write: bool = False) -> T:
    """Run `work` in a transaction; see `installation` for what may be wrong."""
    with installation(data_directory) as here:
        return here.database.write_here(work) if write else here.database.read_here(work)


def with_services(
    data_directory: Path | None, work: Callable[[Installation], Awaitable[T]], kind_folders: list[Path] | None = None
) -> T:
    """Run `work` on a loop of its own; what the services refuse ends the command with their words.

    A question that made no sense ends with code 2, one that was refused with code 1.
    """
    from sqlalchemy.exc import IntegrityError

    from cloud.api.problem import ProblemError

    async def run(here: Installation) -> T:
        return await work(here)

    with installation(data_directory, kind_folders) as here:
        try:
            return asyncio.run(run(here))
        except ProblemError as problem:
            raise fail(problem.detail or problem.title, USAGE if problem.status == 422 else FAILURE) from None
        except IntegrityError as error:  # no command of this kind handles it
            raise fail(f"the database refused it: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:200]


def _fix(database_url: str) -> str:
    if database_url:
        return "check that it runs and that FLEET_DATABASE_URL is right, then run fleet doctor"
    return "start `fleet serve` once, so that its schema is brought up to date, then run fleet doctor"
