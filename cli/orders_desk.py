"""The services behind `fleet orders …`, on the database of this machine."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cli.output import USAGE, fail, usage_errors

if TYPE_CHECKING:
    from cloud.planning.service import PlanningService
    from cloud.work_orders.evidence import EvidenceService
    from cloud.work_orders.service import WorkOrderService

T = TypeVar("T")


@dataclass(frozen=True)
class Desk:
    """What the commands work with."""

    orders: "WorkOrderService"
    planning: "PlanningService"
    evidence: "EvidenceService"
    database: Any


def with_desk(data_directory: Path | None, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Run `work`; what is wrong ends the command with one line."""
    from sqlalchemy.exc import DBAPIError

    from cli.clock import SystemClock
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.adapters.sql.database import SqlDatabase
    from cloud.api.changes import Changes
    from cloud.api.problem import ProblemError
    from cloud.planning.process import SolverProcess
    from cloud.planning.service import PlanningService
    from cloud.work_orders.evidence import EvidenceService
    from cloud.work_orders.service import WorkOrderService

    with usage_errors(SettingsError):
        settings = cloud_settings(data_directory=data_directory)
    file = settings.data_directory / "state.db"
    if not settings.database_url and not file.exists():
        raise fail(f"no database at {file}: start `fleet serve` once, or name its folder with --data-directory", USAGE)
    clock = SystemClock(
        speed=settings.clock_speed, origin_ms=settings.clock_origin_ms, shift_ms=settings.clock_shift_ms
    )
    database = SqlDatabase(settings.sql_url())

    async def run() -> T:
        changes, solver = Changes(), SolverProcess()
        orders = WorkOrderService(database, clock, changes)
        evidence = EvidenceService(
            database, clock, orders, folder=None, random_bytes=secrets.token_bytes, public_url=settings.public_url
        )
        try:
            return await work(Desk(orders, PlanningService(database, clock, changes, solver), evidence, database))
        finally:
            await solver.close()

    try:
        return asyncio.run(run())
    except ProblemError as problem:
        raise fail(problem.detail or problem.title) from None
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise fail(f"database_url: {reason}; start `fleet serve` once, or correct FLEET_DATABASE_URL", USAGE) from None
    finally:
        database.close()


def admin() -> Any:
    """Who acts on the command line."""
    from cloud.api.access import Person, Role

    return Person("command-line", "command-line", "command-line", Role.ADMIN, "en")


async def full_id(desk: Desk, beginning: str) -> str:
    """The id of the one order that begins so. Raises ProblemError 404."""
    from sqlalchemy import select

    from cloud.api.problem import not_found
    from cloud.tables import work_order

    column = work_order.c.id
    statement = select(column).where(column.startswith(beginning, autoescape=True)).limit(2)
    found = await desk.database.read(lambda tx: list(tx.scalars(statement)))
    if len(found) != 1:
        raise not_found("work order", beginning)
    return str(found[0])


async def person_id_of(desk: Desk, login: str) -> str:
    """A person's id by login, or what was given."""
    from sqlalchemy import select

    from cloud.tables import person

    statement = select(person.c.id).where((person.c.login == login) | (person.c.id == login))
    return str(await desk.database.read(lambda tx: tx.scalar(statement)) or login)
