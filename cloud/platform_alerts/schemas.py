"""Grafana's webhook, as much of it as is read: everything bounded, further keys ignored because Grafana adds some."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ALERTS_MAX = 100
WORDS_MAX = 500

Words = Annotated[str, Field(max_length=WORDS_MAX)]


class Alert(BaseModel):
    """One alert. `fingerprint` is the same for the same rule and labels; `starts_at` tells its outbreaks apart."""

    model_config = ConfigDict(extra="ignore")

    status: Literal["firing", "resolved"]
    labels: Annotated[dict[str, Words], Field(max_length=50)] = {}
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4000)]], Field(max_length=50)] = {}
    starts_at: Annotated[str, Field(alias="startsAt", max_length=64)] = ""
    fingerprint: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
    value_string: Annotated[str, Field(alias="valueString", max_length=4000)] = ""


class AlertPost(BaseModel):
    """What Grafana's contact point `webhook` sends."""

    model_config = ConfigDict(extra="ignore")

    alerts: Annotated[list[Alert], Field(min_length=1, max_length=ALERTS_MAX)]


class AlertsTaken(BaseModel):
    """How many alerts came, and how many of them were news; Grafana repeats what goes on."""

    alerts: int
    new: int
