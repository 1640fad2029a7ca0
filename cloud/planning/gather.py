"""Reads the planning problem from the database: all open work of all kinds, and everybody on duty soon."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, func, select

from cloud.dispatch import whereabouts
from cloud.dispatch.rows import identity
from cloud.dispatch.states import DISPATCHER
from cloud.geography import Point
from cloud.planning.model import NOTHING, Amounts, Crew, Job, Problem, Why
from cloud.roster import duty
from cloud.tables import crew, crew_member, crew_plan, crew_stop, work_order, work_order_transition
from fleet.incident import OrderEvent, OrderState, Priority

HORIZON_MS: Final = 12 * 3_600_000
SHIFT_WITHOUT_ROSTER_MS: Final = 8 * 3_600_000
POSITION_AGE_MS_MAX: Final = 4 * 3_600_000
JOBS_MAX: Final = 2000
DEFAULT_BOXES: Final = 120
BOXES_PER_BIKE: Final = 20
"""Room in a van that a bike takes."""
SERVICE_S: Final[Mapping[str, int]] = {
    "repair": 1200, "restock": 600, "battery": 180, "rebalance": 240, "inspection": 480,
}  # fmt: skip
UNLOAD_S: Final = 180
URGENCY: Final[Mapping[Priority, int]] = {
    Priority.EMERGENCY: 100, Priority.HIGH: 90, Priority.MEDIUM: 50, Priority.LOW: 20,
}  # fmt: skip
OVERDUE: Final = 9
OPEN_HOURS: Final[Mapping[str, tuple[int, int]]] = {"nursing_room": (8, 20)}
"""When a kind's places can be entered, hours of the day; kinds that are not listed always can. High priorities, too:
somebody lets the crew in."""
LET_IN_FROM: Final = 90
ZONE: Final = ZoneInfo("Asia/Shanghai")
_HOUR_S: Final = 3600
_RANK: Final = {OrderState.IN_PROGRESS.value: 0, OrderState.TRAVELLING.value: 1, OrderState.ACCEPTED.value: 2}
_UNDER_WAY: Final = (OrderState.IN_PROGRESS.value, OrderState.TRAVELLING.value)
_FREE: Final = (OrderState.DISPATCHABLE.value, OrderState.ASSIGNED.value)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The problem, what can't even be asked, and a name for it all that changes when planning anew is worth it."""

    problem: Problem
    hopeless: dict[str, Why]
    signature: str
    at: int


def gather(tx: Connection, at: int) -> Gathered:
    """Everything as it is at that moment, business ms."""
    columns = work_order.c
    rows = tx.execute(
        select(work_order)
        .where(columns.state.in_((*_FREE, *_RANK)))
        .order_by(columns.due_at, columns.id)
        .limit(JOBS_MAX)
    ).all()
    places = whereabouts.of_devices(tx, {row.device_id for row in rows})
    people = _people(tx, at)
    previous = latest_sequences(tx)
    chosen = _by_hand(
        tx, [row.id for row in rows if row.state == OrderState.ASSIGNED.value and row.assigned_to in people]
    )
    held = {row.id: row for row in rows if row.state in _RANK or row.id in chosen}
    jobs, hopeless = [], {}
    for row in rows:
        if row.id in held and row.assigned_to not in people:
            continue  # accepted by somebody who is off duty: not ours to give away
        if (place := places.get(row.device_id)) is None:
            hopeless[row.id] = Why.NO_PLACE
        else:
            jobs.append(_job(row, place, at))
    known = {job.id for job in jobs}
    crews = _crews(tx, at, people, {one: row for one, row in held.items() if one in known}, previous)
    signature = _signature(rows, crews, chosen)
    return Gathered(Problem(jobs, crews, previous), hopeless, signature, at)


