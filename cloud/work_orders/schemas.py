"""What the API says and accepts about work orders. Times are business ms since the epoch."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloud.alarms.schemas import NOTE_LENGTH_MAX, TextAnswer
from fleet.incident import OrderState, Priority
from fleet.kind import Skill


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


class StageAnswer(BaseModel):
    """One stage of the service level: by when, when it was reached, whether it is or was late."""

    name: Literal["acknowledge", "on_site", "fixed"]
    by: int
    reached_at: int | None
    late: bool


class PlaceAnswer(BaseModel):
    """Where what is picked up goes to."""

    name: str
    latitude: float
    longitude: float


class OrderLine(BaseModel):
    """One order in a list. `items` is what to bring: article → count. `acts` is what the asker may do now.

    `paused`: the clock of the service level stands still. `verified_at`: when the device was seen back to normal.
    `repeat_of`: the order after which the same fault came back within a day. `proven`: somebody scanned its code.
    """

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
    stages: list[StageAnswer]
    overdue: bool
    paused: bool
    proven: bool
    verified_at: int | None
    reopened: int
    repeat_of: str | None
    to: PlaceAnswer | None


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
    reason: str


class NoteAnswer(BaseModel):
    """What somebody wrote down."""

    model_config = ConfigDict(from_attributes=True)

    at: int
    author: str
    author_name: str | None
    text: str


class PhotoAnswer(BaseModel):
    """A photo; its picture lies at `…/work-orders/<order>/photos/<id>`, `?small=true` gives the small one."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    at: int
    author: str
    author_name: str | None
    width: int
    height: int


class OrderAnswer(OrderLine):
    """One order with its history. `cause` is what asked for it."""

    cause: str
    transitions: list[OrderStep]
    notes: list[NoteAnswer]
    photos: list[PhotoAnswer]
    off_duty: bool = False
    """Who did this is not on duty: it counts all the same, and stands in the audit."""


class ActBody(BaseModel):
    """What somebody wants to be remembered with what they did.

    `reason` and `note` must be there where work stops: to hold, to give up, to cancel, to open again;
    `GET …/work-orders/reasons` lists the codes.
    """

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""
    reason: Annotated[str, Field(max_length=40)] = ""


class AssignBody(BaseModel):
    """Who shall do it."""

    model_config = ConfigDict(extra="forbid")

    person_id: Annotated[str, Field(min_length=1, max_length=64)]
    note: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""


class NoteBody(BaseModel):
    """A note for whoever comes next."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=NOTE_LENGTH_MAX)]


class PriorityBody(BaseModel):
    """Another priority, and why."""

    model_config = ConfigDict(extra="forbid")

    priority: Literal["high", "medium", "low"]
    note: Annotated[str, Field(min_length=1, max_length=NOTE_LENGTH_MAX)]


Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]


class ScanBody(BaseModel):
    """The code on the device, as it was scanned (also the whole link) or typed; where the phone is, if it says so."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[str, Field(min_length=4, max_length=200)]
    latitude: Latitude | None = None
    longitude: Longitude | None = None


class ScanAnswer(BaseModel):
    """The device, and the asker's orders there: on site now."""

    device_id: str
    device_name: str
    orders: list[OrderLine]


class PlaceBody(BaseModel):
    """A place to bring something to."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=100)] = ""
    latitude: Latitude
    longitude: Longitude


class MakeBody(BaseModel):
    """An order by a person. The same `key` again makes no second one."""

    model_config = ConfigDict(extra="forbid")

    device_id: Annotated[str, Field(min_length=1, max_length=32)]
    skill: Skill
    title: Annotated[str, Field(min_length=1, max_length=100)]
    instructions: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""
    items: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[int, Field(ge=1, le=1000)]],
        Field(max_length=50),
    ] = {}
    priority: Literal["high", "medium", "low"] = "medium"
    key: Annotated[str, Field(max_length=64)] = ""
    to: PlaceBody | None = None


class PlanLine(BaseModel):
    """A preventive plan. `proves`: key of an alarm that must be over for its work to count."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    kind: str
    skill: str
    title_zh: str
    title_en: str
    instructions_zh: str
    instructions_en: str
    priority: Priority
    period_days: int
    proves: str
    enabled: bool


class PlanChangeBody(BaseModel):
    """What to change of a preventive plan."""

    model_config = ConfigDict(extra="forbid")

    period_days: Annotated[int, Field(ge=1, le=730)] | None = None
    priority: Literal["high", "medium", "low"] | None = None
    enabled: bool | None = None


class PlanBody(BaseModel):
    """A new preventive plan."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    kind: Annotated[str, Field(min_length=1, max_length=40)]
    skill: Skill
    title_zh: Annotated[str, Field(min_length=1, max_length=100)]
    title_en: Annotated[str, Field(min_length=1, max_length=100)]
    instructions_zh: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""
    instructions_en: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""
    priority: Literal["high", "medium", "low"] = "low"
    period_days: Annotated[int, Field(ge=1, le=730)]
    proves: Annotated[str, Field(max_length=64)] = ""


class StageFigures(BaseModel):
    """Minutes from the order to a stage; None without any."""

    median_minutes: float | None
    p90_minutes: float | None


class KpiLine(BaseModel):
    """One week (its Monday), skill and kind. Shares are of those that were done; None where none was."""

    week: str
    skill: str
    kind: str
    made: int
    done: int
    acknowledged: StageFigures
    on_site: StageFigures
    fixed: StageFigures
    first_time_fix: float | None
    repeat_faults: int
    sla_kept: float | None


class KpiAnswer(BaseModel):
    """Figures over the orders made in a time; `total` is over all of them."""

    from_ms: int
    until_ms: int
    lines: list[KpiLine]
    total: KpiLine
