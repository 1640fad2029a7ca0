"""VROOM over jobs that nobody has accepted, behind what each crew is committed to.

pyvroom holds the interpreter's lock while it solves: this module is called in a process of its own (`process.py`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from cloud.geography import Point
from cloud.planning.model import NO_LIMIT_S, Act, Crew, Job, Problem
from cloud.planning.schedule import Matrix, Visit, walk

EXPLORATION: Final = 0
"""Of 0 to 5. Level 0 took 0.1 s where level 5 took 2 s, for routes that are a tenth longer (60 jobs, 4 crews)."""
LATE_ROOM_S: Final = 5400
"""What is late or nearly so is to be reached within this from now, if that can be."""
_MINUTES: Final = 60


def available() -> bool:
    """Whether pyvroom is installed (extra `planning`)."""
    try:
        import vroom  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401, PLC0415  # an extra
    except ImportError:
        return False
    return True


def solve(
    problem: Problem, rows: dict[str, list[Visit]], wanted: Sequence[Job], matrix: Matrix, limit_s: float
) -> None:
    """Append to each crew's committed visits what VROOM gives them of `wanted`; what it leaves out stays out."""
    import numpy as np  # noqa: PLC0415  # comes with pyvroom
    import vroom  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415  # an extra

    skills = {name: number for number, name in enumerate(sorted({job.skill for job in problem.jobs}), 1)}
    places: dict[Point, int] = {}

    def place(point: Point) -> int:
        return places.setdefault(point, len(places))

    given = vroom.Input()
    crews = [found for crew in problem.crews if (found := _rest_of(crew, rows[crew.id], matrix)) is not None]
    for number, crew in enumerate(crews, 1):
        given.add_vehicle(
            vroom.Vehicle(
                number, start=place(crew.start), end=None if crew.end is None else place(crew.end),
                capacity=list(crew.capacity), skills={skills[one] for one in crew.skills if one in skills},
                time_window=(crew.from_s, crew.until_s),
            )
        )  # fmt: skip
    by_number: dict[int, Visit] = {}
    for job in wanted:
        _add(vroom, given, job, by_number, skills[job.skill], place)
    if not crews or not by_number:
        return
    points = list(places)
    matrix_s = np.array([[matrix.travel_s(here, there) for there in points] for here in points], dtype=np.uint32)
    given.set_durations_matrix("car", matrix_s)
    solution = given.solve(exploration_level=EXPLORATION, nb_threads=1, timeout=timedelta(seconds=limit_s))
    steps: list[dict[str, Any]] = solution.to_dict()["routes"]
    for route in steps:
        crew_id = crews[int(route["vehicle"]) - 1].id
        served = (step for step in route["steps"] if step["type"] not in {"start", "end"})
        rows[crew_id] = [*rows[crew_id], *(by_number[int(step["id"])] for step in served)]


def _rest_of(crew: Crew, row: Sequence[Visit], matrix: Matrix) -> Crew | None:
    """The crew as it will be when it is done with what it is committed to; None if its shift is over then."""
    if not row:
        return crew
    found = walk(crew, row, matrix)
    if found is None or found.stops[-1].leaves_s >= crew.until_s:
        return None
    loaded = [sum(job.loads[index] for job, act in row if act is not Act.DELIVERY) for index in range(3)]
    room = tuple(max(0, room - held) for room, held in zip(crew.capacity, loaded, strict=True))
    job, act = row[-1]
    return Crew(
        crew.id, job.place(act), crew.end, crew.skills, found.stops[-1].leaves_s, crew.until_s,
        (room[0], room[1], room[2]),
    )  # fmt: skip


def _add(vroom: Any, given: Any, job: Job, by_number: dict[int, Visit], skill: int, place: Any) -> None:
    number = len(by_number) + 1
    windows = _windows(job)
    if not windows:
        return
    if job.to is None:
        by_number[number] = (job, Act.VISIT)
        given.add_job(
            vroom.Job(
                number, location=place(job.at), default_service=job.service_s, delivery=list(job.loads),
                skills={skill}, priority=job.urgency, time_windows=windows,
            )
        )  # fmt: skip
        return
    by_number[number], by_number[number + 1] = (job, Act.PICKUP), (job, Act.DELIVERY)
    given.add_shipment(
        vroom.ShipmentStep(number, place(job.at), default_service=job.service_s, time_windows=windows),
        vroom.ShipmentStep(
            number + 1, place(job.to), default_service=job.unload_s,
            time_windows=[tuple(window) for window in job.windows] or [(0, NO_LIMIT_S)],
        ),
        amount=vroom.Amount(list(job.carries)), skills={skill}, priority=job.urgency,
    )  # fmt: skip


def _windows(job: Job) -> list[tuple[int, int]]:
    """When the place is open, cut at the time by which somebody should be there; uncut where that leaves nothing."""
    opened = list(job.windows) or [(0, NO_LIMIT_S)]
    until = max(job.due_s, LATE_ROOM_S)
    cut = [(begin, min(end, until)) for begin, end in opened if begin < until]
    return cut or opened
