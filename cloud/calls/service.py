"""Reading calls, and accepting one through its device's lane. A call is cleared only at its origin."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row

import devices
from cloud import audit
from cloud.api.access import Person
from cloud.api.paging import mark
from cloud.api.problem import conflict, not_found
from cloud.calls import repository
from cloud.calls.schemas import Attempt, CallAnswer, CallList, CallStep
from cloud.ports import Database, IntentRefusedError, LaneIntents
from cloud.roster import off_duty
from cloud.rules.desk import decode_desk
from cloud.rules.proof_tests import faults
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

EVERY_ROOM: Final = "*"
"""What the audit names as looked at when no room was chosen."""


class CallService:
    """Emergency calls for those on duty. Nobody but the lane changes a call (decision 10)."""

    def __init__(self, database: Database, clock: Clock, intents: LaneIntents) -> None:
        self._database = database
        self._clock = clock
        self._intents = intents

    async def calls(
        self, person: Person, *, is_open: bool | None, device_id: str | None, before: str | None, limit: int
    ) -> CallList:
        """One page, newest first. Looking at the history of rooms is written down, once per request."""

        def read(tx: Connection) -> tuple[list[Row[Any]], list[CallAnswer]]:
            rows = repository.calls(tx, is_open=is_open, device_id=device_id, before=before, limit=limit + 1)
            return rows, _answers(tx, rows[:limit])

        if not is_open:
            await self._note_view(person, device_id or EVERY_ROOM)
        rows, answers = await self._database.read(read)
        more = len(rows) > limit
        next_before = mark(rows[limit - 1].pressed_at, rows[limit - 1].id) if more else None
        return CallList(calls=answers, next_before=next_before)

    async def open_calls(self, after: str | None, limit: int) -> CallList:
        """One page of calls that are not cleared: those that nobody accepted first, then who has waited longest.

        `next_before` is the next page's `after`.
        """

        def read(tx: Connection) -> tuple[list[Row[Any]], list[CallAnswer]]:
            rows = repository.open_calls(tx, after, limit + 1)
            return rows, _answers(tx, rows[:limit])

        rows, answers = await self._database.read(read)
        more = len(rows) > limit
        next_before = repository.urgency_of(rows[limit - 1]) if more else None
        return CallList(calls=answers, next_before=next_before)

    async def call(self, call_id: str, person: Person) -> CallAnswer:
        """One call with every second of it; raises ProblemError 404. Looking at it is written down."""
        answer = await self._answer(call_id)
        await self._note_view(person, answer.device_id)
        return answer

    async def acknowledge(self, call_id: str, person: Person) -> CallAnswer:
        """`person` is going there. Raises ProblemError 404, or 409 when somebody else is, or it is over."""
        before = await self._answer(call_id)
        try:
            await self._intents.submit(before.device_id, "acknowledge_call", person.id, {"call_id": call_id})
        except IntentRefusedError as refusal:
            raise conflict("not_to_acknowledge", str(refusal)) from refusal
        at, detail = self._clock.now_ms(), {"device_id": before.device_id, "before": before.state.value}

        def write_down(tx: Connection) -> bool:
            audit.record(tx, at, person.id, "call.acknowledge", call_id, detail)
            return off_duty.note(tx, at, person.id, "call.acknowledge", call_id)

        is_off_duty = await self._database.write(write_down)
        return (await self._answer(call_id)).model_copy(update={"off_duty": is_off_duty})

    async def _answer(self, call_id: str) -> CallAnswer:
        def read(tx: Connection) -> CallAnswer | None:
            row = repository.call_by_id(tx, call_id)
            if row is None:
                return None
            (answer,) = _answers(tx, [row])
            answer.attempts = [_attempt(one, row.pressed_at) for one in repository.attempts(tx, call_id)]
            return answer

        answer = await self._database.read(read)
        if answer is None:
            raise not_found("call", call_id)
        return answer

    async def _note_view(self, person: Person, device_id: str) -> None:
        at = self._clock.now_ms()
        await self._database.write(lambda tx: audit.record(tx, at, person.id, "call.view_history", device_id, {}))


def _answers(tx: Connection, rows: Sequence[Row[Any]]) -> list[CallAnswer]:
    by_call: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for step in repository.steps(tx, [row.id for row in rows]):
        by_call[step.call_id].append(step)
    desks = repository.desks(tx, [row.device_id for row in rows])
    return [
        CallAnswer.model_validate(
            {
                **row._mapping,  # noqa: SLF001  # the documented way to a row's dict
                "device_name": row.device_name or row.device_id,
                "faults": _faults(row.kind, desks.get(row.device_id, "{}")),
                "steps": [_step(step, row.pressed_at) for step in by_call[row.id]],
            }
        )
        for row in rows
    ]


def _faults(kind: str, desk: str) -> list[str]:
    try:
        role = devices.role(kind, "rules")
    except devices.UnknownKindError:  # its folder was taken away; the call stays readable
        return []
    return faults(decode_desk(desk), getattr(role, "CALL_FAULTS", ()))


def _attempt(row: Row[Any], pressed_at: int) -> Attempt:
    seconds = (row.at - pressed_at) / MILLISECONDS_PER_SECOND
    return Attempt.model_validate({**row._mapping, "seconds_after_press": seconds})  # noqa: SLF001  # as above


def _step(step: Row[Any], pressed_at: int) -> CallStep:
    seconds = (step.at - pressed_at) / MILLISECONDS_PER_SECOND
    return CallStep.model_validate({**step._mapping, "seconds_after_press": seconds})  # noqa: SLF001  # as above
