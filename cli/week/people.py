"""Whose telephone rings, who reads it when, and what they do about it from where they are."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from cli.week.agenda import Agenda
from cli.week.cloud import WeekCloud
from cli.week.crew import Crew
from cli.week.handling import BY_TELEPHONE, Call
from cli.week.ledger import Ledger
from cloud.api.problem import ProblemError
from cloud.model import Notification, Recipient
from cloud.roster.duty import TIERS, on_duty
from cloud.tables import alarm, person
from firmware_sim.demand import local_hour
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import AlarmState
from fleet.randomness import Randomness

ANSWERS: Final = 0.85
"""Share of pages for a call that whoever hears them accepts; the others are in a lift, or asleep."""
ANSWER_S: Final = (8.0, 45.0)
READ_S: Final = (45.0, 360.0)
"""From an alarm on the telephone until somebody looks at it."""
DESK_EVERY_S: Final = 1_800.0
"""How often somebody on duty looks through what did not ring (low priority), by day."""
_BY_DAY: Final = (7, 22)
_UNSEEN: Final = (AlarmState.UNACKNOWLEDGED.value, AlarmState.RETURNED_UNACKNOWLEDGED.value)


@dataclass(frozen=True, slots=True)
class Ring:
    """One notification on one person's telephone. `alarms`: how many are in it."""

    at_ms: int
    person_id: str
    kind_of: str
    priority: str
    key: str
    alarms: int
    reference: str


class Telephones:
    """Everybody's telephone: every notification that leaves the product arrives here, at `told`."""

    name = "push"

    def __init__(self) -> None:
        self.told: Callable[[Notification, str], Awaitable[None]] | None = None

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        """See cloud.ports.PersonalChannel."""
        del delivery_id
        if self.told is not None:
            await self.told(notification, recipient.person_id)


class People:
    """Everybody on duty. `rings` is what rang; `settled` says what was done about an alarm without any order."""

    def __init__(
        self, cloud: WeekCloud, crew: Crew, ledger: Ledger, agenda: Agenda, now_ms: Callable[[], int],
        randomness: Callable[..., Randomness],
    ) -> None:  # fmt: skip
        self.rings: list[Ring] = []
        self.settled: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._cloud, self._crew, self._ledger, self._agenda, self._now_ms = cloud, crew, ledger, agenda, now_ms
        self._draw = randomness("people")
        self._later(DESK_EVERY_S, self._look_through)

    def _later(self, after_s: float, act: Callable[[], Awaitable[None]]) -> None:
        self._agenda.at(self._now_ms() + max(1, round(after_s * MILLISECONDS_PER_SECOND)), act)

    # --- the telephone rings -----------------------------------------------------------------------------------

    async def told(self, notification: Notification, recipient: str) -> None:
        """It rings for `recipient`."""
        who = [recipient]
        facts = notification.facts
        alarms = int(facts.get("count", 1)) if notification.kind_of == "alarm" else 0
        key = str(facts.get("key", facts.get("flood", notification.kind_of)))
        for person_id in who:
            self.rings.append(
                Ring(self._now_ms(), person_id, notification.kind_of, notification.priority, key, alarms,
                     notification.reference)
            )  # fmt: skip
        if notification.kind_of == "call":
            await self._about_call(notification, who)
        elif notification.kind_of == "alarm" and who:
            reader = who[self._draw.randint(0, len(who) - 1)]
            listed = facts.get("alarms") or [{"alarm_id": notification.reference}]
            ids = [str(one["alarm_id"]) for one in listed if one.get("alarm_id")]
            self._later(self._draw.uniform(*READ_S), partial(self._read, reader, ids))

    async def _audience(self, audience: str) -> list[str]:
        now_ms = self._now_ms()

        def read(tx: Connection) -> list[str]:
            if audience in TIERS:
                return [one.person_id for one in on_duty(tx, audience, now_ms)]
            everybody = select(person.c.id).where(person.c.role.in_(("crew", "admin")), person.c.disabled_at.is_(None))
            return sorted(tx.scalars(everybody))

        return await self._cloud.database.read(read)

    # --- calls -------------------------------------------------------------------------------------------------

    async def _about_call(self, notification: Notification, who: Sequence[str]) -> None:
        if notification.facts.get("step") not in {"press", "escalate"}:
            return
        for person_id in who:
            if self._draw.random() < ANSWERS:
                answer = partial(self._accept, person_id, notification.reference, notification.device_id)
                self._later(self._draw.uniform(*ANSWER_S), answer)

    async def _accept(self, person_id: str, call_id: str, device_id: str) -> None:
        try:
            await self._cloud.calls.acknowledge(call_id, self._ledger.person(person_id))
        except ProblemError:  # somebody else was faster, or it is over
            self.counts["calls_taken_by_others"] += 1
            return
        await self._crew.help(person_id, call_id, device_id)

    # --- alarms ------------------------------------------------------------------------------------------------

    async def _read(self, person_id: str, alarm_ids: Sequence[str]) -> None:
        """Somebody looks at these alarms, says so, and does what can be done at once."""

        def read(tx: Connection) -> Sequence[Row[Any]]:
            return tx.execute(select(alarm).where(alarm.c.id.in_(alarm_ids)).order_by(alarm.c.id)).all()

        for row in await self._cloud.database.read(read):
            if row.state in _UNSEEN:
                await self._seen(person_id, row)

    async def _look_through(self) -> None:
        self._later(DESK_EVERY_S, self._look_through)
        if not _BY_DAY[0] <= local_hour(self._now_ms()) < _BY_DAY[1]:
            return
        who = await self._audience(TIERS[0])
        if not who:
            return
        before_ms = self._now_ms() - round(READ_S[1] * MILLISECONDS_PER_SECOND)

        def read(tx: Connection) -> Sequence[Row[Any]]:
            unseen = alarm.c.state.in_(_UNSEEN) & (alarm.c.changed_at <= before_ms)
            return tx.execute(select(alarm).where(unseen).order_by(alarm.c.id)).all()

        reader = who[self._draw.randint(0, len(who) - 1)]
        for row in await self._cloud.database.read(read):
            await self._seen(reader, row)

    async def _seen(self, person_id: str, row: Row[Any]) -> None:
        try:
            await self._cloud.alarms.acknowledge(row.id, self._ledger.person(person_id))
        except ProblemError as refusal:
            self.counts[f"acknowledge: {refusal.code}"] += 1
            return
        call = BY_TELEPHONE.get((row.kind, row.key))
        if call is not None and row.state == AlarmState.UNACKNOWLEDGED.value:
            minutes = self._draw.uniform(*call.within_minutes)
            self._later(minutes * 60, partial(self._settle, row.id, row.device_id, call))

    async def _settle(self, alarm_id: str, device_id: str, call: Call) -> None:
        status = await self._cloud.database.read(
            lambda tx: tx.scalar(select(alarm.c.state).where(alarm.c.id == alarm_id))
        )
        if status == AlarmState.NORMAL.value:
            return  # it was over before anybody got there
        self.settled[alarm_id] = call.act or call.command or "told the building"
        self._crew.do(device_id, (call.act,) if call.act else (), call.command)
