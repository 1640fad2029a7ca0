"""What the API says and accepts about rides."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloud.rides.lifecycle import RideState
from fleet.topics import DEVICE_ID_PATTERN


class RideBody(BaseModel):
    """The bike that the rider stands before: its id, as in the code on the frame."""

    model_config = ConfigDict(extra="forbid", strict=True)

    device_id: Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]


class RideAnswer(BaseModel):
    """A ride as its rider sees it. Times are ms since the epoch.

    `reason` says why it never began (`expired`, `jam`, `not_possible` …) or ended other than by locking.
    `flagged` names what a person checks: `opened_late`, `jammed`, `unpaid`.
    """

    id: str
    device_id: str
    state: RideState
    asked_at: int
    deadline_at: int
    started_at: int | None
    ended_at: int | None
    fee_fen: int | None
    reason: str
    flagged: str


class RideList(BaseModel):
    """A rider's own rides, newest first; `next_before` is None on the last page."""

    rides: list[RideAnswer]
    next_before: str | None


class BikeLine(BaseModel):
    """A bike that can be rented now."""

    device_id: str
    latitude: float
    longitude: float
    battery_percent: float


class BikeList(BaseModel):
    """Bikes that can be rented now, in the order of their ids."""

    bikes: list[BikeLine]
