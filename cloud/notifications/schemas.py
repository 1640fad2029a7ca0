"""What the API says and accepts about deliveries, contact points and wishes. Times are business ms since the epoch."""

from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cloud.dispatch.preferences import MINUTES_PER_DAY, TIME_ZONE
from cloud.notifications.addresses import ADDRESS_CHARACTERS_MAX

PersonalChannelName = Literal["push", "chat", "mail", "sms", "voice"]
Outcome = Literal["delivered", "failed", "timed_out", "refused", "given_up", "recalled", "too_late"]
Minute = Annotated[int, Field(ge=0, lt=MINUTES_PER_DAY)]


class Delivery(BaseModel):
    """One attempt. `recipient` is empty for a channel that many read; `error` is empty when it was delivered."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: int
    delivery_id: str
    kind_of: str
    reference: str
    channel: str
    recipient: str
    recipient_name: str | None
    contact_id: str
    attempt: int
    urgent: int
    outcome: Outcome
    duration_ms: int
    error: str


class DeliveryList(BaseModel):
    """One page of attempts, newest first; `next_before` is None on the last one."""

    deliveries: list[Delivery]
    next_before: int | None


class ContactAnswer(BaseModel):
    """One way to a person. `address` is shortened where it is a secret or somebody else's."""

    id: str
    person_id: str
    channel: PersonalChannelName
    address: str
    label: str
    created_at: int
    verified_at: int | None
    failing_since: int | None
    failure: str
    delivered_at: int | None
    code_sent_at: int | None


class ContactList(BaseModel):
    """Somebody's contact points; `channels` are those that this installation has."""

    contacts: list[ContactAnswer]
    channels: list[str]


class ContactBody(BaseModel):
    """A new way to me. For push: the subscription of the browser as JSON."""

    model_config = ConfigDict(extra="forbid")

    channel: PersonalChannelName
    address: Annotated[str, Field(min_length=1, max_length=ADDRESS_CHARACTERS_MAX)]
    label: Annotated[str, Field(max_length=60)] = ""


class CodeBody(BaseModel):
    """The code that came through the channel."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[str, Field(pattern=r"^ *[0-9]{6} *$")]


class PreferencesBody(BaseModel):
    """What somebody wants of notices that are no emergency. Quiet minutes count from local midnight."""

    model_config = ConfigDict(extra="forbid")

    channels: dict[Literal["high", "medium", "low"], list[PersonalChannelName]] = Field(default_factory=dict)
    quiet_from_minute: Minute | None = None
    quiet_until_minute: Minute | None = None
    time_zone: Annotated[str, Field(max_length=60)] = TIME_ZONE
    language: Literal["", "zh_CN", "en"] = ""

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("no such time zone; for example Asia/Shanghai")
        return name

    @model_validator(mode="after")
    def _quiet_hours_have_an_end(self) -> Self:
        if (self.quiet_from_minute is None) != (self.quiet_until_minute is None):
            raise ValueError("quiet hours need a begin and an end")
        return self


class PushKeyAnswer(BaseModel):
    """What a browser subscribes to; empty: this installation has no Web Push."""

    public_key: str
