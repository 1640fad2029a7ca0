"""Plans: what must never be broken is not, what is left out is explained, and little moves."""

import asyncio
import json
import signal
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.bench.plan import problem as day
from cloud.geography import Point, StraightLine, distance_m
from cloud.planning.model import NOTHING, Act, Crew, Job, Problem, Why
from cloud.planning.process import PlanningError, SolverProcess
from cloud.planning.schedule import Matrix, moved, violations
from cloud.planning.solve import parts, solve
from cloud.planning.worker import Answer, Question, answer

MATRIX = Matrix(StraightLine())
BASE = Point(38.865, 121.52)
SKILLS = ("repair", "restock", "battery", "rebalance", "inspection")
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

points = st.builds(
    Point, st.floats(38.84, 38.89).map(lambda x: round(x, 4)), st.floats(121.48, 121.56).map(lambda x: round(x, 4))
)
loads = st.tuples(st.integers(0, 60), st.integers(0, 3), st.just(0))
windows = st.sampled_from([(), ((0, 3600),), ((1800, 7200), (9000, 20000)), ((20000, 28000),)])


@st.composite
def jobs(draw, number):
    to = draw(st.none() | points)
    return Job(
        f"j{number}", draw(points), draw(st.sampled_from(SKILLS)), draw(st.integers(60, 1500)),
        draw(st.sampled_from((20, 50, 59, 90, 99))), draw(st.integers(0, 20000)), draw(windows),
        NOTHING if to else draw(loads), (0, 0, draw(st.integers(1, 3))) if to else NOTHING, to, 120 if to else 0,
    )  # fmt: skip


@st.composite
def problems(draw):
    work = [draw(jobs(number)) for number in range(draw(st.integers(0, 14)))]
    free = [job.id for job in work]
    crews = []
    for number in range(draw(st.integers(0, 3))):
        committed = tuple(free.pop(0) for _ in range(min(len(free), draw(st.integers(0, 2)))))
        start = draw(st.integers(0, 4000))
        crews.append(
            Crew(
                f"c{number}", draw(points), draw(st.none() | points), frozenset(draw(st.sets(st.sampled_from(SKILLS)))),
                start, start + draw(st.integers(1, 28000)), (draw(st.integers(0, 120)), draw(st.integers(0, 6)), 3),
                committed, draw(st.integers(0, len(committed))),
            )
        )  # fmt: skip
    return Problem(work, crews)


@pytest.mark.parametrize("greedy", [False, True])
@QUICK
@given(data=st.data())
def test_capacity_skills_and_windows_are_never_broken_and_what_is_left_out_is_explained(greedy, data):
    given_problem = data.draw(problems())
    plan = solve(given_problem, time.monotonic, greedy=greedy)
    assert violations(given_problem, plan, MATRIX) == []
    in_routes = {stop.job_id for route in plan.routes for stop in route.stops}
    assert in_routes | set(plan.unassigned) == {job.id for job in given_problem.jobs}
    for crew in given_problem.crews:
        stays = [job_id for job_id in plan.jobs_of(crew.id) if job_id in crew.committed]
        assert tuple(stays) == crew.committed
    for job_id, why in plan.unassigned.items():
        job = next(one for one in given_problem.jobs if one.id == job_id)
        if why is Why.NO_SKILL:
            assert not any(job.skill in crew.skills for crew in given_problem.crews)
        if not any(job.skill in crew.skills for crew in given_problem.crews):
            assert why is Why.NO_SKILL


