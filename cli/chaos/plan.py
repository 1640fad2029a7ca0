"""The seeded schedule: who is killed where, and which weather there is beside it. Pure.

The seed fixes the world, the faults and their order; with real processes it can't fix the interleaving.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fleet.milestones import MILESTONES

BROKER: Final = "broker"
DATABASE: Final = "database"
"""As the point of a broker kill: its persistence database is deleted before it starts again."""
RESERVE: Final = "edge.reserve.after_write"
"""Only reached while the journal takes nothing: whoever arms it sees to that."""
RARE: Final = frozenset({RESERVE})
"""Passed so seldom that the first passage counts."""
RANDOM_SHARE: Final = 0.5
BROKER_SHARE: Final = 0.25
PASSAGE_MAX: Final = 3
PAUSE_S: Final = (0.1, 1.0)
CLOUD_PAUSE_S: Final = (1.0, 3.0)
"""A cloud that dies as soon as it lives serves nobody, and a run of it would show one long outage."""
BROKER_PAUSE_S: Final = (5.0, 15.0)
"""Longer, so that the devices come back in between."""
_PAUSES_S: Final = {BROKER: BROKER_PAUSE_S, "edge": PAUSE_S}

WEATHERS: Final = (
    "cut", "cut_cloud", "delay", "resets", "freeze", "flap", "messages", "disk_edge", "disk_cloud", "clock_edge",
    "clock_cloud", "series",
)  # fmt: skip
SPELL_PAUSE_S: Final = (2.0, 8.0)
SPELL_S: Final = (1.0, 4.0)
CLOCK_JUMPS_S: Final = (-3_600, 3_600, -6 * 3_600, 6 * 3_600, -10 * 365 * 86_400, 10 * 365 * 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is measured. `victims` (victim, point) replace the plan's kills in turn; `p99_ms_max` is promised."""

    victims: tuple[tuple[str, str], ...] = ()
    pause_s: tuple[float, float] = (5.0, 15.0)
    bad_link: bool = False
    weathers: tuple[str, ...] = ()
    kills: int = 0
    """Unless asked for otherwise."""
    p99_ms_max: float | None = None


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({
    "everything": Scenario(weathers=WEATHERS, kills=34),
    "calm": Scenario(p99_ms_max=250.0),
    "bad-link": Scenario(bad_link=True, p99_ms_max=3_000.0),
    "broker-kill": Scenario(victims=((BROKER, ""),), kills=6, pause_s=(15.0, 25.0), p99_ms_max=5_000.0),
    "broker-database": Scenario(victims=((BROKER, DATABASE),), kills=10, pause_s=(2.0, 5.0)),
    "series": Scenario(weathers=("series",)),
})  # fmt: skip
"""`bad-link`: devices at 200 ms there and back, 20 % of their connections reset within 30 s."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL of `edge`, `cloud`, `ingest`, `dispatch` or `broker`; `point` is empty at a random moment."""

    victim: str
    point: str
    passage: int
    pause_s: float
    """Real seconds before it, after the last victim of the same lane is up again."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A fault that lasts, and a value it needs (seconds of a clock jump, number of a status …)."""

    name: str
    pause_s: float
    lasts_s: float
    value: float = 0.0


def lanes(kills: Sequence[Kill]) -> dict[str, list[Kill]]:
    """Kills that are carried out one after another; lanes run beside each other."""
    found: dict[str, list[Kill]] = {}
    for kill in kills:
        found.setdefault(kill.victim, []).append(kill)
    return found


def victim_of(point: str, *, roles: bool) -> str:
    """Which process passes a milestone."""
    first = point.partition(".")[0]
    if first == "edge":
        return "edge"
    if not roles:
        return "cloud"
    return "dispatch" if first in {"dispatch", "history"} else "ingest"


def plan_kills(seed: int, kills: int, *, roles: bool = False, points: Sequence[str] = ()) -> list[Kill]:
    """`kills` kills: every point once as far as they reach, then points, random moments and the broker."""
    rng = random.Random(f"{seed}:kills")
    names = list(points or MILESTONES)
    rng.shuffle(names)
    brokers = max(1, round(kills * BROKER_SHARE * 0.6)) if kills > 3 else 0
    chosen = [(victim_of(name, roles=roles), name) for name in names[: max(0, kills - brokers)]]
    chosen += [(BROKER, DATABASE if number % 2 else "") for number in range(brokers)]
    processes = ("edge", "ingest", "dispatch") if roles else ("edge", "cloud")
    while len(chosen) < kills:
        if rng.random() < BROKER_SHARE:
            chosen.append((BROKER, rng.choice(("", DATABASE))))
        elif rng.random() < RANDOM_SHARE:
            chosen.append((rng.choice(processes), ""))
        else:
            name = rng.choice(names)
            chosen.append((victim_of(name, roles=roles), name))
    rng.shuffle(chosen)
    return [
        Kill(
            victim,
            point,
            1 if point in RARE else rng.randint(1, PASSAGE_MAX),
            rng.uniform(*_PAUSES_S.get(victim, CLOUD_PAUSE_S)),
        )
        for victim, point in chosen
    ]


def kills_of(scenario: Scenario, seed: int, kills: int) -> list[Kill]:
    """The kills of a scenario that names its own victims."""
    rng = random.Random(f"{seed}:kills")
    chosen = [scenario.victims[number % len(scenario.victims)] for number in range(kills)]
    return [Kill(victim, point, 1, rng.uniform(*scenario.pause_s)) for victim, point in chosen]


def plan_spells(seed: int, names: Sequence[str], count: int) -> list[Spell]:
    """`count` spells, each of `names` in turn in a shuffled order."""
    rng = random.Random(f"{seed}:spells")
    spells: list[Spell] = []
    while names and len(spells) < count:
        round_of = list(names)
        rng.shuffle(round_of)
        spells += [
            Spell(name, rng.uniform(*SPELL_PAUSE_S), rng.uniform(*SPELL_S), _value(name, rng)) for name in round_of
        ]
    return spells[:count]


def _value(name: str, rng: random.Random) -> float:
    if name.startswith("clock"):
        return float(rng.choice(CLOCK_JUMPS_S))
    if name == "series":
        return float(rng.choice((0, 400, 401, 503)))  # 0: down
    return rng.random()
