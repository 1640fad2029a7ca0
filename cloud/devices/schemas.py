"""What the API says and accepts about devices. Every answer is an allowlist of fields."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloud.devices.link_views import PresenceAnswer
from fleet.topics import DEVICE_ID_PATTERN

DeviceStatus = Literal["online", "silent", "retired"]


class KindCount(BaseModel):
    """How many devices of a kind there are and how many are heard."""

    kind: str
    title_zh: str
    title_en: str
    total: int
    online: int
    silent: int


class OpenCount(BaseModel):
    """What waits for people."""

    calls: int
    alarms: int
    orders: int


class FleetAnswer(BaseModel):
    """The fleet in numbers."""

    kinds: list[KindCount]
    open: OpenCount
    at: int


class DeviceLine(BaseModel):
    """One device in a list or on a map. `status` is `silent` without a message for the kind's time."""

    device_id: str
    kind: str
    name: str
    status: DeviceStatus
    latitude: float | None
    longitude: float | None
    last_heard_at: int | None
    open_calls: int
    open_alarms: int


class DeviceList(BaseModel):
    """One page of devices ordered by id; `next_after` is None on the last one."""

    devices: list[DeviceLine]
    next_after: str | None


class LinkAnswer(BaseModel):
    """The connection itself, apart from whether data comes."""

    online: bool
    changed_at: int


class AlarmLine(BaseModel):
    """An alarm that is not normal."""

    id: str
    key: str
    title_zh: str
    title_en: str
    priority: str
    state: str
    activated_at: int
    acknowledged_by: str | None


class CallLine(BaseModel):
    """An emergency call that is not cleared."""

    id: str
    state: str
    pressed_at: int
    acknowledged_by: str | None


class OrderLine(BaseModel):
    """A work order that is not finished."""

    id: str
    title_zh: str
    title_en: str
    priority: str
    state: str
    due_at: int


class DeviceAnswer(DeviceLine):
    """Everything known about one device now. `state` is the kind's own."""

    title_zh: str
    title_en: str
    state: dict[str, Any]
    link: LinkAnswer | None
    presence: PresenceAnswer | None = None
    last_reading_at: int | None
    enrolled_at: int
    retired_at: int | None
    calls: list[CallLine]
    alarms: list[AlarmLine]
    orders: list[OrderLine]


class SeriesAnswer(BaseModel):
    """Points `[bucket start in ms, mean]`; buckets without data are left out."""

    device_id: str
    field: str
    unit: str
    step_s: int
    points: list[tuple[int, float]]


class EventLine(BaseModel):
    """One event as the device told it. `late` marks one that waited on the device.

    `time_quality`: empty, `corrected` (stamped before the device knew the time) or `uncertain`.
    """

    id: int
    type: str
    event_id: str
    occurred_at: int
    received_at: int
    late: bool
    time_quality: str = ""
    body: dict[str, Any]


class EventList(BaseModel):
    """Newest first; `next_before` is None at the end."""

    events: list[EventLine]
    next_before: int | None


class CommandAnswer(BaseModel):
    """A command and how far it came; `status` and `reason` as in the device's reply, or `queued` and `sent` before it.

    `device_offline`: the command is not over, and its device cannot be reached now; if that stays so until
    `not_after` it ends `expired`, and never acts later.
    """

    id: str
    device_id: str
    action: str
    arguments: dict[str, Any]
    actor: str
    status: str
    reason: str
    issued_at: int
    not_after: int
    changed_at: int
    final: bool
    device_offline: bool


class CommandList(BaseModel):
    """Newest first; `next_before` is None at the end."""

    commands: list[CommandAnswer]
    next_before: int | None


class QuarantineLine(BaseModel):
    """A message that could not be used. `payload_base64` holds the first bytes, `payload_bytes` counts all."""

    id: int
    received_at: int
    topic: str
    device_id: str | None
    lane: str | None
    seq: int | None
    reason: str
    payload_bytes: int
    payload_base64: str


class QuarantineList(BaseModel):
    """Newest first; `next_before` is None at the end."""

    messages: list[QuarantineLine]
    next_before: int | None


class EnrolBody(BaseModel):
    """A device to be taken in. The position is WGS-84."""

    model_config = ConfigDict(extra="forbid")

    device_id: Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]
    kind: Annotated[str, Field(max_length=64)]
    name: Annotated[str, Field(max_length=128)] = ""
    latitude: Annotated[float | None, Field(ge=-90, le=90, allow_inf_nan=False)] = None
    longitude: Annotated[float | None, Field(ge=-180, le=180, allow_inf_nan=False)] = None


class FieldAnswer(BaseModel):
    """A measured field of a kind's reading."""

    name: str
    label_zh: str
    label_en: str
    unit: str
    numeric: bool


class CommandKindAnswer(BaseModel):
    """A command a kind understands; `arguments` is a JSON Schema."""

    action: str
    roles: list[str]
    arguments: dict[str, Any]


class KindAnswer(BaseModel):
    """A kind of device."""

    name: str
    title_zh: str
    title_en: str
    emergency: bool
    reading_interval_s: float
    silent_after_s: float
    fields: list[FieldAnswer]
    events: list[str]
    commands: list[CommandKindAnswer]


class KindList(BaseModel):
    """Every kind this process knows."""

    kinds: list[KindAnswer]
