"""What a plan is made of: jobs, crews, routes; pure. Times are seconds from the moment the plan begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cloud.geography import Point

CAPACITIES: Final = ("boxes", "batteries", "bikes")
"""What a van has room for, in this order wherever amounts stand side by side."""
Amounts = tuple[int, int, int]
NOTHING: Final[Amounts] = (0, 0, 0)
NO_LIMIT_S: Final = 10**7


class Act(StrEnum):
    """What is done at a stop."""

    VISIT = "visit"
    PICKUP = "pickup"
    DELIVERY = "delivery"


class Why(StrEnum):
    """Why a job stands in no route."""

    NO_PLACE = "no_place"  # nobody knows where the device is
    NO_SKILL = "no_skill"  # nobody in the plan can do it
    TOO_BIG = "too_big"  # more than the largest van takes
    CLOSED = "closed"  # nobody can be there while the place is open
    CREWS_FULL = "crews_full"  # time or room is taken by what is more pressing


@dataclass(frozen=True, slots=True)
class Job:
    """One order. `to` makes it two stops: pick up here, deliver there, by the same crew.

    `windows`: when the place is open, hard. `due_s`: by when somebody should be there, soft: late is better than never.
    `loads`: what is taken along from the base and left there. `carries`: what is moved from here to `to`.
    """

    id: str
    at: Point
    skill: str
    service_s: int
    urgency: int
    """0 to 100, more is more urgent."""
    due_s: int = NO_LIMIT_S
    windows: tuple[tuple[int, int], ...] = ()
    loads: Amounts = NOTHING
    carries: Amounts = NOTHING
    to: Point | None = None
    unload_s: int = 0

    @property
    def stops(self) -> tuple[Act, ...]:
        """What is to be done, in order."""
        return (Act.VISIT,) if self.to is None else (Act.PICKUP, Act.DELIVERY)

    def place(self, act: Act) -> Point:
        """Where it is done."""
        return self.to if act is Act.DELIVERY and self.to is not None else self.at

    def takes_s(self, act: Act) -> int:
        """How long it takes there."""
        return self.unload_s if act is Act.DELIVERY else self.service_s


@dataclass(frozen=True, slots=True)
class Crew:
    """One person with a van. `committed`: ids of jobs they accepted, in their order; these stay theirs, in that order.

    `on_board`: jobs of `committed` whose load was picked up already: only the delivery is left.
    """

    id: str
    start: Point
    end: Point | None
    skills: frozenset[str]
    from_s: int
    until_s: int
    capacity: Amounts
    committed: tuple[str, ...] = ()
    under_way: int = 0
    """So many of the first committed jobs are travelled to or worked on: nothing comes before them."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of a route. `arrives_s` is when work can begin: waiting for the place to open is over then."""

    job_id: str
    act: Act
    arrives_s: int
    leaves_s: int
    late: bool


@dataclass(frozen=True, slots=True)
class Route:
    """What one crew does, in order; `ends_s` is when they are back."""

    crew_id: str
    stops: tuple[Stop, ...]
    travel_s: int
    distance_m: int
    ends_s: int


@dataclass(frozen=True, slots=True)
class Problem:
    """All open work and everybody who may do it."""

    jobs: Sequence[Job]
    crews: Sequence[Crew]
    previous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The plan before, as job ids by crew, in order: what changes is counted against it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The routes, and for every job in none of them why."""

    routes: tuple[Route, ...]
    unassigned: Mapping[str, Why]
    solver: str
    solve_ms: int = 0

    def jobs_of(self, crew_id: str) -> tuple[str, ...]:
        """Ids in the order in which they are begun."""
        for route in self.routes:
            if route.crew_id == crew_id:
                return tuple(dict.fromkeys(stop.job_id for stop in route.stops))
        return ()

    def sequences(self) -> dict[str, tuple[str, ...]]:
        """`jobs_of` for everybody with a route."""
        return {route.crew_id: self.jobs_of(route.crew_id) for route in self.routes}
