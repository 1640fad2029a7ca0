"""Walks along a row of stops: when is one where, is that allowed, how long does it take. The judge of every plan."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cloud.geography import Point, TravelTimes
from cloud.planning.model import Act, Crew, Job, Plan, Problem, Route, Stop

Visit = tuple[Job, Act]


class Matrix:
    """Travel times between the places of one problem, each pair computed once."""

    def __init__(self, travel: TravelTimes) -> None:
        self._travel = travel
        self._known: dict[tuple[Point, Point], int] = {}

    def travel_s(self, here: Point, there: Point) -> int:
        """Whole seconds."""
        found = self._known.get((here, there))
        if found is None:
            found = self._known[here, there] = self._travel.travel_s(here, there)
        return found

    def distance_m(self, here: Point, there: Point) -> float:
        """Metres."""
        return self._travel.distance_m(here, there)


@dataclass(frozen=True, slots=True)
class Walk:
    """A walkable row of stops; `late_s` sums how much is late, weighted by urgency."""

    stops: tuple[Stop, ...]
    travel_s: int
    ends_s: int
    late_s: int


def walk(crew: Crew, visits: Sequence[Visit], matrix: Matrix) -> Walk | None:
    """When a crew is where; None if it can't be: closed places, the end of the shift, no room, no skill."""
    if not fits(crew, visits):
        return None
    now, here, travelled, late_s = crew.from_s, crew.start, 0, 0
    stops: list[Stop] = []
    committed = set(crew.committed)
    for job, act in visits:
        there = job.place(act)
        way = matrix.travel_s(here, there)
        travelled += way
        arrives = _opens(job, now + way, ignore=job.id in committed)
        if arrives is None:
            return None
        late = arrives > job.due_s and act is not Act.DELIVERY
        late_s += (arrives - job.due_s) * (1 + job.urgency) // 10 if late else 0
        leaves = arrives + job.takes_s(act)
        if leaves > crew.until_s and job.id not in committed:
            return None
        stops.append(Stop(job.id, act, arrives, leaves, late))
        now, here = leaves, there
    if crew.end is not None and stops:
        way = matrix.travel_s(here, crew.end)
        now, travelled = now + way, travelled + way
    only_committed = all(job.id in committed for job, _ in visits)
    return Walk(tuple(stops), travelled, now, late_s) if now <= crew.until_s or only_committed else None


def _opens(job: Job, at: int, *, ignore: bool) -> int | None:
    """When work there can begin; who has accepted a job has agreed on a time with the place."""
    if not job.windows or ignore:
        return at
    index = bisect.bisect_left([end for _, end in job.windows], at)
    return max(at, job.windows[index][0]) if index < len(job.windows) else None


def fits(crew: Crew, visits: Sequence[Visit]) -> bool:
    """Skills, and room in the van at every moment; loads are on board from the base on, empties take no room."""
    committed = set(crew.committed)
    boxes = batteries = bikes = 0
    for job, act in visits:
        if job.skill not in crew.skills and job.id not in committed:
            return False
        if act is not Act.DELIVERY:
            boxes, batteries, bikes = boxes + job.loads[0], batteries + job.loads[1], bikes + job.loads[2]
    room = crew.capacity
    if boxes > room[0] or batteries > room[1] or bikes > room[2]:
        return all(job.id in committed for job, _ in visits)
    carried: set[str] = set()
    for job, act in visits:
        if act is Act.VISIT:
            boxes, batteries, bikes = boxes - job.loads[0], batteries - job.loads[1], bikes - job.loads[2]
            continue
        if act is Act.PICKUP:
            carried.add(job.id)
            more = job.carries
        elif job.id in carried:
            more = (-job.carries[0], -job.carries[1], -job.carries[2])
        else:
            return False
        boxes, batteries, bikes = boxes + more[0], batteries + more[1], bikes + more[2]
        over = boxes > room[0] or batteries > room[1] or bikes > room[2]
        if over and job.id not in committed:
            return False
    return True


def route_of(crew: Crew, visits: Sequence[Visit], matrix: Matrix) -> Route | None:
    """The walk as a route with its length."""
    found = walk(crew, visits, matrix)
    if found is None:
        return None
    places = [crew.start, *(job.place(act) for job, act in visits)]
    if crew.end is not None and visits:
        places.append(crew.end)
    metres = sum(matrix.distance_m(here, there) for here, there in pairwise(places))
    return Route(crew.id, found.stops, found.travel_s, round(metres), found.ends_s)


def violations(problem: Problem, plan: Plan, matrix: Matrix) -> list[str]:
    """Everything in a plan that must not be; empty for every plan that is kept."""
    jobs, crews = {job.id: job for job in problem.jobs}, {crew.id: crew for crew in problem.crews}
    found: list[str] = []
    seen: dict[str, list[Act]] = {}
    for route in plan.routes:
        crew = crews[route.crew_id]
        visits = [(jobs[stop.job_id], stop.act) for stop in route.stops]
        again = walk(crew, visits, matrix)
        if again is None:
            found.append(f"{crew.id}: can't be walked")
        elif [(stop.arrives_s, stop.leaves_s) for stop in again.stops] != [
            (stop.arrives_s, stop.leaves_s) for stop in route.stops
        ]:
            found.append(f"{crew.id}: its times are wrong")
        order = [stop.job_id for stop in route.stops if stop.job_id in set(crew.committed)]
        if tuple(dict.fromkeys(order)) != tuple(one for one in crew.committed if one in jobs):
            found.append(f"{crew.id}: accepted jobs changed")
        for stop in route.stops:
            seen.setdefault(stop.job_id, []).append(stop.act)
    for job in problem.jobs:
        acts = tuple(seen.pop(job.id, ()))
        if acts and acts != job.stops:
            found.append(f"{job.id}: done as {acts}")
        if bool(acts) == (job.id in plan.unassigned):
            found.append(f"{job.id}: must stand in a route or be explained, not both")
    return found + [f"{job_id}: unknown" for job_id in seen]


def moved(before: Mapping[str, tuple[str, ...]], after: Mapping[str, tuple[str, ...]]) -> int:
    """How many jobs of the plan before have another person now, or another order among those that stayed theirs."""
    owner = {job_id: crew_id for crew_id, jobs in after.items() for job_id in jobs}
    count = 0
    for crew_id, jobs in before.items():
        left = [job_id for job_id in jobs if job_id in owner]
        stayed = [job_id for job_id in left if owner[job_id] == crew_id]
        place = {job_id: index for index, job_id in enumerate(after.get(crew_id, ()))}
        count += len(left) - len(stayed) + len(stayed) - _longest_rising([place[job_id] for job_id in stayed])
    return count


def _longest_rising(numbers: Sequence[int]) -> int:
    tails: list[int] = []
    for number in numbers:
        index = bisect.bisect_left(tails, number)
        tails[index : index + 1] = [number]
    return len(tails)
