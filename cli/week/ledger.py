"""The product's side of the crew's work: reading orders, and acting on them through the service."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, select

from cli.week.cloud import WeekCloud
from cli.week.geography import Point, drive_s, road_metres
from cloud.api.access import Person, Role
from cloud.api.problem import ProblemError
from cloud.planning.gather import latest_sequences
from cloud.tables import alarm, call, work_order
from cloud.work_orders.schemas import MakeBody, OrderAct
from firmware_sim.demand import HOUR_MS, local_hour
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import CallState, OrderState

PRESSING_MS: Final = 30 * 60_000
"""An order whose time would run out within so long after the arrival goes before all others."""
OPEN_HOURS: Final = (7.0, 22.0)
"""Companies let the crew into their rooms between these local hours, but for what can't wait."""
MANAGER: Final = "manager-1"
PATIENT_MS: Final = 90 * 60_000
"""An order with more time than that waits for company: for a round, or until somebody is near."""
ROUND_HOURS: Final = ((9.0, 11.5), (15.0, 17.5))
"""When patient work is done in one go, local hours."""
NEAR_METRES: Final = 700.0


@dataclass(slots=True)
class Job:
    """One order on its way to be done."""

    order_id: str
    device_id: str
    kind: str
    key: str
    items: dict[str, int]
    start_by_ms: int
    looks: int = 0


