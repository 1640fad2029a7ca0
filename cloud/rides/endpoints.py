"""Rides over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from cloud.api.access import Person, allow
from cloud.api.paging import Before, mark
from cloud.api.services import service
from cloud.rides.lifecycle import RideState
from cloud.rides.schemas import BikeLine, BikeList, RideAnswer, RideBody, RideList
from cloud.rides.service import WAIT_S_MAX, RideService

router = APIRouter(prefix="/api/v1", tags=["rides"])

Rides = Annotated[RideService, Depends(service(RideService))]
Rider = Annotated[Person, Depends(allow("employee"))]
Anybody = Annotated[Person, Depends(allow("employee", "crew", "admin"))]


@router.get("/bikes")
async def bikes(rides: Rides, _person: Anybody, limit: Annotated[int, Query(ge=1, le=500)] = 200) -> BikeList:
    """Bikes that can be rented now."""
    found = await rides.rentable_bikes(limit)
    return BikeList(
        bikes=[
            BikeLine(
                device_id=device_id,
                latitude=reading.latitude,
                longitude=reading.longitude,
                battery_percent=reading.battery_percent,
            )
            for device_id, reading in found
        ]
    )


@router.post("/rides", status_code=202)
async def ask(body: RideBody, response: Response, rides: Rides, rider: Rider) -> RideAnswer:
    """Unlock a bike. The ride starts when its lock reports open; follow it at the address in `Location`."""
    ride = await rides.ask(body.device_id, rider)
    response.headers["location"] = f"/api/v1/rides/{ride.id}"
    return RideAnswer.model_validate(ride, from_attributes=True)


@router.get("/rides")
async def own_rides(
    rides: Rides,
    person: Anybody,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> RideList:
    """The asker's own rides, newest first; `before` is `next_before` of the page before."""
    rows = await rides.rides(person, before, limit + 1)
    return RideList(
        rides=[RideAnswer.model_validate(row, from_attributes=True) for row in rows[:limit]],
        next_before=mark(rows[limit - 1].asked_at, rows[limit - 1].id) if len(rows) > limit else None,
    )


@router.get("/rides/{ride_id}")
async def own_ride(
    ride_id: str,
    rides: Rides,
    person: Anybody,
    wait_s: Annotated[float, Query(ge=0, le=WAIT_S_MAX, description="wait so long for its state to change")] = 0.0,
    seen: Annotated[RideState | None, Query(description="the state you know: another one is answered at once")] = None,
) -> RideAnswer:
    """One ride of the asker."""
    return RideAnswer.model_validate(await rides.ride(ride_id, person, wait_s, seen), from_attributes=True)
