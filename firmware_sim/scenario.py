"""What the world does besides living: who breaks what, who presses, who comes to refill.

A scenario speaks of actions and of values in a snapshot, never of kinds: it concerns every kind whose
simulator knows the action, so a new kind takes part without a change here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from firmware_sim.demand import DAY_MS, HOUR_MS, local_hour, local_weekday
from firmware_sim.line import CLEAN, FaultRates

Range = tuple[float, float]
"""Least and greatest number of business seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An action on a random device, again and again, at random times around every `every_s` seconds.

    `remedy` undoes it on the same device after a time drawn from `remedy_after_s`. A device on which
    something of the same name is still to be remedied is left alone.
    """

    action: str
    every_s: float
    first_s: float
    remedy: str | None = None
    remedy_after_s: Range = (300.0, 600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Somebody comes and does `action` some time after a device is seen to want it.

    Devices are looked at every `look_every_s`; `wanted` judges the value of `snapshot_key`. The site fact
    `<action>_travel_s` overrides `travel_s`. For `settles_s` after it came nobody is sent again: a visit takes time.
    """

    action: str
    snapshot_key: str
    wanted: Callable[[Any], bool]
    travel_s: Range
    look_every_s: float = 60.0
    settles_s: float = 1_200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A named way the world goes. `facts` are laid over the facts of every site.

    `peaks_per_hour`: demand at the busiest hour per device, by the name of a curve in `firmware_sim.demand`;
    what people want from the product (rides, meals) is asked for through the product, by whoever runs the demo.
    """

    name: str
    description: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    line_faults: FaultRates = CLEAN
    happenings: tuple[Happening, ...] = ()
    errands: tuple[Errand, ...] = ()
    peaks_per_hour: Mapping[str, float] = field(default_factory=dict)
    starts_at_hour: float | None = None
    """Local hour of a workday at which a world of this scenario should begin; None: any time will do."""

    def started_ms(self, now_ms: int) -> int:
        """The latest moment not after `now_ms` at which this scenario may begin."""
        if self.starts_at_hour is None:
            return now_ms
        start = now_ms - round((local_hour(now_ms) - self.starts_at_hour) % 24 * HOUR_MS)
        while local_weekday(start) >= 5:
            start -= DAY_MS
        return start


_REFILL: Final = (
    Errand(action="restock", snapshot_key="stock_count", wanted=lambda count: count <= 20, travel_s=(900.0, 2_400.0)),
    Errand(
        action="swap_battery",
        snapshot_key="battery_percent",
        wanted=lambda percent: percent < 15,
        travel_s=(3_600.0, 10_800.0),
    ),
    Errand(action="repair", snapshot_key="heater_fault", wanted=bool, travel_s=(1_800.0, 7_200.0)),
    Errand(
        action="replace_lamp",
        snapshot_key="lamp_hours",
        wanted=lambda hours: hours > 7_500,
        travel_s=(86_400.0, 259_200.0),
        look_every_s=3_600.0,
    ),
)
_REALISTIC_LINE: Final = FaultRates(dropped_per_million=5.0, corrupted_per_million=15.0)


QUIET: Final = Scenario(
    name="quiet",
    description="Nobody presses, nothing breaks, the lines are clean.",
    facts={
        "presses_per_day": 0.0,
        "mishap_factor": 0.0,
        "falls_per_day": 0.0,
        "thefts_per_day": 0.0,
        "jam_probability": 0.0,
        "line_fault_probability": 0.0,
        "forgets_to_lock_probability": 0.0,
    },
)

DEMO: Final = Scenario(
    name="demo",
    description="A busy noon: a press every few minutes, something breaks within a few minutes, refills come fast.",
    facts={
        "crew_travel_s": (45.0, 120.0),
        "at_scene_s": (10.0, 30.0),
        "restock_travel_s": (180.0, 420.0),
        "demand_factor": 3.0,
    },
    line_faults=FaultRates(dropped_per_million=20.0, corrupted_per_million=60.0),
    happenings=(
        Happening(action="press", every_s=120.0, first_s=150.0),
        Happening(action="open_fridge_door", every_s=600.0, first_s=60.0, remedy="close_fridge_door",
                  remedy_after_s=(840.0, 1_200.0)),
        Happening(action="break_button", every_s=900.0, first_s=120.0, remedy="repair_button"),
        Happening(action="remove_cord", every_s=1_200.0, first_s=300.0, remedy="replace_cord"),
        Happening(action="cut_mains", every_s=1_500.0, first_s=420.0, remedy="restore_mains"),
        Happening(action="brown_out", every_s=400.0, first_s=150.0),
        Happening(action="jam", every_s=900.0, first_s=240.0, remedy="clear_jam"),
        Happening(action="jam", every_s=1_200.0, first_s=360.0, remedy="repair"),
        Happening(action="break_heater", every_s=1_800.0, first_s=540.0, remedy="repair"),
        Happening(action="fall", every_s=400.0, first_s=90.0, remedy="raise"),
        Happening(action="tamper", every_s=1_200.0, first_s=200.0),
        Happening(action="move", every_s=1_500.0, first_s=450.0),
    ),
    errands=_REFILL,
    peaks_per_hour={"rides": 1.5, "meals": 12.0},
    starts_at_hour=11.75,
)  # fmt: skip

VIRTUAL: Final = Scenario(
    name="virtual",
    description="An ordinary day with its ordinary troubles, meant for virtual time.",
    line_faults=_REALISTIC_LINE,
    errands=_REFILL,
    peaks_per_hour={"rides": 1.0, "meals": 8.0},
    starts_at_hour=0.0,
)

SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in (QUIET, DEMO, VIRTUAL)}


def scenario_named(name: str) -> Scenario:
    """One scenario; raises ValueError that names those there are."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise ValueError(f"unknown scenario {name!r}; known: {', '.join(sorted(SCENARIOS))}") from None