def test_the_judge_sees_every_rule_that_is_broken():
    job = Job("a", BASE, "repair", 60, 50, windows=((0, 100),), loads=(5, 0, 0))
    crew = Crew("c", BASE, BASE, frozenset({"repair"}), 0, 3600, (10, 0, 0))
    good = solve(Problem([job], [crew]), time.monotonic)
    assert violations(Problem([job], [crew]), good, MATRIX) == []
    other = [
        Crew("c", BASE, BASE, frozenset({"restock"}), 0, 3600, (10, 0, 0)),
        Crew("c", BASE, BASE, frozenset({"repair"}), 0, 3600, (4, 0, 0)),
        Crew("c", BASE, BASE, frozenset({"repair"}), 0, 30, (10, 0, 0)),
        Crew("c", BASE, BASE, frozenset({"repair"}), 200, 3600, (10, 0, 0)),
    ]
    for broken in other:
        assert violations(Problem([job], [broken]), good, MATRIX) != []
    assert violations(Problem([job, Job("b", BASE, "repair", 60, 50)], [crew]), good, MATRIX) != []


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (Job("a", BASE, "battery", 60, 50), Why.NO_SKILL),
        (Job("a", BASE, "repair", 60, 50, loads=(11, 0, 0)), Why.TOO_BIG),
        (Job("a", BASE, "repair", 60, 50, windows=((5000, 6000),)), Why.CLOSED),
        (Job("a", BASE, "repair", 4000, 50), Why.CREWS_FULL),
    ],
)
def test_every_reason_is_found(job, why):
    crew = Crew("c", BASE, BASE, frozenset({"repair"}), 0, 3600, (10, 0, 0))
    assert solve(Problem([job], [crew]), time.monotonic).unassigned == {"a": why}


def test_bikes_are_picked_up_before_they_are_delivered_and_never_more_than_fit():
    work = [
        Job(f"m{n}", Point(38.85, 121.5 + n / 500), "rebalance", 60, 50, carries=(0, 0, 1), to=BASE) for n in range(6)
    ]
    crew = Crew("c", BASE, BASE, frozenset({"rebalance"}), 0, 28800, (0, 0, 2))
    plan = solve(Problem(work, [crew]), time.monotonic)
    assert plan.unassigned == {}
    on_board = 0
    for stop in plan.routes[0].stops:
        on_board += 1 if stop.act is Act.PICKUP else -1
        assert 0 <= on_board <= 2


@settings(QUICK, max_examples=8)
@given(seed=st.integers(1, 10_000), place=points)
def test_an_emergency_that_comes_in_moves_no_accepted_job(seed, place):
    before = day(18, 3, seed)
    first = solve(before, time.monotonic)
    accepted = [
        Crew(c.id, c.start, c.end, c.skills, c.from_s, c.until_s, c.capacity, first.jobs_of(c.id)[:3], 1)
        for c in before.crews
    ]
    emergency = Job("emergency", place, "repair", 1200, 100, 1800)
    again = Problem([*before.jobs, emergency], accepted, first.sequences())
    second = solve(again, time.monotonic)
    assert violations(again, second, MATRIX) == []
    for crew in accepted:
        assert tuple(job for job in second.jobs_of(crew.id) if job in crew.committed) == crew.committed
    assert "emergency" not in second.unassigned
    assert moved({c.id: c.committed for c in accepted}, second.sequences()) == 0


def test_new_work_of_no_urgency_leaves_a_plan_as_it_is():
    before = day(24, 3, 1)
    first = solve(before, time.monotonic)
    more = Problem([*before.jobs, Job("more", BASE, "repair", 600, 20)], before.crews, first.sequences())
    second = solve(more, time.monotonic)
    assert "more" not in second.unassigned
    assert moved(first.sequences(), second.sequences()) == 0


def test_moved_counts_other_people_and_other_order():
    before = {"a": ("1", "2", "3"), "b": ("4",)}
    assert moved(before, before) == 0
    assert moved(before, {"a": ("1", "3"), "b": ("4",)}) == 0  # 2 is done
    assert moved(before, {"a": ("new", "1", "2", "3"), "b": ("4",)}) == 0
    assert moved(before, {"a": ("2", "3", "1"), "b": ("4",)}) == 1
    assert moved(before, {"a": ("1", "2"), "b": ("3", "4")}) == 1


def test_large_instances_are_split_so_that_every_crew_and_job_is_in_one_part():
    large = day(200, 7, 1)
    found = parts(large.crews, large.jobs)
    assert len(found) > 1
    assert sorted(crew.id for crews, _ in found for crew in crews) == sorted(crew.id for crew in large.crews)
    assert sorted(job.id for _, work in found for job in work) == sorted(job.id for job in large.jobs)
    assert all(crews for crews, _ in found)


