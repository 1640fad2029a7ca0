"""Supervision of calls and buttons over HTTP, for those on duty."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from cloud.api.access import Person, allow
from cloud.api.services import service
from cloud.supervision.schemas import (
    BeginTest,
    ButtonAnswer,
    Measure,
    ProofTests,
    RecordMeasure,
    SupervisionAnswer,
    TestBegun,
)
from cloud.supervision.service import SupervisionService
from fleet.topics import DEVICE_ID_PATTERN

router = APIRouter(prefix="/api/v1/supervision", tags=["supervision"])

Supervision = Annotated[SupervisionService, Depends(service(SupervisionService))]
OnDuty = Annotated[Person, Depends(allow("crew", "admin"))]
Room = Annotated[str, Path(pattern=DEVICE_ID_PATTERN)]


@router.get("")
async def overview(
    supervision: Supervision,
    _person: OnDuty,
    after: Annotated[str, Query(max_length=32, description="the previous page's `next_after`")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> SupervisionAnswer:
    """Whether calls arrive (the watchdog's word), and every emergency button."""
    return await supervision.overview(after, limit)


@router.get("/rooms/{device_id}")
async def one_button(device_id: Room, supervision: Supervision, _person: OnDuty) -> ButtonAnswer:
    """One emergency button: faults, last proof, substitute measure."""
    return await supervision.button(device_id)


@router.get("/rooms/{device_id}/proof-tests")
async def proof_tests(device_id: Room, supervision: Supervision, person: OnDuty) -> ProofTests:
    """When the button was shown to work."""
    return await supervision.proof_tests(device_id, person)


@router.post("/rooms/{device_id}/test")
async def begin_test(device_id: Room, body: BeginTest, supervision: Supervision, person: OnDuty) -> TestBegun:
    """Take the next press for a test: it pages nobody, unless it is pressed again or not cleared within 30 s."""
    return await supervision.begin_test(device_id, body, person)


@router.post("/rooms/{device_id}/substitute", status_code=201)
async def record_measure(device_id: Room, body: RecordMeasure, supervision: Supervision, person: OnDuty) -> Measure:
    """Record who watches over the room while its button is out of order."""
    return await supervision.record_measure(device_id, body, person)
