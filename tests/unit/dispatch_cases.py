"""Decisions and readers shared by the tests of dispatch."""

import asyncio
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from cloud.dispatch import notices
from cloud.model import AlarmChange, CallChange, Decisions, NeedChange, Notification
from cloud.tables import metadata, outbox, person
from fleet.incident import ALARM, CALL, AlarmEvent, AlarmState, CallEvent, CallState, Priority
from fleet.kind import AlarmDefinition, CallStep, Flag, Need, Text

NOW = 1_800_000_000_000
SOON_S = 10.0
CHANNELS = ("inbox", "webhook", "group-bot")


def definition(key: str = "silent", priority: Priority = Priority.HIGH, skill: Any = None) -> AlarmDefinition:
    return AlarmDefinition(
        key=key,
        title=Text(f"报警{key}", f"Alarm {key}"),
        priority=priority,
        condition=Flag("on"),
        cause=Text("因", "cause"),
        consequence=Text("果", "consequence"),
        action=Text("做", "do"),
        respond_within_s=600,
        skill=skill,
    )


def alarm_change(
    number: int = 1,
    event: AlarmEvent = AlarmEvent.ACTIVATE,
    before: AlarmState = AlarmState.NORMAL,
    *,
    at: int = NOW,
    of: AlarmDefinition | None = None,
    actor: str = "",
) -> AlarmChange:
    of = of or definition()
    return AlarmChange(
        f"alarm-{of.key}-{number}", f"bike-{number:03}", "bike", of, event, before, ALARM.next(before, event), at, actor
    )


def call_change(
    event: CallEvent, before: CallState, *, at: int = NOW, number: int = 1, press: int = 1, actor: str = ""
) -> CallChange:
    step = None if event is CallEvent.ACKNOWLEDGE else CallStep(event.value)
    return CallChange(
        f"call-{number}",
        f"room-{number:03}",
        "nursing_room",
        before,
        CALL.next(before, event),
        at,
        step=step,
        actor=actor,
        event_id="" if step is None else f"{press:032x}",
        received_at=at + 40,
        escalation=0 if step is CallStep.PRESS else None,
    )


def press(number: int = 1, *, at: int = NOW) -> CallChange:
    return call_change(CallEvent.PRESS, CallState.IDLE, at=at, number=number)


def escalation(level: int, *, at: int, number: int = 1) -> CallChange:
    return CallChange(
        f"call-{number}",
        f"room-{number:03}",
        "nursing_room",
        CallState.CALLING,
        CallState.CALLING,
        at,
        escalation=level,
        received_at=at,
    )


def acknowledge(*, at: int, number: int = 1, actor: str = "p1") -> CallChange:
    return call_change(CallEvent.ACKNOWLEDGE, CallState.CALLING, at=at, number=number, actor=actor)


def need_change(*, wanted: bool = True, at: int = NOW, device_id: str = "machine-001") -> NeedChange:
    need = Need(
        cause="restock",
        skill="restock",
        title=Text("补货", "Restock"),
        priority=Priority.MEDIUM,
        due_within_s=7200,
        items={"rice": 3},
    )
    return NeedChange(device_id, "meal_machine", "restock", need if wanted else None, wanted, at)


def decided(*changes: AlarmChange | CallChange | NeedChange) -> Decisions:
    decisions = Decisions()
    for change in changes:
        if isinstance(change, AlarmChange):
            decisions.alarms.append(change)
        elif isinstance(change, CallChange):
            decisions.calls.append(change)
        else:
            decisions.needs.append(change)
    return decisions


def add_people(tx: Connection, *people: tuple[str, str]) -> None:
    tx.execute(
        insert(person),
        [
            {"id": name, "login": name, "name": name.title(), "role": role, "password_hash": "", "created_at": NOW}
            for name, role in people
        ],
    )


def rows(tx: Connection, table: Table) -> list[dict[str, Any]]:
    return [dict(row) for row in tx.execute(select(table).order_by(*table.primary_key.columns)).mappings()]


def everything(tx: Connection) -> dict[str, list[dict[str, Any]]]:
    return {table.name: rows(tx, table) for table in metadata.sorted_tables}


def waiting(tx: Connection, channel: str = "webhook") -> list[Notification]:
    found = (
        select(outbox.c.notification)
        .where(outbox.c.channel == channel, outbox.c.delivered_at.is_(None), outbox.c.given_up_at.is_(None))
        .order_by(outbox.c.id)
    )
    return [notices.decode(text) for text in tx.scalars(found)]


def stored(database, channel="webhook"):
    return [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["channel"] == channel]


class Watched:
    """The database, and a way to wait for what its users did to it."""

    def __init__(self, database):
        self.inner = database
        self.reads = 0
        self.changed = asyncio.Condition()

    async def write(self, work):
        result = await self.inner.write(work)
        async with self.changed:
            self.changed.notify_all()
        return result

    async def read(self, work):
        result = await self.inner.read(work)
        async with self.changed:
            self.reads += 1
            self.changed.notify_all()
        return result

    def write_here(self, work):
        return self.inner.write_here(work)

    def read_here(self, work):
        return self.inner.read_here(work)

    async def several_polls(self):
        """Until the workers looked for work a few times more."""
        seen = self.reads
        async with asyncio.timeout(SOON_S), self.changed:
            await self.changed.wait_for(lambda: self.reads >= seen + 6)

    async def until(self, condition, channel="webhook"):
        """The channel's rows as soon as `condition` holds for them."""
        async with asyncio.timeout(SOON_S), self.changed:
            await self.changed.wait_for(lambda: condition(stored(self, channel)))
        return stored(self, channel)
