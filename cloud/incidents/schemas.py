"""What the API says about incidents and sites. Times are business ms since the epoch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloud.alarms.schemas import AlarmLine, TextAnswer
from fleet.incident import IncidentState, Priority

DEVICES_MAX = 1000


class IncidentKey(BaseModel):
    """How many of its alarms are of one type."""

    key: str
    title: TextAnswer
    count: int
    open_count: int


class IncidentLine(BaseModel):
    """One incident in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    state: IncidentState
    tier: str
    site: str
    priority: Priority
    opened_at: int
    changed_at: int
    ended_at: int | None
    acknowledged_at: int | None
    acknowledged_by: str | None
    acknowledged_by_name: str | None
    alarm_count: int
    open_count: int
    keys: list[IncidentKey]


class IncidentList(BaseModel):
    """One page of incidents, newest first; `next_before` is None on the last one."""

    incidents: list[IncidentLine]
    next_before: str | None


class IncidentStep(BaseModel):
    """One transition of an incident."""

    model_config = ConfigDict(from_attributes=True)

    event: str
    before: IncidentState
    after: IncidentState
    at: int
    actor: str
    note: str


class IncidentAnswer(IncidentLine):
    """One incident with its alarms (the first `listed` of them) and its history."""

    alarms: list[AlarmLine]
    transitions: list[IncidentStep]


class IncidentAcknowledged(IncidentLine):
    """What acknowledging it did to its alarms."""

    acknowledged_alarms: int
    refused: dict[str, str]
    off_duty: bool = False
    """Who did this is not on duty: it counts all the same, and stands in the audit."""


class SiteLine(BaseModel):
    """A building or place whose devices share power and network."""

    site: str
    devices: int
    open_alarms: int


class SiteList(BaseModel):
    """By name."""

    sites: list[SiteLine]


class SiteBody(BaseModel):
    """Devices that stand there from now on; an empty site takes them out of theirs."""

    model_config = ConfigDict(extra="forbid")

    site: Annotated[str, Field(max_length=200)]
    device_ids: Annotated[list[Annotated[str, Field(max_length=32)]], Field(min_length=1, max_length=DEVICES_MAX)]
