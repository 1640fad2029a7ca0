"""What the API says about alarms. Times are business ms since the epoch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloud.rules.hiding import SHELVE_S_MAX
from fleet.incident import AlarmState, AlarmView, Priority
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
    received_at: int
    site: str
    view: AlarmView
    hidden_until: int | None
    hidden_by: str
    hidden_by_name: str
    hidden_reason: str
    incident_id: str | None


class AlarmList(BaseModel):
    """One page of alarms, newest first; `next_before` is None on the last one."""

    alarms: list[AlarmLine]
    next_before: str | None


class AlarmStep(BaseModel):
    """One transition of an alarm."""

    model_config = ConfigDict(from_attributes=True)

    event: str
    before: AlarmState | AlarmView
    after: AlarmState | AlarmView
    at: int
    received_at: int
    actor: str
    actor_name: str
    note: str


class AlarmGuide(BaseModel):
    """What the alarm means and what to do, from the kind's table."""

    cause: TextAnswer
    consequence: TextAnswer
    action: TextAnswer
    respond_within_s: float
    on_delay_s: float
    off_delay_s: float
    realarm_s: float | None
    latching: bool
    suppressed_by: list[str]
    shelve_s_max: float

    @classmethod
    def of(cls, definition: AlarmDefinition) -> "AlarmGuide":
        """From the kind's table."""
        return cls(
            cause=TextAnswer.of(definition.cause),
            consequence=TextAnswer.of(definition.consequence),
            action=TextAnswer.of(definition.action),
            respond_within_s=definition.respond_within_s,
            on_delay_s=definition.on_delay_s,
            off_delay_s=definition.off_delay_s,
            realarm_s=definition.realarm_s,
            latching=definition.latching,
            suppressed_by=list(definition.suppressed_by),
            shelve_s_max=SHELVE_S_MAX[definition.priority],
        )


class AlarmAnswer(AlarmLine):
    """One alarm with its history. `guide` is None when the kind no longer has such an alarm."""

    guide: AlarmGuide | None
    order_id: str | None
    transitions: list[AlarmStep]
    off_duty: bool = False
    """Who did this is not on duty: it counts all the same, and stands in the audit."""


class AcknowledgeBody(BaseModel):
    """What somebody wants to be remembered with the acknowledgement."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""


Reason = Annotated[str, Field(min_length=1, max_length=NOTE_LENGTH_MAX)]


class ReasonBody(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class ShelveBody(BaseModel):
    """For how long, and why. `one_shot` ends with the alarm's return, at the latest after `for_s` (or the maximum)."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason
    for_s: Annotated[float, Field(ge=60, le=31 * 86_400)] | None = None
    one_shot: bool = False


BulkAct = Literal["acknowledge", "shelve", "unshelve", "reset-latch"]
BULK_MAX = 500


class BulkBody(BaseModel):
    """One act on many alarms."""

    model_config = ConfigDict(extra="forbid")

    act: BulkAct
    alarm_ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=BULK_MAX)]
    reason: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)] = ""
    for_s: Annotated[float, Field(ge=60, le=31 * 86_400)] | None = None
    one_shot: bool = False


class BulkLine(BaseModel):
    """What became of one alarm; `refused` is empty if it was done."""

    alarm_id: str
    refused: str


class BulkAnswer(BaseModel):
    """All of them, in the order asked for."""

    done: int
    alarms: list[BulkLine]
    off_duty: bool = False
    """Who did this is not on duty: it counts all the same, and stands in the audit."""


class HiddenLine(BaseModel):
    """A shelf, a maintenance window of one device, or an outage, that is not over."""

    id: str
    device_id: str
    device_name: str
    kind: str
    key: str
    title: TextAnswer | None
    form: Literal["shelf", "window", "out_of_service"]
    window_id: str
    one_shot: bool
    from_at: int
    until_at: int | None
    actor: str
    actor_name: str
    reason: str
    created_at: int


class HiddenList(BaseModel):
    """What is hidden now or will be, the one that ends first at the top; `suppressed` follows from other alarms."""

    hidden: list[HiddenLine]
    suppressed: list[AlarmLine]


class OutageBody(BaseModel):
    """Which device, or which of its alarms, and why."""

    model_config = ConfigDict(extra="forbid")

    device_id: Annotated[str, Field(max_length=32)]
    key: Annotated[str, Field(max_length=64)] = ""
    reason: Reason


class WindowBody(BaseModel):
    """A planned maintenance window."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["device", "kind", "site"]
    target: Annotated[str, Field(min_length=1, max_length=200)]
    from_at: Annotated[int, Field(ge=0, le=2**53)]
    until_at: Annotated[int, Field(ge=0, le=2**53)]
    reason: Reason


class WindowLine(BaseModel):
    """One maintenance window; `device_count` is how many devices it covers."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    scope: str
    target: str
    from_at: int
    until_at: int
    reason: str
    actor: str
    created_at: int
    ended_at: int | None
    ended_by: str
    device_count: int


class WindowAnswer(WindowLine):
    """A window with the devices that refused it, and why."""

    refused: dict[str, str]


class WindowList(BaseModel):
    """Newest first."""

    windows: list[WindowLine]
