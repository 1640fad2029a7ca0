"""Makes a plan: keeps what was promised, uses VROOM where it is there, splits what is too large, and judges the result.

1. accepted jobs stay with their person, in their order; only something urgent may come in between
2. the rest is planned twice: the plan before with new work put in where it costs least, and all anew; the new one
   is taken only where it saves more than moving costs (`MOVE_S`), which is little for stops further on
3. what no route takes gets its reason
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from cloud.geography import Point, StraightLine, TravelTimes
from cloud.planning import vroom_solver
from cloud.planning.insertion import finished, insert, rows_of
from cloud.planning.model import Crew, Job, Plan, Problem
from cloud.planning.schedule import Matrix, Visit, moved, violations, walk

PART_JOBS_MAX: Final = 45
"""More open jobs than this are split by area: VROOM's time grows with the cube."""
URGENT: Final = 90
"""From this urgency on, a job may come between accepted ones."""
NEXT_STOPS: Final = 2
"""So many stops of a round somebody has in mind already."""
MOVE_S: Final = 900
"""What it costs to give one of those to somebody else, or to turn their order: so much less travel or lateness."""
MOVE_LATER_S: Final = 90
"""What that costs for a stop further on, which was only looked at in the application."""
UNDONE_S: Final = 3600
"""What a job that stands in no route costs, before its urgency."""
LIMIT_S: Final = 5.0
SHORT_LIMIT_S: Final = 0.15

Now = Callable[[], float]
"""Monotonic seconds."""


def solve(
    problem: Problem, now_s: Now, travel: TravelTimes | None = None, *, limit_s: float = LIMIT_S, greedy: bool = False
) -> Plan:
    """The best plan within about `limit_s` seconds. `greedy`: without VROOM."""
    began_s = now_s()
    matrix = Matrix(travel or StraightLine())
    committed = {job_id for crew in problem.crews for job_id in crew.committed}
    free = [job for job in problem.jobs if job.id not in committed]
    with_vroom = not greedy and vroom_solver.available()
    kept = _keep(problem, free, matrix) if problem.previous else None
    anew = _anew(problem, free, matrix, with_vroom=with_vroom, limit_s=limit_s)
    rows = anew if kept is None or _is_worth_moving(problem, kept, anew, matrix) else kept
    took_ms = round((now_s() - began_s) * 1000)
    plan = finished(problem, rows, matrix, "vroom" if with_vroom else "insertion", took_ms)
    if wrong := violations(problem, plan, matrix):
        raise RuntimeError(f"a plan that breaks its rules was not kept: {'; '.join(wrong[:5])}")
    return plan


def _keep(problem: Problem, free: Sequence[Job], matrix: Matrix) -> dict[str, list[Visit]]:
    """The plan before, as far as it still can be done, and new work where it fits in."""
    jobs = {job.id for job in problem.jobs}
    rows = rows_of(problem, {})
    urgent = [job for job in free if job.urgency >= URGENT and not _is_in(problem, job.id)]
    insert(problem, rows, urgent, matrix)
    for crew in problem.crews:
        for job_id in problem.previous.get(crew.id, ()):
            if job_id not in jobs or job_id in {job.id for row in rows.values() for job, _ in row}:
                continue
            job = next(one for one in free if one.id == job_id)
            longer = [*rows[crew.id], *((job, act) for act in job.stops)]
            if walk(crew, longer, matrix) is not None:
                rows[crew.id] = longer
    _insert_rest(problem, rows, free, matrix)
    return rows


def _anew(
    problem: Problem, free: Sequence[Job], matrix: Matrix, *, with_vroom: bool, limit_s: float
) -> dict[str, list[Visit]]:
    rows = rows_of(problem, {})
    insert(problem, rows, [job for job in free if job.urgency >= URGENT and any(rows.values())], matrix)
    placed = {job.id for row in rows.values() for job, _ in row}
    left = [job for job in free if job.id not in placed]
    if with_vroom and left:
        for part in parts(problem.crews, left):
            _solve_part(problem, rows, part, matrix, limit_s * len(part[1]) / len(left))
    _insert_rest(problem, rows, free, matrix)
    return rows


