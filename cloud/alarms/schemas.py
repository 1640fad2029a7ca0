"""What the API says about alarms. Times are business ms since the epoch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fleet.incident import AlarmState, Priority
from fleet.kind import AlarmDefinition, Text

NOTE_LENGTH_MAX = 500


class TextAnswer(BaseModel):
    """The same words in both languages."""

    zh: str
    en: str

    @classmethod
    def of(cls, text: Text) -> "TextAnswer":
        """From the kind's table."""
        return cls(zh=text.zh, en=text.en)


class AlarmLine(BaseModel):
    """One alarm in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    device_id: str
    device_name: str
    kind: str
    key: str
    title: TextAnswer
    priority: Priority
    state: AlarmState
    activated_at: int
    returned_at: int | None
    acknowledged_at: int | None
    acknowledged_by: str | None
    acknowledged_by_name: str | None
    changed_at: int


class AlarmList(BaseModel):
    """One page of alarms, newest first; `next_before` is None on the last one."""

    alarms: list[AlarmLine]
    next_before: str | None


class AlarmStep(BaseModel):
    """One transition of an alarm."""

    model_config = ConfigDict(from_attributes=True)

    event: str
    before: AlarmState
    after: AlarmState
    at: int
    actor: str
    note: str


class AlarmGuide(BaseModel):
    """What the alarm means and what to do, from the kind's table."""

    cause: TextAnswer
    consequence: TextAnswer
    action: TextAnswer
    respond_within_s: float

    @classmethod
    def of(cls, definition: AlarmDefinition) -> "AlarmGuide":
        """From the kind's table."""
        return cls(
            cause=TextAnswer.of(definition.cause),
            consequence=TextAnswer.of(definition.consequence),
            action=TextAnswer.of(definition.action),
            respond_within_s=definition.respond_within_s,
        )


class AlarmAnswer(AlarmLine):
    """One alarm with its history. `guide` is None when the kind no longer has such an alarm."""

    guide: AlarmGuide | None
    order_id: str | None
    transitions: list[AlarmStep]


class AcknowledgeBody(BaseModel):
    """What somebody wants to be remembered with the acknowledgement."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""
