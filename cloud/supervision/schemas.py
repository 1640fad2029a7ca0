"""What the API says about the supervision of calls and buttons. Times are business ms since the epoch."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Chain(BaseModel):
    """The way of a call, as the watchdog last saw it. `watched` False: no watchdog is set up or none answers."""

    watched: bool
    whole: bool
    stage: str | None
    reason: str
    round_trip_s: float | None
    whole_before_s: float | None
    announced: list[dict[str, Any]]


class Measure(BaseModel):
    """A substitute measure: how help is called while the button is out of order."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    device_id: str
    measure: str
    responsible: str
    from_at: int
    until_at: int
    recorded_by: str


class ButtonAnswer(BaseModel):
    """One room with an emergency button. `faults` are keys of its alarms: why a press may stay unseen."""

    device_id: str
    name: str
    kind: str
    faults: list[str]
    proven_at: int | None
    proven_how: str | None
    test_due_at: int | None
    test_overdue: bool
    faulty_since: int | None
    substitute_due: bool
    measure: Measure | None


class SupervisionAnswer(BaseModel):
    """Everything that watches over calls; buttons that need somebody come first."""

    chain: Chain
    buttons: list[ButtonAnswer]
    next_after: str | None


class ProofTest(BaseModel):
    """One time a button was shown to work, or not to. `how` is the type of the room's event."""

    model_config = ConfigDict(from_attributes=True)

    at: int
    received_at: int
    how: str
    passed: bool
    failure: str
    event_id: str


class ProofTests(BaseModel):
    """Newest first."""

    device_id: str
    tests: list[ProofTest]


class BeginTest(BaseModel):
    """The next press in this room within so many seconds is a test."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(ge=10, le=300)] = 120


class TestBegun(BaseModel):
    """Until when a first press is taken for the test."""

    device_id: str
    test_until: int


class RecordMeasure(BaseModel):
    """Who watches over the room instead of its button, how, and until when."""

    model_config = ConfigDict(extra="forbid")

    measure: Annotated[str, Field(min_length=3, max_length=500)]
    responsible: Annotated[str, Field(min_length=1, max_length=100)]
    until_at: int