def _solve_part(
    problem: Problem, rows: dict[str, list[Visit]], part: tuple[list[Crew], list[Job]], matrix: Matrix, limit_s: float
) -> None:
    crews, jobs = part
    small = Problem(problem.jobs, crews)
    before = {crew.id: rows[crew.id] for crew in crews}
    found = dict(before)
    vroom_solver.solve(small, found, jobs, matrix, max(SHORT_LIMIT_S, limit_s))
    for crew in crews:  # what VROOM thinks possible is judged by the same walk as everything else
        if walk(crew, found[crew.id], matrix) is not None:
            rows[crew.id] = found[crew.id]


def _insert_rest(problem: Problem, rows: dict[str, list[Visit]], free: Sequence[Job], matrix: Matrix) -> None:
    placed = {job.id for row in rows.values() for job, _ in row}
    insert(problem, rows, [job for job in free if job.id not in placed], matrix)


def _is_in(problem: Problem, job_id: str) -> bool:
    return any(job_id in jobs for jobs in problem.previous.values())


def _is_worth_moving(
    problem: Problem, kept: dict[str, list[Visit]], anew: dict[str, list[Visit]], matrix: Matrix
) -> bool:
    """Whether all anew saves more than moving costs: people who were told something else already."""
    sequences = {crew_id: tuple(dict.fromkeys(job.id for job, _ in row)) for crew_id, row in anew.items()}
    near = moved({crew_id: jobs[:NEXT_STOPS] for crew_id, jobs in problem.previous.items()}, sequences)
    later = max(0, moved(problem.previous, sequences) - near)
    moves_s = near * MOVE_S + later * MOVE_LATER_S
    return _cost_s(problem, anew, matrix) + moves_s < _cost_s(problem, kept, matrix)


def _cost_s(problem: Problem, rows: dict[str, list[Visit]], matrix: Matrix) -> int:
    """Travel, what is late, and what is left undone."""
    crews = {crew.id: crew for crew in problem.crews}
    served = {job.id for row in rows.values() for job, _ in row}
    undone = sum(UNDONE_S * (10 + job.urgency) // 10 for job in problem.jobs if job.id not in served)
    walks = [walk(crews[crew_id], row, matrix) for crew_id, row in rows.items()]
    return undone + sum(found.travel_s + found.late_s for found in walks if found is not None)


def parts(crews: Sequence[Crew], jobs: Sequence[Job]) -> list[tuple[list[Crew], list[Job]]]:
    """Crews and jobs by area, none larger than about `PART_JOBS_MAX` jobs: sectors around the middle of the work.

    Every crew is in exactly one part; a job that nobody in its part can do is left for the insertion afterwards,
    which looks at all crews.
    """
    count = min(math.ceil(len(jobs) / PART_JOBS_MAX), len(crews))
    if count <= 1:
        return [(list(crews), list(jobs))]
    middle = Point(sum(job.at.latitude for job in jobs) / len(jobs), sum(job.at.longitude for job in jobs) / len(jobs))
    around = sorted(jobs, key=lambda job: (_angle(middle, job.at), job.id))
    found: list[tuple[list[Crew], list[Job]]] = [
        ([], around[len(around) * index // count : len(around) * (index + 1) // count]) for index in range(count)
    ]
    for index, crew in enumerate(sorted(crews, key=lambda crew: (sorted(crew.skills), crew.id))):
        found[index % count][0].append(crew)  # alike ones go to different parts
    return found


def _angle(middle: Point, point: Point) -> float:
    north = point.latitude - middle.latitude
    east = (point.longitude - middle.longitude) * math.cos(math.radians(middle.latitude))
    return math.atan2(north, east)


__all__ = ["LIMIT_S", "PART_JOBS_MAX", "parts", "solve"]
