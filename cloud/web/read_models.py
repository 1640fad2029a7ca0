"""Queries of the pages: what stands in several tables, joined for one screen. They only read."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, select

import devices
from cloud.devices.repository import ALARM_OPEN, CALL_OPEN
from cloud.devices.views import alarm_title, kind_title
from cloud.ports import Database
from cloud.tables import alarm, call, device, person, work_order
from fleet.incident import ORDER, CallState, OrderEvent, OrderState, Priority
from fleet.kind import AlarmDefinition, Text

ROWS_MAX = 200


@dataclass(frozen=True, slots=True)
class CallView:
    """An open emergency call."""

    id: str
    device_id: str
    place: str
    kind_title: Text
    state: str
    pressed_at: int
    helper: str
    """Name of who accepted it; empty while nobody has."""

    @property
    def waits(self) -> bool:
        """Whether nobody has accepted it yet."""
        return self.state == CallState.CALLING.value


@dataclass(frozen=True, slots=True)
class AlarmView:
    """An open alarm, with what to do about it."""

    id: str
    device_id: str
    place: str
    title: Text
    priority: str
    state: str
    activated_at: int
    returned: bool
    acknowledged_by: str
    definition: AlarmDefinition | None

    @property
    def waits(self) -> bool:
        """Whether somebody has to acknowledge it."""
        return self.state.endswith("unacknowledged")


@dataclass(frozen=True, slots=True)
class OrderView:
    """A work order."""

    id: str
    device_id: str
    place: str
    title: Text
    instructions: Text
    skill: str
    items: dict[str, int]
    priority: str
    state: str
    assigned_to: str | None
    assignee: str
    created_at: int
    due_at: int

    @property
    def possible(self) -> list[str]:
        """Events that the lifecycle allows now and that crews use, in the order of their buttons."""
        buttons = (
            OrderEvent.ACCEPT, OrderEvent.TRAVEL, OrderEvent.START, OrderEvent.COMPLETE, OrderEvent.RESUME,
            OrderEvent.HOLD, OrderEvent.GIVE_UP,
        )  # fmt: skip
        return [event.value for event in buttons if ORDER.allows(OrderState(self.state), event)]


class ReadModels:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_calls(self) -> list[CallView]:
        """Emergency calls that are not cleared, those that nobody accepted first, then the oldest."""
        return await self._database.read(_open_calls)

    async def open_alarms(self) -> list[AlarmView]:
        """Alarms that are not normal: to be acknowledged first, then by priority, then the newest."""
        return await self._database.read(_open_alarms)

    async def open_orders(self) -> list[OrderView]:
        """Work orders that are not done or cancelled, the most urgent first."""
        return await self._database.read(_open_orders)

    async def devices_of_kind(self, kind: str) -> list[Row[Any]]:
        """Id, name and position of the devices of one kind, ordered by id."""
        query = select(device).where(device.c.kind == kind, device.c.retired_at.is_(None)).order_by(device.c.device_id)
        return await self._database.read(lambda tx: list(tx.execute(query.limit(1000))))


def _open_calls(tx: Connection) -> list[CallView]:
    query = (
        select(call, device.c.name, person.c.name.label("helper"))
        .select_from(
            call.outerjoin(device, device.c.device_id == call.c.device_id).outerjoin(
                person, person.c.id == call.c.acknowledged_by
            )
        )
        .where(CALL_OPEN)
        .order_by(case((call.c.state == CallState.CALLING.value, 0), else_=1), call.c.pressed_at)
        .limit(ROWS_MAX)
    )
    return [
        CallView(
            id=row.id,
            device_id=row.device_id,
            place=row.name or row.device_id,
            kind_title=kind_title(row.kind),
            state=row.state,
            pressed_at=row.pressed_at,
            helper=row.helper or row.acknowledged_by or "",
        )
        for row in tx.execute(query)
    ]


def _open_alarms(tx: Connection) -> list[AlarmView]:
    urgency = case({priority.value: number for number, priority in enumerate(Priority)}, value=alarm.c.priority, else_=9)
    waits = case((alarm.c.state.like("%unacknowledged"), 0), else_=1)
    query = (
        select(alarm, device.c.name, person.c.name.label("acknowledger"))
        .select_from(
            alarm.outerjoin(device, device.c.device_id == alarm.c.device_id).outerjoin(
                person, person.c.id == alarm.c.acknowledged_by
            )
        )
        .where(ALARM_OPEN)
        .order_by(waits, urgency, alarm.c.activated_at.desc())
        .limit(ROWS_MAX)
    )
    return [
        AlarmView(
            id=row.id,
            device_id=row.device_id,
            place=row.name or row.device_id,
            title=alarm_title(row.kind, row.key),
            priority=row.priority,
            state=row.state,
            activated_at=row.activated_at,
            returned=row.state.startswith("returned"),
            acknowledged_by=row.acknowledger or row.acknowledged_by or "",
            definition=_definition(row.kind, row.key),
        )
        for row in tx.execute(query)
    ]


def _definition(kind_name: str, key: str) -> AlarmDefinition | None:
    if kind_name not in devices.kinds():
        return None
    definitions: tuple[AlarmDefinition, ...] = devices.role(kind_name, "rules").ALARMS
    return next((definition for definition in definitions if definition.key == key), None)


def _open_orders(tx: Connection) -> list[OrderView]:
    finished = [OrderState.DONE.value, OrderState.CANCELLED.value]
    query = (
        select(work_order, device.c.name, person.c.name.label("assignee"))
        .select_from(
            work_order.outerjoin(device, device.c.device_id == work_order.c.device_id).outerjoin(
                person, person.c.id == work_order.c.assigned_to
            )
        )
        .where(work_order.c.state.not_in(finished))
        .order_by(work_order.c.due_at)
        .limit(ROWS_MAX)
    )
    return [
        OrderView(
            id=row.id,
            device_id=row.device_id,
            place=row.name or row.device_id,
            title=Text(row.title_zh, row.title_en),
            instructions=Text(row.instructions_zh, row.instructions_en),
            skill=row.skill,
            items=json.loads(row.items),
            priority=row.priority,
            state=row.state,
            assigned_to=row.assigned_to,
            assignee=row.assignee or row.assigned_to or "",
            created_at=row.created_at,
            due_at=row.due_at,
        )
        for row in tx.execute(query)
    ]