def _job(row: Row[Any], place: Point, at: int) -> Job:
    urgency = URGENCY[Priority(row.priority)] + (OVERDUE if row.due_at < at else 0)
    to = None if row.to_latitude is None or row.to_longitude is None else Point(row.to_latitude, row.to_longitude)
    count = sum(json.loads(row.items).values())
    loads: Amounts = NOTHING
    if row.skill == "restock":
        loads = (count, 0, 0)
    elif row.skill == "battery":
        loads = (0, max(1, count), 0)
    return Job(
        row.id, place, row.skill, SERVICE_S.get(row.skill, SERVICE_S["repair"]), min(urgency, 100),
        max(0, ((row.on_site_by or row.due_at) - at) // 1000),
        windows(row.kind, at) if urgency < LET_IN_FROM else (), loads, (0, 0, 1) if to else NOTHING, to,
        UNLOAD_S if to else 0,
    )  # fmt: skip


def windows(kind: str, at: int) -> tuple[tuple[int, int], ...]:
    """When the places of a kind are open, in seconds from `at`, up to the horizon; () = always."""
    hours = OPEN_HOURS.get(kind)
    if hours is None:
        return ()
    local = datetime.fromtimestamp(at / 1000, tz=UTC).astimezone(ZONE)
    midnight_s = -(local.hour * _HOUR_S + local.minute * 60 + local.second)
    days = ((midnight_s + day * 24 * _HOUR_S) for day in range(3))
    found = ((begin + hours[0] * _HOUR_S, begin + hours[1] * _HOUR_S) for begin in days)
    return tuple((max(0, begin), end) for begin, end in found if end > 0)


def _people(tx: Connection, at: int) -> dict[str, tuple[duty.OnDuty, int, int]]:
    """Who can work within the horizon: (person, from, until) in business ms."""
    if not duty.anything_planned(tx):
        return {one.person_id: (one, at, at + SHIFT_WITHOUT_ROSTER_MS) for one in duty.crew_on_duty(tx, at)}
    found: dict[str, tuple[duty.OnDuty, int, int]] = {}
    shifts = [one for one in duty.shifts_between(tx, at, at + HORIZON_MS) if one.tier == duty.ON_CALL]
    there = {start: duty.crew_on_duty(tx, start) for start in {max(at, one.from_ms) for one in shifts}}
    for shift in shifts:
        start = max(at, shift.from_ms)
        for one in there[start]:
            if one.person_id != shift.person_id:
                continue
            if one.person_id not in found:
                found[one.person_id] = (one, start, shift.until_ms)
            elif shift.from_ms <= found[one.person_id][2]:  # goes on without a break
                found[one.person_id] = (one, found[one.person_id][1], shift.until_ms)
    return found


def _crews(
    tx: Connection, at: int, people: Mapping[str, tuple[duty.OnDuty, int, int]], held: Mapping[str, Row[Any]],
    previous: Mapping[str, tuple[str, ...]],
) -> list[Crew]:  # fmt: skip
    bases = whereabouts.bases(tx, people)
    here = whereabouts.of_people(tx, people, at - POSITION_AGE_MS_MAX)
    rooms = _rooms(tx, people)
    middle = Point(38.865, 121.52)  # of the zone, for who has no base yet
    crews = []
    for person_id, (one, from_ms, until_ms) in sorted(people.items()):
        before = {order_id: index for index, order_id in enumerate(previous.get(person_id, ()))}
        mine = [row for row in held.values() if row.assigned_to == person_id]
        mine.sort(
            key=lambda row: (_RANK.get(row.state, len(_RANK)), before.get(row.id, len(before)), row.changed_at, row.id)
        )
        boxes = rooms.get(person_id, DEFAULT_BOXES)
        crews.append(
            Crew(
                person_id, here.get(person_id, middle), bases.get(person_id), one.skills,
                max(0, (from_ms - at) // 1000), max(1, (until_ms - at) // 1000),
                (boxes, boxes, max(1, boxes // BOXES_PER_BIKE)), tuple(row.id for row in mine),
                sum(1 for row in mine if row.state in _UNDER_WAY),
            )
        )  # fmt: skip
    return crews


def _rooms(tx: Connection, people: Mapping[str, tuple[duty.OnDuty, int, int]]) -> dict[str, int]:
    """Boxes that each one has room for. A crew has one vehicle: who works at the same time shares what it carries.

    Half of it for each of two is less than one van could do, and never more than is there.
    """
    joined = crew_member.join(crew, crew.c.id == crew_member.c.crew_id)
    columns = (crew_member.c.person_id, crew_member.c.crew_id, crew.c.vehicle_capacity)
    found = [row for row in tx.execute(select(*columns).select_from(joined)) if row.person_id in people]
    rooms = {}
    for row in found:
        _, begin, end = people[row.person_id]
        aboard = sum(
            1 for other in found
            if other.crew_id == row.crew_id and people[other.person_id][1] < end and begin < people[other.person_id][2]
        )  # fmt: skip
        rooms[row.person_id] = row.vehicle_capacity // aboard
    return rooms


def latest_sequences(tx: Connection) -> dict[str, tuple[str, ...]]:
    """The order ids of the latest plan by person, in order."""
    latest = tx.scalar(select(func.max(crew_plan.c.id)))
    if latest is None:
        return {}
    columns = crew_stop.c
    found: dict[str, dict[str, None]] = {}
    stops = select(columns.person_id, columns.order_id).where(columns.plan_id == latest)
    for row in tx.execute(stops.order_by(columns.person_id, columns.position)):
        found.setdefault(row.person_id, {})[row.order_id] = None
    return {person_id: tuple(orders) for person_id, orders in found.items()}


def _by_hand(tx: Connection, order_ids: Sequence[str]) -> frozenset[str]:
    """Orders that a person gave to who has them: no plan takes them away again."""
    columns = work_order_transition.c
    latest = (
        select(func.max(columns.id))
        .where(columns.order_id.in_(order_ids), columns.event == OrderEvent.ASSIGN.value)
        .group_by(columns.order_id)
    )
    by_people = select(columns.order_id).where(columns.id.in_(latest), columns.actor != DISPATCHER)
    return frozenset(tx.scalars(by_people))


def _signature(rows: Any, crews: list[Crew], chosen: frozenset[str]) -> str:
    work = sorted(
        (row.id, row.priority, row.assigned_to if row.state in _RANK or row.id in chosen else "") for row in rows
    )
    return identity(json.dumps(work), *(f"{one.id}:{sorted(one.skills)}:{one.capacity}" for one in crews))
