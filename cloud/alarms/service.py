"""Reading alarms, and people's acts on them, through the lanes of their devices."""

from typing import Any, Final

from sqlalchemy import Connection, Row

import devices
from cloud import audit
from cloud.alarms import repository
from cloud.alarms.lanes import Act, submit_all
from cloud.alarms.schemas import (
    AlarmAnswer,
    AlarmGuide,
    AlarmLine,
    AlarmList,
    AlarmStep,
    BulkAnswer,
    BulkBody,
    BulkLine,
    HiddenLine,
    HiddenList,
    ShelveBody,
    TextAnswer,
)
from cloud.alarms.statistics import AlarmStatistics, statistics
from cloud.api.access import Person
from cloud.api.paging import mark
from cloud.api.problem import conflict, not_found
from cloud.dispatch.orders import alarm_cause
from cloud.ports import Database, IntentRefusedError, LaneIntents
from cloud.roster import off_duty
from cloud.rules.conditions import link_alarms
from fleet.clock import Clock
from fleet.kind import AlarmDefinition

HIDDEN_MAX: Final = 1000
INTENTS: Final = {
    "acknowledge": "acknowledge_alarm",
    "shelve": "shelve_alarm",
    "unshelve": "unshelve_alarm",
    "reset-latch": "reset_latch",
}
"""What people call an act, and its intent."""