class Ledger:
    """See above. `refused` counts acts that the product turned down, by its reason."""

    def __init__(self, cloud: WeekCloud, site_of: Callable[[str], Point]) -> None:
        self.refused: Counter[str] = Counter()
        self._cloud = cloud
        self._site_of = site_of
        self._codes: dict[str, str] = {}

    @staticmethod
    def person(person_id: str) -> Person:
        """Somebody who is signed in."""
        role = Role.ADMIN if person_id.startswith("manager") else Role.CREW
        return Person(person_id, person_id, person_id, role, "zh_CN")

    def place_of(self, device_id: str) -> Point:
        """Where the product believes it to be."""
        reading = self._cloud.lanes[device_id].state.reading
        if reading is not None and hasattr(reading, "latitude"):
            return reading.latitude, reading.longitude
        return self._site_of(device_id)

    async def jobs_of(self, person_id: str) -> list[Job]:
        """Orders that are somebody's and not begun, with what they are for."""
        states = (OrderState.ASSIGNED.value, OrderState.ACCEPTED.value)

        def read(tx: Connection) -> list[Row[Any]]:
            columns = work_order.c
            key = select(alarm.c.key).where("alarm:" + alarm.c.id == columns.cause).scalar_subquery()
            query = select(*columns, key.label("alarm_key"))
            query = query.where(columns.assigned_to == person_id, columns.state.in_(states))
            return list(tx.execute(query.order_by(columns.due_at, columns.id)))

        return [_job(row) for row in await self._cloud.database.read(read)]

    async def next_job(
        self, person_id: str, at: Point, now_ms: int, until_ms: int, without: frozenset[str] = frozenset()
    ) -> Job | None:
        """What is pressing, else the next stop of the plan, else the nearest; patient work waits for a round.

        A person who is out takes patient work along that is near. At night only what can't wait is done.
        """
        jobs = await self.jobs_of(person_id)
        planned = await self._cloud.database.read(latest_sequences) if jobs and not without else {}
        position = {order_id: index for index, order_id in enumerate(planned.get(person_id, ()))}
        hour = local_hour(now_ms)
        open_now = OPEN_HOURS[0] <= hour < OPEN_HOURS[1]
        in_round = any(begin <= hour < end for begin, end in ROUND_HOURS)
        best: tuple[int, float, str] | None = None
        chosen: Job | None = None
        for job in jobs:
            if job.key in without:
                continue
            metres = road_metres(at, self.place_of(job.device_id))
            left_ms = job.start_by_ms - now_ms - round(drive_s(metres) * MILLISECONDS_PER_SECOND)
            if left_ms > PATIENT_MS:
                if not open_now or until_ms - now_ms < HOUR_MS // 2:
                    continue
                if not (in_round or metres <= NEAR_METRES):
                    continue
            pressing = left_ms < PRESSING_MS
            by_plan = float(position.get(job.order_id, len(position)))
            rank = (0, float(job.start_by_ms)) if pressing else (1, by_plan + metres / 1e9)
            if best is None or (*rank, job.order_id) < best:
                best, chosen = (*rank, job.order_id), job
        return chosen

    # --- acts --------------------------------------------------------------------------------------------------

    async def _act(self, job: Job, act: OrderAct, person_id: str, reason: str = "", note: str = "") -> bool:
        try:
            await self._cloud.orders.act(job.order_id, act, self.person(person_id), note, reason)
        except ProblemError as refusal:
            self.refused[f"{act.value}: {refusal.code}"] += 1
            return False
        return True

    async def accept(self, job: Job, person_id: str) -> bool:
        """Take it; False when it is not theirs any more."""
        state = await self._state(job.order_id)
        if state == OrderState.ACCEPTED.value:
            return True
        return state == OrderState.ASSIGNED.value and await self._act(job, OrderAct.ACCEPT, person_id)

    async def travel(self, job: Job, person_id: str) -> None:
        """On the way."""
        await self._act(job, OrderAct.TRAVEL, person_id)

    async def start(self, job: Job, person_id: str) -> None:
        """There: the code on the device is scanned."""
        if job.device_id not in self._codes:
            self._codes[job.device_id], _ = await self._cloud.evidence.code(job.device_id, self.person(MANAGER))
        await self._cloud.evidence.scan(self._codes[job.device_id], self.person(person_id), None)

    async def complete(self, job: Job, person_id: str) -> bool:
        """Done; False when the device does not say so."""
        return await self._act(job, OrderAct.COMPLETE, person_id)

    async def give_up(self, job: Job, person_id: str) -> None:
        """It can't be done now."""
        await self._act(job, OrderAct.GIVE_UP, person_id, "part_missing", "needs another part")

    async def hold(self, job: Job, person_id: str) -> None:
        """A call came in between."""
        await self._act(job, OrderAct.HOLD, person_id, "other_work", "a call for help")

    async def resume_all(self, person_id: str) -> None:
        """Whatever waited for the end of a call."""

        def read(tx: Connection) -> list[str]:
            columns = work_order.c
            held = (columns.assigned_to == person_id) & (columns.state == OrderState.ON_HOLD.value)
            return list(tx.scalars(select(columns.id).where(held).order_by(columns.id)))

        for order_id in await self._cloud.database.read(read):
            job = Job(order_id, "", "", "", {}, 0)
            await self._act(job, OrderAct.RESUME, person_id)

    async def report(self, device_id: str, text: str, key: str) -> None:
        """A member tells the desk, and the desk makes an order of it."""
        body = MakeBody(device_id=device_id, skill="repair", title=text, key=key)
        await self._cloud.orders.make(body, self.person(MANAGER), key)

    async def _state(self, order_id: str) -> str | None:
        return await self._cloud.database.read(
            lambda tx: tx.scalar(select(work_order.c.state).where(work_order.c.id == order_id))
        )

    async def is_open_call(self, call_id: str) -> bool:
        """Whether nobody has cleared it in the room."""
        state = await self._cloud.database.read(lambda tx: tx.scalar(select(call.c.state).where(call.c.id == call_id)))
        return state is not None and state != CallState.CLEARED.value


def _job(row: Row[Any]) -> Job:
    return Job(
        row.id, row.device_id, row.kind, row.alarm_key or key_of_cause(row.cause),
        msgspec.json.decode(row.items), row.due_at if row.cause.startswith("plan:") else row.on_site_by or row.due_at,
    )  # fmt: skip


def key_of_cause(cause: str) -> str:
    """What an order of a need or a plan is for: `need:<device>:<cause>:<at>`, `plan:<plan>:<device>:<period>`."""
    parts = cause.split(":")
    if parts[0] == "manual":
        return "defect"
    if parts[0] == "plan":
        return "proof_test" if "test" in parts[1] else parts[1]
    return parts[2] if len(parts) > 2 else parts[-1]
