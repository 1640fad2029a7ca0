"""Reading alarms, and acknowledging them through their device's lane."""

from typing import Any

from sqlalchemy import Connection, Row

import devices
from cloud import audit
from cloud.alarms import repository
from cloud.alarms.schemas import AlarmAnswer, AlarmGuide, AlarmLine, AlarmList, AlarmStep, TextAnswer
from cloud.api.access import Person
from cloud.api.paging import mark
from cloud.api.problem import conflict, not_found
from cloud.dispatch.orders import alarm_cause
from cloud.ports import Database, IntentRefusedError, LaneIntents
from cloud.rules.conditions import link_alarms
from fleet.clock import Clock
from fleet.kind import AlarmDefinition


class AlarmService:
    """Alarms for those on duty. Nobody but the lane changes an alarm (decision 10)."""

    def __init__(self, database: Database, clock: Clock, intents: LaneIntents) -> None:
        self._database = database
        self._clock = clock
        self._intents = intents
        self._definitions: dict[str, dict[str, AlarmDefinition]] = {}

    async def alarms(self, wanted: dict[str, str], *, is_open: bool, before: str | None, limit: int) -> AlarmList:
        """One page, newest first."""
        rows = await self._database.read(
            lambda tx: repository.alarms(tx, wanted=wanted, is_open=is_open, before=before, limit=limit + 1)
        )
        more = len(rows) > limit
        return AlarmList(
            alarms=[self._line(row) for row in rows[:limit]],
            next_before=mark(rows[limit - 1].activated_at, rows[limit - 1].id) if more else None,
        )

    async def open_alarms(self, after: str | None, limit: int) -> AlarmList:
        """One page of what is not back to normal, the most urgent first; `next_before` is the next page's `after`."""
        rows = await self._database.read(lambda tx: repository.open_alarms(tx, after, limit + 1))
        more = len(rows) > limit
        return AlarmList(
            alarms=[self._line(row) for row in rows[:limit]],
            next_before=repository.urgency_of(rows[limit - 1]) if more else None,
        )

    async def alarm(self, alarm_id: str) -> AlarmAnswer:
        """One alarm with its history and guide; raises ProblemError 404."""

        def read(tx: Connection) -> tuple[Row[Any] | None, list[Row[Any]], str | None]:
            row = repository.alarm_by_id(tx, alarm_id)
            return row, repository.transitions(tx, alarm_id), repository.order_of(tx, alarm_cause(alarm_id))

        row, steps, order_id = await self._database.read(read)
        if row is None:
            raise not_found("alarm", alarm_id)
        definition = self.definition(row.kind, row.key)
        return AlarmAnswer(
            **self._line(row).model_dump(),
            guide=AlarmGuide.of(definition) if definition is not None else None,
            order_id=order_id,
            transitions=[AlarmStep.model_validate(step) for step in steps],
        )

    async def acknowledge(self, alarm_id: str, person: Person, note: str = "") -> AlarmAnswer:
        """Somebody has seen it. Raises ProblemError 404, or 409 when there is nothing to acknowledge."""
        row = await self._database.read(lambda tx: repository.alarm_by_id(tx, alarm_id))
        if row is None:
            raise not_found("alarm", alarm_id)
        arguments = {"alarm_id": alarm_id, "note": note}
        try:
            await self._intents.submit(row.device_id, "acknowledge_alarm", person.id, arguments)
        except IntentRefusedError as refusal:
            raise conflict("not_to_acknowledge", str(refusal)) from refusal
        at, detail = self._clock.now_ms(), {"device_id": row.device_id, "before": row.state, "note": note}
        await self._database.write(lambda tx: audit.record(tx, at, person.id, "alarm.acknowledge", alarm_id, detail))
        return await self.alarm(alarm_id)

    def definition(self, kind: str, key: str) -> AlarmDefinition | None:
        """The kind's definition of an alarm; None when the kind or the alarm exists no more."""
        if kind not in self._definitions:
            known = devices.kinds().get(kind)
            if known is None:
                return None
            table = (*devices.role(kind, "rules").ALARMS, *link_alarms(known))
            self._definitions[kind] = {definition.key: definition for definition in table}
        return self._definitions[kind].get(key)

    def _line(self, row: Row[Any]) -> AlarmLine:
        definition = self.definition(row.kind, row.key)
        title = TextAnswer.of(definition.title) if definition is not None else TextAnswer(zh=row.key, en=row.key)
        facts = dict(row._mapping)  # noqa: SLF001  # the documented way to a row's dict
        return AlarmLine.model_validate({**facts, "device_name": row.device_name or row.device_id, "title": title})
