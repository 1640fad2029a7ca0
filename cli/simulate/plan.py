"""What one run is like: how many devices, how long, how rough, and with which rhythms."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from edge.records import Bounds
from edge.timing import Timing
from firmware_sim.scenario import Happening, Scenario, scenario_named
from fleet.envelope import Lane

HOUR_S: Final = 3_600.0
DAY_S: Final = 24 * HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Times in virtual seconds. `fault_every_s` 0: nothing breaks.

    `adversarial`: threads, disks and the network take seeded times, so that everything may come in between.
    """

    counts: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType({"bike": 4, "meal_machine": 2, "nursing_room": 6})
    )
    duration_s: float = 1_200.0
    fault_every_s: float = 20.0
    press_every_s: float = 30.0
    command_every_s: float = 8.0
    devices_per_box: int = 3
    adversarial: bool = True
    bounds: Bounds = field(default_factory=lambda: Bounds(rows_max=3))
    timing: Timing = field(default_factory=Timing)
    first_connect_within_s: float = 3.0
    linger_s: float = 0.05
    twin_flush_s: float = 1.0
    batch_messages_max: int = 2_000
    poll_s: float = 10.0
    world_pause_s: float = 0.005
    """Between turns of the hardware; what is due closer together happens in one turn, at its own time stamps."""
    backstop_s: float = 5.0
    """Between looks that nothing has asked for; see `taps.rhythms`."""
    telemetry_commit_s: float = 0.1
    lease_renewal_s: float = 4.0
    drain_interval_s: float = 2.0
    segment_bytes_max: int = 256 << 10
    settle_s_max: float = 1_200.0
    """After the last fault everything must have arrived within this."""
    scenario: str = "demo"

    def scenario_of(self) -> Scenario:
        """The named scenario with more presses."""
        base = scenario_named(self.scenario)
        presses = Happening(action="press", every_s=self.press_every_s, first_s=20.0)
        return replace(base, happenings=(*base.happenings, presses) if self.press_every_s else base.happenings)


STORM: Final = Plan()
SQUALL: Final = replace(STORM, duration_s=240.0, fault_every_s=8.0, press_every_s=12.0, settle_s_max=700.0)
DAY: Final = Plan(
    counts=MappingProxyType({"bike": 180, "meal_machine": 20, "nursing_room": 190}),
    duration_s=DAY_S,
    fault_every_s=0.0,
    press_every_s=600.0,
    command_every_s=60.0,
    devices_per_box=390,
    adversarial=False,
    bounds=Bounds(),
    first_connect_within_s=15.0,
    linger_s=20.0,
    twin_flush_s=60.0,
    world_pause_s=2.0,
    backstop_s=20.0,
    timing=Timing(resend_first_s=MappingProxyType({Lane.EMERGENCY: 1.0, Lane.EVENT: 5.0, Lane.TELEMETRY: 120.0})),
    telemetry_commit_s=10.0,
    drain_interval_s=60.0,
    poll_s=60.0,
    lease_renewal_s=60.0,
    segment_bytes_max=64 << 20,
    scenario="virtual",
)
_PLANS: Final = {"storm": STORM, "squall": SQUALL, "day": DAY}


def plan_named(name: str) -> Plan:
    """`storm`: few devices, many faults; `squall`: shorter, denser; `day`: the whole fleet. Raises ValueError."""
    if name not in _PLANS:
        raise ValueError(f"unknown profile {name!r}; known: {', '.join(_PLANS)}")
    return _PLANS[name]
