"""Plans rounds when the work changed, keeps them, and says who does what next."""

import asyncio
import json
from collections import Counter
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row

from cloud import audit
from cloud.alarms.schemas import TextAnswer
from cloud.api.access import Person
from cloud.api.changes import Changes
from cloud.api.problem import ProblemError
from cloud.dispatch.states import OrderMove
from cloud.planning import repository
from cloud.planning.gather import gather
from cloud.planning.model import Act
from cloud.planning.process import PlanningError, SolverProcess
from cloud.planning.schemas import PickListAnswer, PickStop, PlanAnswer, RoundAnswer, StopAnswer
from cloud.ports import Database
from fleet.clock import Clock

_log = structlog.get_logger(__name__)

LOOK_S: Final = 2.0
"""Real seconds between looks at whether the work changed."""
PAUSE_MS: Final = 20_000
"""Business time between two plans by itself: several changes at once make one new plan."""


class PlanningService:
    """One plan for everybody; the solver runs in a process of its own."""

    def __init__(self, database: Database, clock: Clock, changes: Changes, solver: SolverProcess | None = None) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self._solver = solver or SolverProcess()

    async def run(self) -> None:
        """Plan whenever the work changed, until cancelled."""
        try:
            while True:
                try:
                    await self.plan_if_changed()
                except PlanningError as error:
                    _log.error("no new plan; the one before stays", error=str(error))
                await asyncio.sleep(LOOK_S)
        finally:
            await self._solver.close()

    async def plan_if_changed(self) -> bool:
        """Plan if work or crews are others than in the latest plan; whether a plan was made."""
        at = self._clock.now_ms()
        given = await self._database.read(lambda tx: (gather(tx, at), repository.latest(tx)))
        found, before = given
        if before is None and not found.problem.jobs:
            return False
        if before is not None and (before.signature == found.signature or 0 <= at - before.made_at < PAUSE_MS):
            return False
        return bool(await self._plan("the work changed"))

    async def plan_now(self, person: Person) -> PlanAnswer:
        """Plan at once, because somebody asks for it. Raises ProblemError 503 if no plan came about."""
        try:
            plan_id = await self._plan("asked for")
        except PlanningError as error:
            raise ProblemError(503, "no_plan", "No plan was made", str(error), retry_after_s=10) from error
        at = self._clock.now_ms()
        await self._database.write(lambda tx: audit.record(tx, at, person.id, "crew_plan.make", str(plan_id), {}))
        return await self.plan()

    async def _plan(self, reason: str) -> int:
        at = self._clock.now_ms()
        given = await self._database.read(lambda tx: gather(tx, at))
        plan = await self._solver.solve(given.problem)
        plan_id, moves = await self._database.write(lambda tx: repository.store(tx, given, plan, reason))
        self._announce(moves)
        self._changes.publish("order", {"id": f"plan-{plan_id}"})
        return plan_id

    def _announce(self, moves: list[OrderMove]) -> None:
        for move in moves:
            facts = {"id": move.id, "device_id": move.device_id, "state": move.after, "assigned_to": move.assigned_to}
            self._changes.publish("order", facts)

    async def plan(self, person_id: str | None = None) -> PlanAnswer:
        """The plan in force, or one person's part of it."""

        def read(tx: Connection) -> tuple[Row[Any] | None, list[Row[Any]], list[Row[Any]]]:
            row = repository.latest(tx)
            if row is None:
                return None, [], []
            return row, repository.rounds(tx, row.id, person_id), repository.stops(tx, row.id, person_id)

        row, rounds, stops = await self._database.read(read)
        if row is None:
            return PlanAnswer(id=0, made_at=None, solver="", solve_ms=0, moved=0, rounds=[], unassigned={})
        answers = [
            RoundAnswer(
                person_id=one.person_id,
                person_name=one.name,
                starts_at=one.starts_at,
                ends_at=one.ends_at,
                distance_m=one.distance_m,
                travel_s=one.travel_s,
                stops=[_stop(stop) for stop in stops if stop.person_id == one.person_id],
            )
            for one in rounds
        ]
        return PlanAnswer(
            id=row.id,
            made_at=row.made_at,
            solver=row.solver,
            solve_ms=row.solve_ms,
            moved=row.moved,
            rounds=answers,
            unassigned=dict(repository.unassigned_of(row)),
        )

    async def pick_list(self, person_id: str) -> PickListAnswer:
        """What this person has to load for the stops that are left."""
        found = await self.plan(person_id)
        total: Counter[str] = Counter()
        stops = []
        for one in found.rounds:
            for position, stop in enumerate(one.stops, 1):
                if stop.items and stop.act is not Act.DELIVERY:
                    total.update(stop.items)
                    stops.append(
                        PickStop(position=position, order_id=stop.order_id, place=stop.place, items=stop.items)
                    )
        return PickListAnswer(person_id=person_id, total=dict(sorted(total.items())), stops=stops)


def _stop(row: Row[Any]) -> StopAnswer:
    act = Act(row.act)
    at_device = row.device_name or row.device_id
    return StopAnswer(
        order_id=row.order_id,
        act=act,
        device_id=row.device_id,
        place=(row.to_name or at_device) if act is Act.DELIVERY else at_device,
        latitude=row.latitude,
        longitude=row.longitude,
        skill=row.skill,
        priority=row.priority,
        state=row.state,
        title=TextAnswer(zh=row.title_zh, en=row.title_en),
        items=json.loads(row.items),
        arrives_at=row.arrives_at,
        leaves_at=row.leaves_at,
        late=bool(row.late),
    )
