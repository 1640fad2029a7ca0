"""Rounds of the crews: `/api/v1/planning`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.api.access import Person, allow
from cloud.api.services import service
from cloud.planning.schemas import PickListAnswer, PlanAnswer
from cloud.planning.service import PlanningService

router = APIRouter(prefix="/api/v1/planning", tags=["planning"])

Planning = Annotated[PlanningService, Depends(service(PlanningService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Admin = Annotated[Person, Depends(allow("admin"))]
Whose = Annotated[str | None, Query(max_length=64, description="one person's part; `me` for the asker's own")]


@router.get("")
async def plan(planning: Planning, person: OnDuty, person_id: Whose = None) -> PlanAnswer:
    """The plan in force: everybody's rounds, and why an order stands in none."""
    return await planning.plan(person.id if person_id == "me" else person_id)


@router.post("")
async def plan_now(planning: Planning, person: Admin) -> PlanAnswer:
    """Plan at once; it happens by itself when the work changes."""
    return await planning.plan_now(person)


@router.get("/pick-list")
async def pick_list(planning: Planning, person: OnDuty, person_id: Whose = None) -> PickListAnswer:
    """What to load for a round: by article, and by stop; the asker's own by default."""
    return await planning.pick_list(person.id if person_id in {None, "me"} else str(person_id))
