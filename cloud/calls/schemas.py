"""What the API says about emergency calls. Times are business ms since the epoch."""

from pydantic import BaseModel, ConfigDict

from fleet.incident import CallState


class CallStep(BaseModel):
    """One step of a call: press, escalate, acknowledge, attend, clear_at_origin.

    `at` is when it happened, `received_at` when we knew; `seconds_after_press` counts from the first press.
    """

    step: str
    before: CallState
    after: CallState
    at: int
    received_at: int
    seconds_after_press: float
    actor: str
    actor_name: str | None
    event_id: str


class Attempt(BaseModel):
    """One attempt to tell somebody. `at` is when it ended; no recipient: everybody who reads the channel."""

    at: int
    seconds_after_press: float
    channel: str
    recipient: str
    recipient_name: str | None
    attempt: int
    outcome: str
    duration_ms: int
    error: str


class CallAnswer(BaseModel):
    """One call with every step from press to cleared.

    `purpose`: `help`, or `test` of the button, which pages nobody. `faults`: what is wrong now with the room's way to
    call. `attempts`: every notification of it; in the answer for one call only.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    device_id: str
    device_name: str
    kind: str
    state: CallState
    pressed_at: int
    received_at: int
    acknowledged_at: int | None
    acknowledged_by: str | None
    acknowledged_by_name: str | None
    attended_at: int | None
    cleared_at: int | None
    escalation: int
    changed_at: int
    purpose: str
    faults: list[str]
    steps: list[CallStep]
    attempts: list[Attempt] = []
    off_duty: bool = False
    """Who did this is not on duty: it counts all the same, and stands in the audit."""


class CallList(BaseModel):
    """One page of calls, newest first; `next_before` is None on the last one."""

    calls: list[CallAnswer]
    next_before: str | None