def test_travel_is_the_straight_line_times_the_detour():
    here, there = Point(38.86, 121.50), Point(38.86, 121.55)
    assert distance_m(here, there) == pytest.approx(4329, rel=0.01)
    assert StraightLine(1.5, 36).travel_s(here, there) == pytest.approx(4329 * 1.5 / 10, rel=0.01)
    assert StraightLine().travel_s(here, here) == 0


def test_without_vroom_the_insertion_plans_and_is_longer(monkeypatch):
    given_problem = day(40, 3, 2)
    with_vroom = solve(given_problem, time.monotonic)
    monkeypatch.setattr("cloud.planning.vroom_solver.available", lambda: False)
    without = solve(given_problem, time.monotonic)
    assert (with_vroom.solver, without.solver) == ("vroom", "insertion")
    assert violations(given_problem, without, MATRIX) == []
    assert sum(r.distance_m for r in with_vroom.routes) < sum(r.distance_m for r in without.routes)


async def test_the_solver_runs_in_a_process_and_the_loop_stays_free():
    solver, looks = SolverProcess(), 0

    async def look():
        nonlocal looks
        while True:
            await asyncio.sleep(0)
            looks += 1

    looking = asyncio.ensure_future(look())
    try:
        given_problem = day(30, 2, 3)
        plan = await solver.solve(given_problem)
        assert violations(given_problem, plan, MATRIX) == []
        assert looks > 100
        assert (await solver.solve(day(10, 1, 4))).solver == "vroom"
    finally:
        looking.cancel()
        await solver.close()


async def test_a_solver_that_hangs_or_dies_is_ended_and_said():
    for command in (("sleep", "60"), ("false",)):
        solver = SolverProcess(command)
        with pytest.raises(PlanningError):
            await solver.solve(day(3, 1, 1), limit_s=0.05, grace_s=0.05)
        assert solver._process is None


async def test_a_solver_that_dies_in_the_middle_of_its_answer_or_is_not_there_is_no_more_than_no_plan():
    broken = (sys.executable, "-c", "import sys; sys.stdin.readline(); print('{\"plan\": {', end='', flush=True)")
    for command in (broken, ("/nowhere/no-solver",)):
        solver = SolverProcess(command)
        with pytest.raises(PlanningError):
            await solver.solve(day(3, 1, 1), limit_s=0.05, grace_s=20)
        assert solver._process is None


async def test_a_solver_ends_with_who_started_it_even_while_native_code_hangs():
    program = (
        "import ctypes, signal, sys\n"
        "from cloud.planning import worker\n"
        "worker.bound_itself()\n"
        "worker.GRACE_S = 0.2\n"
        "worker.answer = lambda line, now_s: ctypes.PyDLL(None).pause()\n"  # holds the interpreter's lock, for ever
        "worker.main(sys.stdin.buffer, sys.stdout.buffer)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    process.stdin.write(b'{"limit_s": 0.1}\n')
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGALRM  # nobody is there any more to end it


async def test_the_solver_has_bounded_memory():
    program = (
        "import sys\n"
        "from cloud.planning import worker\n"
        "worker.bound_itself()\n"
        "worker.solve = lambda *_, **__: bytearray(worker.MEMORY_BYTES_MAX)\n"
        "worker.main(sys.stdin.buffer, sys.stdout.buffer)\n"
    )
    with pytest.raises(PlanningError, match="MemoryError"):
        await SolverProcess((sys.executable, "-c", program)).solve(day(3, 1, 1))


def test_the_worker_answers_nonsense_with_an_error():
    import msgspec

    assert json.loads(answer(b"{}", time.monotonic))["plan"] is None
    line = msgspec.json.encode(Question(day(5, 1, 1), 1.0, greedy=True))
    assert msgspec.json.decode(answer(line, time.monotonic), type=Answer).plan.solver == "insertion"
