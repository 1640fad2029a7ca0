"""The database of this machine, or of FLEET_DATABASE_URL, for commands: errors in one line that name the fix."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.output import USAGE, fail, usage_errors

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")

DataOption = Annotated[Path | None, typer.Option("--data-directory", help="Where `fleet serve` keeps its data.")]


def with_database(data_directory: Path | None, work: "Callable[[Connection], T]", *, write: bool = False) -> T:
    """Run `work` in a transaction; an unknown or unreachable database ends the command with one line."""
    from sqlalchemy.exc import DBAPIError, IntegrityError

    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.adapters.sql.database import SqlDatabase

    with usage_errors(SettingsError):
        settings = cloud_settings(data_directory=data_directory)
    file = settings.data_directory / "state.db"
    if not settings.database_url and not file.exists():
        raise fail(f"no database at {file}: start `fleet serve` once, or name its folder with --data-directory", USAGE)
    database = SqlDatabase(settings.sql_url())
    try:
        return database.write_here(work) if write else database.read_here(work)
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise fail(
            f"the database does not answer as it should: {_reason(error)}; {_fix(settings.database_url)}"
        ) from error
    finally:
        database.close()


def _reason(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:200]


def _fix(database_url: str) -> str:
    if database_url:
        return "check that it runs and that FLEET_DATABASE_URL is right, then run fleet doctor"
    return "start `fleet serve` once, so that its schema is brought up to date, then run fleet doctor"