class AlarmService:
    """Alarms for those on duty. Nobody but the lane changes an alarm (decision 10)."""

    def __init__(self, database: Database, clock: Clock, intents: LaneIntents) -> None:
        self._database = database
        self._clock = clock
        self._intents = intents
        self._definitions: dict[str, dict[str, AlarmDefinition]] = {}

    def now_ms(self) -> int:
        """Business time, as alarms count it."""
        return self._clock.now_ms()

    # --- reading -----------------------------------------------------------------------------------------------

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

    async def open_alarms(self, after: str | None, limit: int, wanted: dict[str, str] | None = None) -> AlarmList:
        """One page of what is shown and not back to normal, the most urgent first.

        `next_before` is the next page's `after`. Without `wanted`, what belongs to an open incident is left out.
        """
        rows = await self._database.read(lambda tx: repository.open_alarms(tx, after, limit + 1, wanted))
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

    async def hidden(self) -> HiddenList:
        """What is hidden, why, by whom and until when."""

        def read(tx: Connection) -> tuple[list[Row[Any]], list[Row[Any]]]:
            suppressed = {"view": "suppressed_by_design"}
            found = repository.alarms(tx, wanted=suppressed, is_open=True, before=None, limit=HIDDEN_MAX)
            return repository.hidings(tx, HIDDEN_MAX), found

        hidings, suppressed = await self._database.read(read)
        return HiddenList(hidden=[self._hidden(row) for row in hidings], suppressed=[self._line(r) for r in suppressed])

    async def statistics(self, days: int) -> AlarmStatistics:
        """The load on people over the last days, after the practice of ISA-18.2."""
        until = self._clock.now_ms()
        return await self._database.read(lambda tx: statistics(tx, until - days * 86_400_000, until, self.title))

    # --- acts --------------------------------------------------------------------------------------------------

    async def acknowledge(self, alarm_id: str, person: Person, note: str = "") -> AlarmAnswer:
        """Somebody has seen it. Raises ProblemError 404, or 409 when there is nothing to acknowledge."""
        return await self._act(alarm_id, "acknowledge", person, {"note": note}, "not_to_acknowledge")

    async def shelve(self, alarm_id: str, person: Person, body: ShelveBody) -> AlarmAnswer:
        """Hide it for a while. Raises ProblemError 404, or 409 above the maximum of its priority."""
        arguments = {"reason": body.reason, "for_s": body.for_s, "one_shot": body.one_shot}
        return await self._act(alarm_id, "shelve", person, arguments, "not_to_shelve")

    async def unshelve(self, alarm_id: str, person: Person, reason: str) -> AlarmAnswer:
        """Show it again. Raises ProblemError 404, or 409 when it is not on the shelf."""
        return await self._act(alarm_id, "unshelve", person, {"reason": reason}, "not_shelved")

    async def reset_latch(self, alarm_id: str, person: Person, reason: str) -> AlarmAnswer:
        """The device was inspected on site. Raises ProblemError 404, or 409 while its cause is there."""
        return await self._act(alarm_id, "reset-latch", person, {"reason": reason}, "not_to_reset")

    async def bulk(self, body: BulkBody, person: Person) -> BulkAnswer:
        """The same act on many; each is done or refused on its own."""
        ids = list(dict.fromkeys(body.alarm_ids))
        known = await self._database.read(lambda tx: repository.devices_of_alarms(tx, ids))
        arguments: dict[str, Any] = {"reason": body.reason, "note": body.reason}
        if body.act == "shelve":
            arguments |= {"for_s": body.for_s, "one_shot": body.one_shot}
        acts: list[Act] = [
            (known[alarm_id], INTENTS[body.act], person.id, {**arguments, "alarm_id": alarm_id})
            for alarm_id in ids
            if alarm_id in known
        ]
        refusals = await submit_all(self._intents, acts)
        found = {act[3]["alarm_id"]: refusal for act, refusal in zip(acts, refusals, strict=True)}
        lines = [BulkLine(alarm_id=one, refused=found.get(one, "there is no such alarm")) for one in ids]
        done = [line.alarm_id for line in lines if not line.refused]
        at, detail = self._clock.now_ms(), {"reason": body.reason, "alarms": done}

        def write_down(tx: Connection) -> bool:
            of = f"{len(done)} alarms"
            audit.record(tx, at, person.id, f"alarm.{body.act}", of, detail)
            return off_duty.note(tx, at, person.id, f"alarm.{body.act}", of)

        is_off_duty = bool(done) and await self._database.write(write_down)
        return BulkAnswer(done=len(done), alarms=lines, off_duty=is_off_duty)

    async def _act(
        self, alarm_id: str, act: str, person: Person, arguments: dict[str, Any], refused_code: str
    ) -> AlarmAnswer:
        row = await self._database.read(lambda tx: repository.alarm_by_id(tx, alarm_id))
        if row is None:
            raise not_found("alarm", alarm_id)
        try:
            await self._intents.submit(row.device_id, INTENTS[act], person.id, {"alarm_id": alarm_id, **arguments})
        except IntentRefusedError as refusal:
            raise conflict(refused_code, str(refusal)) from refusal
        at, detail = self._clock.now_ms(), {"device_id": row.device_id, "before": row.state, **arguments}

        def write_down(tx: Connection) -> bool:
            audit.record(tx, at, person.id, f"alarm.{act}", alarm_id, detail)
            return off_duty.note(tx, at, person.id, f"alarm.{act}", alarm_id)

        is_off_duty = await self._database.write(write_down)
        return (await self.alarm(alarm_id)).model_copy(update={"off_duty": is_off_duty})

    # --- words -------------------------------------------------------------------------------------------------

    def definition(self, kind: str, key: str) -> AlarmDefinition | None:
        """The kind's definition of an alarm; None when the kind or the alarm exists no more."""
        if kind not in self._definitions:
            known = devices.kinds().get(kind)
            if known is None:
                return None
            table = (*devices.role(kind, "rules").ALARMS, *link_alarms(known))
            self._definitions[kind] = {definition.key: definition for definition in table}
        return self._definitions[kind].get(key)

    def title(self, kind: str, key: str) -> TextAnswer:
        """An alarm's name; its key where the kind is not installed any more."""
        definition = self.definition(kind, key)
        return TextAnswer.of(definition.title) if definition is not None else TextAnswer(zh=key, en=key)

    def _line(self, row: Row[Any]) -> AlarmLine:
        facts = dict(row._mapping)  # noqa: SLF001  # the documented way to a row's dict
        title = self.title(row.kind, row.key)
        return AlarmLine.model_validate({**facts, "device_name": row.device_name or row.device_id, "title": title})

    def _hidden(self, row: Row[Any]) -> HiddenLine:
        facts = dict(row._mapping)  # noqa: SLF001  # the documented way to a row's dict
        title = self.title(row.kind, row.key) if row.key else None
        names = {"device_name": row.device_name or row.device_id, "kind": row.kind or ""}
        return HiddenLine.model_validate({**facts, **names, "title": title, "one_shot": bool(row.one_shot)})
