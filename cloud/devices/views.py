"""Rows into answers."""

import base64
import json
from typing import Any

from sqlalchemy import Row

import devices
from cloud.devices.link_rows import Moment
from cloud.devices.link_views import presence_answer
from cloud.devices.repository import PAYLOAD_SHOWN_BYTES
from cloud.devices.schemas import (
    AlarmLine,
    CallLine,
    CommandAnswer,
    CommandKindAnswer,
    DeviceAnswer,
    DeviceLine,
    DeviceStatus,
    EventLine,
    FieldAnswer,
    FleetAnswer,
    KindAnswer,
    KindCount,
    LinkAnswer,
    OpenCount,
    OrderLine,
    QuarantineLine,
)
from cloud.devices.service import numeric_fields
from cloud.rules.conditions import link_alarms
from fleet.kind import Kind, Text, literal_of
from fleet.messages import FINAL_REPLIES
from fleet.units import label_of, unit_of


def kind_title(name: str) -> Text:
    """A kind's name for people; the bare name if the kind is not installed here."""
    kind = devices.kinds().get(name)
    return kind.title if kind else Text(name, name)


def alarm_title(kind_name: str, key: str) -> Text:
    """An alarm's name for people; its key if its kind is not installed here any more."""
    if kind_name in devices.kinds():
        for definition in (*devices.role(kind_name, "rules").ALARMS, *link_alarms(devices.kind_named(kind_name))):
            if definition.key == key:
                title: Text = definition.title
                return title
    return Text(key, key)


def fleet(counts: dict[str, tuple[int, int]], waiting: tuple[int, int, int], at: int) -> FleetAnswer:
    """Every known kind appears, also without devices."""
    names = sorted({*devices.kinds(), *counts})
    kinds = []
    for name in names:
        total, online = counts.get(name, (0, 0))
        title = kind_title(name)
        kinds.append(
            KindCount(
                kind=name, title_zh=title.zh, title_en=title.en, total=total, online=online, silent=total - online
            )
        )
    calls, alarms, orders = waiting
    return FleetAnswer(kinds=kinds, open=OpenCount(calls=calls, alarms=alarms, orders=orders), at=at)


def status_of(row: Row[Any]) -> DeviceStatus:
    if row.retired_at is not None:
        return "retired"
    return "online" if row.is_online else "silent"


def position_of(row: Row[Any]) -> tuple[float | None, float | None]:
    """Where it is: by its latest reading if the kind measures its position, else where it was put up."""
    reading = (json.loads(row.state) if row.state else {}).get("reading") or {}
    latitude, longitude = reading.get("latitude"), reading.get("longitude")
    return (row.latitude, row.longitude) if latitude is None or longitude is None else (latitude, longitude)


def device_line(row: Row[Any]) -> DeviceLine:
    latitude, longitude = position_of(row)
    return DeviceLine(
        device_id=row.device_id,
        kind=row.kind,
        name=row.name,
        status=status_of(row),
        latitude=latitude,
        longitude=longitude,
        last_heard_at=row.last_heard_at,
        open_calls=row.open_calls,
        open_alarms=row.open_alarms,
    )


def device_answer(
    row: Row[Any], calls: list[Row[Any]], alarms: list[Row[Any]], orders: list[Row[Any]], moment: Moment
) -> DeviceAnswer:
    title = kind_title(row.kind)
    return DeviceAnswer(
        **device_line(row).model_dump(),
        title_zh=title.zh,
        title_en=title.en,
        state=json.loads(row.state) if row.state else {},
        link=None
        if row.link_online is None
        else LinkAnswer(online=bool(row.link_online), changed_at=row.link_changed_at),
        presence=presence_answer(row, moment),
        last_reading_at=row.last_reading_at or None,
        enrolled_at=row.enrolled_at,
        retired_at=row.retired_at,
        calls=[CallLine.model_validate(call, from_attributes=True) for call in calls],
        alarms=[_alarm_line(alarm) for alarm in alarms],
        orders=[OrderLine.model_validate(order, from_attributes=True) for order in orders],
    )


def _alarm_line(row: Row[Any]) -> AlarmLine:
    title = alarm_title(row.kind, row.key)
    return AlarmLine(
        id=row.id,
        key=row.key,
        title_zh=title.zh,
        title_en=title.en,
        priority=row.priority,
        state=row.state,
        activated_at=row.activated_at,
        acknowledged_by=row.acknowledged_by,
    )


def event_line(row: Row[Any]) -> EventLine:
    return EventLine(
        id=row.id,
        type=row.type,
        event_id=row.event_id,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        late=bool(row.late),
        time_quality=row.time_quality,
        body=json.loads(row.body),
    )


def command_answer(row: Row[Any]) -> CommandAnswer:
    final = row.status in FINAL_REPLIES
    return CommandAnswer(
        id=row.id,
        device_id=row.device_id,
        action=row.action,
        arguments={name: value for name, value in json.loads(row.arguments).items() if name != "action"},
        actor=row.actor,
        status=row.status,
        reason=row.reason,
        issued_at=row.issued_at,
        not_after=row.not_after,
        changed_at=row.changed_at,
        final=final,
        device_offline=not final and not row.reachable,
    )


def quarantine_line(row: Row[Any]) -> QuarantineLine:
    return QuarantineLine(
        id=row.id,
        received_at=row.received_at,
        topic=row.topic,
        device_id=row.device_id,
        lane=row.lane,
        seq=row.seq,
        reason=row.reason,
        payload_bytes=len(row.payload),
        payload_base64=base64.b64encode(row.payload[:PAYLOAD_SHOWN_BYTES]).decode(),
    )


def kind_answer(kind: Kind) -> KindAnswer:
    plottable = numeric_fields(kind)
    return KindAnswer(
        name=kind.name,
        title_zh=kind.title.zh,
        title_en=kind.title.en,
        emergency=kind.emergency,
        reading_interval_s=kind.reading_interval_s,
        silent_after_s=kind.silent_after_s,
        fields=[
            FieldAnswer(
                name=name,
                label_zh=label_of(info, "zh") or name,
                label_en=label_of(info, "en") or name,
                unit=unit_of(info),
                numeric=name in plottable,
            )
            for name, info in kind.reading.model_fields.items()
            if name != "at"
        ],
        events=[literal_of(model, "type") for model in kind.events],
        commands=[
            CommandKindAnswer(
                action=literal_of(model, "action"), roles=sorted(model.roles), arguments=model.model_json_schema()
            )
            for model in kind.commands
        ],
    )
