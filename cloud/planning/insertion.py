"""Cheapest insertion: the solver that is always there, and what puts new work into a plan without disturbing it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cloud.planning.model import Act, Crew, Job, Plan, Problem, Why
from cloud.planning.schedule import Matrix, Visit, Walk, fits, route_of, walk

LATE_WEIGHT: Final = 3
"""A second late counts like so many of travel, before urgency."""


TRIED_MAX: Final = 5
"""Places in one row that are tried, of a row that has more."""


def rows_of(problem: Problem, sequences: Mapping[str, Sequence[str]]) -> dict[str, list[Visit]]:
    """Visits by crew: first what is committed, then the given jobs, as far as they can still be done."""
    jobs = {job.id: job for job in problem.jobs}
    rows: dict[str, list[Visit]] = {}
    for crew in problem.crews:
        ids = [*crew.committed, *(one for one in sequences.get(crew.id, ()) if one not in set(crew.committed))]
        rows[crew.id] = [(jobs[one], act) for one in ids if one in jobs for act in jobs[one].stops]
    return rows


def insert(problem: Problem, rows: dict[str, list[Visit]], wanted: Iterable[Job], matrix: Matrix) -> None:
    """Put jobs into `rows` where that costs least, the most urgent first; what has no place is left out."""
    crews = {crew.id: crew for crew in problem.crews}
    costs = {crew_id: _cost(walk(crews[crew_id], row, matrix)) for crew_id, row in rows.items()}
    for job in sorted(wanted, key=lambda one: (-one.urgency, one.due_s, one.id)):
        best: tuple[float, str, list[Visit]] | None = None
        for crew_id, row in rows.items():
            crew, before = crews[crew_id], costs[crew_id]
            if job.skill not in crew.skills or not fits(crew, [*row, *((job, act) for act in job.stops)]):
                continue
            for candidate in _candidates(crew, row, job, matrix):
                cost = _cost(walk(crew, candidate, matrix)) - before
                if best is None or (cost, crew_id) < best[:2]:
                    best = (cost, crew_id, candidate)
        if best is not None and best[0] < float("inf"):
            rows[best[1]] = best[2]
            costs[best[1]] += best[0]


def _candidates(crew: Crew, row: list[Visit], job: Job, matrix: Matrix) -> Iterable[list[Visit]]:
    """The row with the job where it may stand: never before what is under way; at the nearest places of a long row."""
    under_way = set(crew.committed[: crew.under_way])
    first = max((index + 1 for index, (one, _) in enumerate(row) if one.id in under_way), default=0)
    places = [crew.start, *(one.place(act) for one, act in row), crew.end]

    def detour_s(index: int) -> int:
        before, after = places[index], places[index + 1]
        assert before is not None, "only the last one may be missing"
        way = matrix.travel_s(before, job.at)
        return way if after is None else way + matrix.travel_s(job.at, after) - matrix.travel_s(before, after)

    indices: Iterable[int] = range(first, len(row) + 1)
    if len(row) - first > TRIED_MAX:
        indices = sorted(sorted(indices, key=detour_s)[:TRIED_MAX])
    for index in indices:
        if job.to is None:
            yield [*row[:index], (job, Act.VISIT), *row[index:]]
        else:  # delivered next, or after the next stop: bikes are not driven around the town
            for after in range(index, min(index + 2, len(row) + 1)):
                yield [*row[:index], (job, Act.PICKUP), *row[index:after], (job, Act.DELIVERY), *row[after:]]


def _cost(found: Walk | None) -> float:
    return float("inf") if found is None else found.travel_s + LATE_WEIGHT * found.late_s


def finished(problem: Problem, rows: Mapping[str, list[Visit]], matrix: Matrix, solver: str, solve_ms: int) -> Plan:
    """The plan of these rows, with a reason for every job in none of them."""
    crews = {crew.id: crew for crew in problem.crews}
    routes = [route_of(crews[crew_id], row, matrix) for crew_id, row in rows.items() if row]
    kept = tuple(route for route in routes if route is not None)
    done = {stop.job_id for route in kept for stop in route.stops}
    left = {job.id: why_not(job, problem.crews, matrix) for job in problem.jobs if job.id not in done}
    return Plan(kept, left, solver, solve_ms)


def why_not(job: Job, crews: Sequence[Crew], matrix: Matrix) -> Why:
    """Why a job stands in no route: what nobody could do even with nothing else to do, else that all are full."""
    able = [crew for crew in crews if job.skill in crew.skills]
    if not able:
        return Why.NO_SKILL
    row = [(job, act) for act in job.stops]
    roomy = [crew for crew in able if fits(_free(crew), row)]
    if not roomy:
        return Why.TOO_BIG
    if job.windows and all(walk(_free(crew), row, matrix) is None for crew in roomy):
        return Why.CLOSED
    return Why.CREWS_FULL


def _free(crew: Crew) -> Crew:
    return Crew(crew.id, crew.start, crew.end, crew.skills, crew.from_s, crew.until_s, crew.capacity)
