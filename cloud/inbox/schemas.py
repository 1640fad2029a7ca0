"""What the API says about notices. Times are business ms since the epoch."""

from typing import Any

from pydantic import BaseModel

from cloud.alarms.schemas import TextAnswer


class NoticeLine(BaseModel):
    """One notice. `reference` is the id of the call, alarm, order or condition that `kind_of` names."""

    id: int
    kind_of: str
    reference: str
    priority: str
    device_id: str
    title: TextAnswer
    audience: str
    facts: dict[str, Any]
    created_at: int


class NoticeList(BaseModel):
    """One page of notices, newest first; `next_before` is None on the last one."""

    notices: list[NoticeLine]
    next_before: int | None
