"""Time to plan a day's rounds: seeded jobs of all kinds over the zone, solved as the product does, in its process."""

import asyncio
import math
import random
import time
from statistics import median
from typing import Any

from cloud.geography import Point, StraightLine
from cloud.planning.gather import SERVICE_S, UNLOAD_S
from cloud.planning.model import NOTHING, Crew, Job, Problem
from cloud.planning.process import SolverProcess
from cloud.planning.schedule import Matrix, violations
from cloud.planning.solve import PART_JOBS_MAX
from cloud.planning.vroom_solver import EXPLORATION

SOUTH, NORTH, WEST, EAST = 38.84, 38.89, 121.48, 121.56
SHIFT_S = 8 * 3600
SKILLS = tuple(SERVICE_S)
URGENCIES = (20, 50, 59, 90)
WITHIN_S = (3600, 4 * 3600, 24 * 3600)


def problem(jobs: int, crews: int, seed: int) -> Problem:
    """A day's work: the five kinds of it in equal parts, a few urgent."""
    source = random.Random(seed)

    def point() -> Point:
        return Point(source.uniform(SOUTH, NORTH), source.uniform(WEST, EAST))

    work = []
    for number in range(jobs):
        skill = SKILLS[number % len(SKILLS)]
        moves = skill == "rebalance"
        loads = {"restock": (source.randint(5, 30), 0, 0), "battery": (0, 1, 0)}.get(skill, NOTHING)
        work.append(
            Job(
                f"job-{number:04}", point(), skill, SERVICE_S[skill], source.choices(URGENCIES, (4, 4, 1, 1))[0],
                source.choice(WITHIN_S), ((0, SHIFT_S),) if skill == "inspection" else (), loads,
                (0, 0, 1) if moves else NOTHING, point() if moves else None, UNLOAD_S if moves else 0,
            )
        )  # fmt: skip
    base = Point(38.865, 121.52)
    people = [
        Crew(f"crew-{number:02}", base, base, frozenset(SKILLS), 0, SHIFT_S, (120, 60, 6)) for number in range(crews)
    ]
    return Problem(work, people)


def measure(jobs: int, crews: int, runs: int) -> dict[str, Any]:
    """Wall time of `runs` plans of different days, the process warm; fails on a plan that breaks a rule."""
    return asyncio.run(_measure(jobs, crews, runs))


async def _measure(jobs: int, crews: int, runs: int) -> dict[str, Any]:
    solver = SolverProcess()
    seconds, kilometres, left, late, wrong = [], 0.0, 0, 0, 0
    try:
        await solver.solve(problem(10, 1, 0))
        for seed in range(1, runs + 1):
            given = problem(jobs, crews, seed)
            began_s = time.perf_counter()
            plan = await solver.solve(given)
            seconds.append(time.perf_counter() - began_s)
            wrong += len(violations(given, plan, Matrix(StraightLine())))
            kilometres += sum(route.distance_m for route in plan.routes) / 1000
            left += len(plan.unassigned)
            late += sum(stop.late for route in plan.routes for stop in route.stops)
            name = plan.solver
    finally:
        await solver.close()
    seconds.sort()
    return {
        "jobs": jobs, "crews": crews, "runs": runs, "solver": name, "exploration_level": EXPLORATION,
        "parts": max(1, min(math.ceil(jobs / PART_JOBS_MAX), crews)), "seconds_median": round(median(seconds), 3),
        "seconds_p95": round(seconds[math.ceil(0.95 * runs) - 1], 3), "seconds_max": round(seconds[-1], 3),
        "kilometres_mean": round(kilometres / runs, 1), "unassigned": left, "late_stops": late, "violations": wrong,
    }  # fmt: skip
