"""What the API says about rounds. Times are business ms since the epoch."""

from pydantic import BaseModel

from cloud.alarms.schemas import TextAnswer
from cloud.planning.model import Act
from fleet.incident import OrderState, Priority


class StopAnswer(BaseModel):
    """One stop of a round. `late`: after the time its service level allows."""

    order_id: str
    act: Act
    device_id: str
    place: str
    latitude: float
    longitude: float
    skill: str
    priority: Priority
    state: OrderState
    title: TextAnswer
    items: dict[str, int]
    arrives_at: int
    leaves_at: int
    late: bool


class RoundAnswer(BaseModel):
    """What one person does, in order."""

    person_id: str
    person_name: str | None
    starts_at: int
    ends_at: int
    distance_m: int
    travel_s: int
    stops: list[StopAnswer]


class PlanAnswer(BaseModel):
    """The plan in force; `unassigned` says of each order in no round why. `id` 0: nothing was planned yet."""

    id: int
    made_at: int | None
    solver: str
    solve_ms: int
    moved: int
    rounds: list[RoundAnswer]
    unassigned: dict[str, str]


class PickStop(BaseModel):
    """What one stop of a round needs."""

    position: int
    order_id: str
    place: str
    items: dict[str, int]


class PickListAnswer(BaseModel):
    """What to load before a round: all of it by article, and by stop."""

    person_id: str
    total: dict[str, int]
    stops: list[PickStop]
