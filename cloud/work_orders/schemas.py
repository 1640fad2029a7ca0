"""What the API says and accepts about work orders. Times are business ms since the epoch."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloud.alarms.schemas import NOTE_LENGTH_MAX, TextAnswer
from fleet.incident import OrderState, Priority


class OrderAct(StrEnum):
    """What a person does with an order; the words of `fleet.incident.OrderEvent`."""

    ACCEPT = "accept"
    TRAVEL = "travel"
    START = "start"
    HOLD = "hold"
    RESUME = "resume"
    COMPLETE = "complete"
    GIVE_UP = "give_up"
    REOPEN = "reopen"
    RELEASE = "release"
    CANCEL = "cancel"


class OrderLine(BaseModel):
    """One order in a list. `items` is what to bring: article → count. `acts` is what the asker may do now."""

    id: str
    device_id: str
    device_name: str
    latitude: float | None
    longitude: float | None
    kind: str
    skill: str
    title: TextAnswer
    instructions: TextAnswer
    items: dict[str, int]
    priority: Priority
    state: OrderState
    assigned_to: str | None
    assigned_to_name: str | None
    created_at: int
    due_at: int
    changed_at: int
    acts: list[OrderAct]


class OrderList(BaseModel):
    """Orders, the most pressing first; `total` counts those that match, also beyond `limit`."""

    orders: list[OrderLine]
    total: int


class OrderStep(BaseModel):
    """One transition of an order."""

    model_config = ConfigDict(from_attributes=True)

    event: str
    before: OrderState
    after: OrderState
    at: int
    actor: str
    actor_name: str | None
    note: str


class OrderAnswer(OrderLine):
    """One order with its history. `cause` is what asked for it."""

    cause: str
    transitions: list[OrderStep]


class ActBody(BaseModel):
    """What somebody wants to be remembered with what they did."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""


class AssignBody(ActBody):
    """Who shall do it."""

    person_id: Annotated[str, Field(min_length=1, max_length=64)]
