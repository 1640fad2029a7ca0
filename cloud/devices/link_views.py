"""Presence and data link of one device, as the API, the page and the command line say it."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Row

import devices
from cloud import presence as presences
from cloud.devices.link_rows import LinkRows, Moment
from cloud.presence import Freshness, LinkState
from devices import UnknownKindError
from fleet.envelope import BOOTS_PER_GENERATION
from fleet.sensors import Sensor


class LinkPresence(BaseModel):
    """The connection to the broker. `unknown`: nobody ended it, and nothing was heard for the kind's time either."""

    state: LinkState
    changed_at: int | None
    drops: int
    unstable: bool


class DataPresence(BaseModel):
    """The readings, by their own time; `never` without any."""

    state: Freshness
    at: int | None
    stale_after_s: float


class SensorPresence(BaseModel):
    """One sensor: when its value was last good, and how old it may be."""

    state: Freshness
    last_good_at: int | None
    stale_after_s: float
    title_zh: str
    title_en: str


class PresenceAnswer(BaseModel):
    """Whether a device is there: link, data and each sensor by its key, judged apart."""

    link: LinkPresence
    data: DataPresence
    sensors: dict[str, SensorPresence]


class LaneMark(BaseModel):
    """Up to which number of a lane everything is committed here."""

    lane: str
    seq: int


class GapLine(BaseModel):
    """Messages that the device declared as discarded."""

    lane: str
    generation: int
    first_seq: int
    last_seq: int
    received_at: int


class RefusedLine(BaseModel):
    """A message of the device that could not be used."""

    received_at: int
    lane: str | None
    seq: int | None
    reason: str


class DataLinkAnswer(BaseModel):
    """How the device's messages come in. Counts are of the present storage generation, except `evicted_ever`."""

    device_id: str
    hello_at: int | None
    firmware: str
    boots: int
    generation: int
    storage_id: str | None
    connection: int
    marks: list[LaneMark]
    messages: int
    late: int
    late_share: float
    time_corrected: int
    time_uncertain: int
    duplicates: int
    asked_again: int
    evicted: int
    evicted_ever: int
    gaps: list[GapLine]
    quarantined: int
    refused: list[RefusedLine]
    drops: int


def sensors_of(kind_name: str) -> Sequence[Sensor]:
    """The sensors a kind declares; none if it is not installed here."""
    try:
        return tuple(getattr(devices.role(kind_name, "rules"), "SENSORS", ()))
    except UnknownKindError:
        return ()


def presence_answer(row: Row[Any], moment: Moment) -> PresenceAnswer | None:
    """From a device with its twin (`repository.line`); None if its kind is not installed here."""
    kind = devices.kinds().get(row.kind)
    if kind is None:
        return None
    memory = presences.decode(row.presence)
    judged = presences.judge(
        kind,
        sensors_of(row.kind),
        memory,
        link_online=None if row.link_online is None else bool(row.link_online),
        link_changed_at=row.link_changed_at,
        last_heard_at=row.last_heard_at,
        last_reading_at=row.last_reading_at,
        reading=(json.loads(row.state) if row.state else {}).get("reading") or {},
        now_ms=moment.now_ms,
        delay_ms=moment.delay_ms,
    )
    return PresenceAnswer(
        link=LinkPresence(
            state=judged.link, changed_at=judged.link_changed_at, drops=memory.drops,
            unstable=memory.is_unstable() and moment.now_ms - memory.dropped_at < presences.STABLE_AFTER_MS,
        ),
        data=DataPresence(
            state=judged.data, at=judged.data_at, stale_after_s=presences.data_stale_after_ms(kind) / 1000
        ),
        sensors={
            one.sensor.key: SensorPresence(
                state=one.state, last_good_at=one.last_good_at, stale_after_s=one.sensor.stale_after_s,
                title_zh=one.sensor.title.zh, title_en=one.sensor.title.en,
            )
            for one in judged.sensors
        },
    )  # fmt: skip


def data_link_answer(rows: LinkRows) -> DataLinkAnswer:
    """From what is stored."""
    row, memory = rows.row, presences.decode(rows.row.presence)
    marks = {"emergency": row.emergency_seq or 0, "event": row.event_seq or 0, "telemetry": row.telemetry_seq or 0}
    messages = sum(marks.values()) - memory.evicted
    return DataLinkAnswer(
        device_id=row.device_id,
        hello_at=memory.hello_at or None,
        firmware=memory.firmware,
        boots=max(memory.boots, (row.link_boot_epoch or 0) % BOOTS_PER_GENERATION),
        generation=row.granted_generation,
        storage_id=row.storage_id,
        connection=row.link_connection or 0,
        marks=[LaneMark(lane=lane, seq=seq) for lane, seq in marks.items()],
        messages=messages,
        late=memory.late,
        late_share=round(min(1.0, memory.late / messages), 4) if messages > 0 else 0.0,
        time_corrected=memory.time_corrected,
        time_uncertain=memory.time_uncertain,
        duplicates=memory.duplicates,
        asked_again=memory.holes,
        evicted=memory.evicted,
        evicted_ever=rows.evicted_ever,
        gaps=[GapLine.model_validate(one, from_attributes=True) for one in rows.gaps],
        quarantined=memory.quarantined,
        refused=[RefusedLine.model_validate(one, from_attributes=True) for one in rows.quarantined],
        drops=memory.drops,
    )
