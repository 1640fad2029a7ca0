"""Who watches over calls and buttons: the watchdog's word, every button's state, tests and substitute measures."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row

import devices
from cloud import audit
from cloud.api.access import Person
from cloud.api.problem import conflict, not_found
from cloud.ports import Database, IntentRefusedError, LaneIntents, LiveChanges
from cloud.rules.conditions import link_alarms
from cloud.rules.desk import decode_desk
from cloud.rules.proof_tests import PROOF_EVERY_MS, faults
from cloud.rules.timed_alarms import SUBSTITUTE_DUE, TEST_OVERDUE
from cloud.supervision import repository
from cloud.supervision.schemas import (
    BeginTest,
    ButtonAnswer,
    Chain,
    Measure,
    ProofTest,
    ProofTests,
    RecordMeasure,
    SupervisionAnswer,
    TestBegun,
)
from fleet.clock import Clock
from fleet.kind import Text

_log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 5.0
LOOK_TIMEOUT_S: Final = 2.0
PROOFS_SHOWN: Final = 200


class SupervisionService:
    """For those on duty. Only the rooms' lanes change anything (decision 10)."""

    def __init__(
        self, database: Database, clock: Clock, intents: LaneIntents, changes: LiveChanges, new_id: Callable[[], str]
    ) -> None:
        self.probe_url = ""
        """Where the watchdog answers; set by `bootstrap`."""
        self._database = database
        self._clock = clock
        self._intents = intents
        self._changes = changes
        self._new_id = new_id
        self._chain: dict[str, Any] | None = None

    # --- the chain -----------------------------------------------------------------------------------------------

    async def follow_watchdog(self) -> None:
        """Ask the watchdog every few seconds until cancelled, and tell the pages when its word changed."""
        if not self.probe_url:
            return
        import aiohttp  # noqa: PLC0415  # 8 MB that only an installation with a watchdog shall pay

        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                before = self.chain()
                try:
                    async with session.get(self.probe_url.rstrip("/") + "/status") as answer:
                        self._chain = await answer.json()
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                    self._chain = None
                now = self.chain()
                if (before.watched, before.stage) != (now.watched, now.stage):
                    self._changes.publish("supervision", {"watched": now.watched, "stage": now.stage})
                await asyncio.sleep(LOOK_EVERY_S)

    def chain(self) -> Chain:
        """The watchdog's word, at most a few seconds old."""
        found = self._chain
        if found is None:
            reason = "the watchdog does not answer" if self.probe_url else "no watchdog is set up (FLEET_PROBE_URL)"
            return Chain(
                watched=False, whole=False, stage=None, reason=reason, round_trip_s=None, whole_before_s=None,
                announced=[],
            )  # fmt: skip
        return Chain.model_validate(
            {"watched": True, **{name: found[name] for name in Chain.model_fields if name in found}}
        )

    def now_ms(self) -> int:
        """Business time."""
        return self._clock.now_ms()

    @staticmethod
    def titles() -> dict[str, Text]:
        """Of the faults of a button, by key."""
        found: dict[str, Text] = {}
        for name, kind in devices.kinds().items():
            if kind.emergency:
                table = (*devices.role(name, "rules").ALARMS, *link_alarms(kind))
                found |= {definition.key: definition.title for definition in table}
        return found

    # --- buttons -------------------------------------------------------------------------------------------------

    async def overview(self, after: str, limit: int) -> SupervisionAnswer:
        """The chain, and one page of buttons by device id."""
        found = await self._buttons(None)
        page = [one for one in found if one.device_id > after][: limit + 1]
        more = len(page) > limit
        return SupervisionAnswer(
            chain=self.chain(), buttons=page[:limit], next_after=page[limit - 1].device_id if more else None
        )

    async def needing_somebody(self) -> list[ButtonAnswer]:
        """Buttons with a fault or an overdue test; those without a substitute first."""
        found = [one for one in await self._buttons(None) if one.faults or one.test_overdue or one.substitute_due]
        return sorted(found, key=lambda one: (not one.substitute_due, not one.faults, one.device_id))

    async def button(self, device_id: str) -> ButtonAnswer:
        """One of them; raises ProblemError 404."""
        found = await self._buttons(device_id)
        if not found:
            raise not_found("room", device_id)
        return found[0]

    async def proof_tests(self, device_id: str, person: Person) -> ProofTests:
        """Its tests, newest first. Looking at them is written down: a press is one of them."""
        await self.button(device_id)
        now_ms = self._clock.now_ms()

        def work(tx: Connection) -> list[Row[Any]]:
            audit.record(tx, now_ms, person.id, "button.view_tests", device_id, {})
            return repository.proofs(tx, device_id, PROOFS_SHOWN)

        rows = await self._database.write(work)
        return ProofTests(device_id=device_id, tests=[ProofTest.model_validate(row) for row in rows])

    async def begin_test(self, device_id: str, body: BeginTest, person: Person) -> TestBegun:
        """The next press there is a test; raises ProblemError 404, or 409 while a call is open."""
        await self.button(device_id)
        answer = await self._submit(device_id, "begin_button_test", person, {"seconds": body.seconds})
        await self._note(person, "button.test", device_id, {"seconds": body.seconds})
        return TestBegun(device_id=device_id, test_until=answer["test_until"])

    async def record_measure(self, device_id: str, body: RecordMeasure, person: Person) -> Measure:
        """Who watches over the room now; raises ProblemError 404, or 409 where none is needed or it is too long."""
        await self.button(device_id)
        await self._submit(device_id, "record_substitute", person, {"until_at": body.until_at})
        now_ms = self._clock.now_ms()
        measure = Measure(
            id=self._new_id(), device_id=device_id, measure=body.measure, responsible=body.responsible, from_at=now_ms,
            until_at=body.until_at, recorded_by=person.id,
        )  # fmt: skip

        def store(tx: Connection) -> None:
            repository.add_measure(tx, **measure.model_dump())
            audit.record(tx, now_ms, person.id, "button.substitute", device_id, measure.model_dump(mode="json"))

        await self._database.write(store)
        return measure

    async def _submit(self, device_id: str, name: str, person: Person, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._intents.submit(device_id, name, person.id, arguments)
        except IntentRefusedError as refusal:
            raise conflict("not_now", str(refusal)) from refusal

    async def _note(self, person: Person, action: str, device_id: str, detail: dict[str, Any]) -> None:
        now_ms = self._clock.now_ms()
        await self._database.write(lambda tx: audit.record(tx, now_ms, person.id, action, device_id, detail))

    async def _buttons(self, device_id: str | None) -> list[ButtonAnswer]:
        kinds = [name for name, kind in devices.kinds().items() if kind.emergency]
        now_ms = self._clock.now_ms()

        def read(tx: Connection) -> list[ButtonAnswer]:
            rows = repository.buttons(tx, kinds, device_id)
            ids = [row.device_id for row in rows]
            proofs, measures = repository.last_proofs(tx, ids), repository.measures(tx, ids, now_ms)
            return [_answer(row, proofs.get(row.device_id), measures.get(row.device_id)) for row in rows]

        return await self._database.read(read)


def _answer(row: Row[Any], proof: Row[Any] | None, measure: Row[Any] | None) -> ButtonAnswer:
    desk = decode_desk(row.desk or "{}")
    button = desk.button
    since = max(button.watched_since, button.proven_at)
    keys = faults(desk, getattr(devices.role(row.kind, "rules"), "CALL_FAULTS", ()))

    def holds(key: str) -> bool:
        return key in desk.alarms and desk.alarms[key].condition

    return ButtonAnswer(
        device_id=row.device_id,
        name=row.name or row.device_id,
        kind=row.kind,
        faults=keys,
        proven_at=proof.received_at if proof is not None else None,
        proven_how=proof.how if proof is not None else None,
        test_due_at=since + PROOF_EVERY_MS if since else None,
        test_overdue=holds(TEST_OVERDUE),
        faulty_since=button.faulty_since or None,
        substitute_due=holds(SUBSTITUTE_DUE),
        measure=Measure.model_validate(measure) if measure is not None else None,
    )
