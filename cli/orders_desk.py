"""The services behind `fleet orders …`, on the database of this machine."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cli.database import Installation, with_services

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

    async def act(here: Installation) -> T:
        from cloud.api.changes import Changes
        from cloud.planning.process import SolverProcess
        from cloud.planning.service import PlanningService
        from cloud.work_orders.evidence import EvidenceService
        from cloud.work_orders.service import WorkOrderService

        changes, solver = Changes(), SolverProcess()
        orders = WorkOrderService(here.database, here.clock, changes)
        evidence = EvidenceService(
            here.database, here.clock, orders, folder=None, random_bytes=secrets.token_bytes,
            public_url=here.settings.public_url,
        )  # fmt: skip
        planning = PlanningService(here.database, here.clock, changes, solver)
        try:
            return await work(Desk(orders, planning, evidence, here.database))
        finally:
            await solver.close()

    return with_services(data_directory, act)


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
