"""What a normal week is: how many devices, how many people, and how often what goes wrong.

`RATES` is the one table of faults; docs/week.md shows the same rows (a test compares them).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cli.simulate.clocks import STARTED_MS
from firmware_sim.demand import DAY_MS
from firmware_sim.scenario import Range

MONDAY_MS: Final = STARTED_MS + 3 * DAY_MS
MINUTE_S: Final = 60.0
HOUR_S: Final = 3_600.0

Policy = Literal["planned", "rounds"]
"""`planned`: the product's orders and plan move the crew. `rounds`: fixed rounds, and detours for what can't wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One kind of trouble.

    `days_between`: mean days between two of them on one device (of the whole fleet if `of_fleet`).
    `act` and `arguments`: what the simulator is told; `link` for a lost connection, `power` for a building's mains.
    `over_by`, `over_after_s`: the action that ends it by itself, and when; without it people must come or call.
    """

    name: str
    kind: str
    days_between: float
    act: str
    reason: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    over_by: str | None = None
    over_after_s: Range = (0.0, 0.0)
    of_fleet: bool = False


RATES: Final = (
    Rate(name="room: short loss of the link", kind="nursing_room", days_between=3, act="link",
         over_after_s=(3.0, 35.0), reason="router restarts, Wi-Fi roaming: two or three a week per box"),
    Rate(name="room: long loss of the link", kind="nursing_room", days_between=60, act="link",
         over_after_s=(2 * MINUTE_S, 40 * MINUTE_S), reason="a provider's or a switch's outage every two months"),
    Rate(name="machine: short loss of the link", kind="meal_machine", days_between=3, act="link",
         over_after_s=(3.0, 60.0), reason="as rooms"),
    Rate(name="machine: long loss of the link", kind="meal_machine", days_between=60, act="link",
         over_after_s=(2 * MINUTE_S, 40 * MINUTE_S), reason="as rooms"),
    Rate(name="bike: short loss of the link", kind="bike", days_between=1, act="link",
         over_after_s=(10.0, 10 * MINUTE_S), reason="it passes a tunnel, or the cell hands over badly: once a day"),
    Rate(name="bike: parked where there is no radio", kind="bike", days_between=40, act="link",
         over_after_s=(30 * MINUTE_S, 3 * HOUR_S), reason="a garage; four or five of 180 a day"),
    Rate(name="everybody reconnects", kind="", days_between=7, act="link", over_after_s=(20.0, 60.0), of_fleet=True,
         reason="once a week the broker is upgraded, or the site's uplink fails"),
    Rate(name="power cut of one building", kind="", days_between=7, act="power",
         over_after_s=(15 * MINUTE_S, 2 * HOUR_S), of_fleet=True, reason="once a week somewhere in the zone"),
    Rate(name="room: plug pulled or fuse", kind="nursing_room", days_between=400, act="cut_mains",
         reason="cleaners; every second day one of 190 rooms"),
    Rate(name="room: brown-out", kind="nursing_room", days_between=60, act="brown_out",
         reason="the controller restarts by itself"),
    Rate(name="room: button or its wire broken", kind="nursing_room", days_between=400, act="break_button",
         reason="about one in two days in 190 rooms, as nurse-call services report"),
    Rate(name="room: cord torn off", kind="nursing_room", days_between=300, act="remove_cord",
         reason="children and cleaners"),
    Rate(name="room: button battery low", kind="nursing_room", days_between=500, act="drain_button_battery",
         arguments={"percent": 18.0}, reason="a cell lasts 700 days, some fail early: two or three a week"),
    Rate(name="room: fridge left open", kind="nursing_room", days_between=30, act="open_fridge_door",
         over_by="close_fridge_door", over_after_s=(10 * MINUTE_S, 2 * HOUR_S),
         reason="six a day of 900 visits, until the next visitor closes it"),
    Rate(name="room: sterilizer opened in mid-cycle", kind="nursing_room", days_between=60, act="open_sterilizer",
         over_by="close_sterilizer", over_after_s=(2 * MINUTE_S, 30 * MINUTE_S), reason="impatience; three a day"),
    Rate(name="room: call for help", kind="nursing_room", days_between=600, act="press",
         reason="one in three days: a faint, a fall, a choking child"),
    Rate(name="room: call by mistake", kind="nursing_room", days_between=150, act="press",
         over_by="clear", over_after_s=(30.0, 6 * MINUTE_S), reason="taken for the light switch, children at the cord;"
         " half of them are cleared by whoever pressed" ),
    Rate(name="machine: thermometer dead", kind="meal_machine", days_between=500, act="break_probe",
         reason="one in 25 days in 20 machines"),
    Rate(name="machine: warm after a long restock", kind="meal_machine", days_between=100, act="warm_up",
         arguments={"celsius": 9.6}, reason="a door that was held open too long; once or twice a week"),
    Rate(name="machine: heater broken", kind="meal_machine", days_between=250, act="break_heater",
         reason="one in twelve days in 20 machines"),
    Rate(name="bike: falls over", kind="bike", days_between=60, act="fall",
         reason="wind, passers-by; three a day, most put up by the next passer-by within three hours"),
    Rate(name="bike: carried away while locked", kind="bike", days_between=400, act="move",
         arguments={"metres": 150.0}, reason="three a week, most of them cleaners who clear a door"),
    Rate(name="bike: tampering", kind="bike", days_between=500, act="tamper", reason="two or three a week"),
    Rate(name="bike: puncture or another defect that a rider reports", kind="bike", days_between=180, act="defect",
         reason="one a day of 180 bikes and 700 rides"),
    Rate(name="bike: lock blocked", kind="bike", days_between=400, act="jam", reason="dirt, a spoke: three a week"),
    Rate(name="bike: no sky", kind="bike", days_between=90, act="lose_fix", over_by="find_fix",
         over_after_s=(30 * MINUTE_S, 8 * HOUR_S), reason="parked in a lobby; two a day, until the next rider"),
)  # fmt: skip

FACTS: Final[Mapping[str, Any]] = {
    "presses_per_day": 0.0,  # presses and mishaps come from `RATES` alone
    "mishap_factor": 0.0,
    "crew_travel_s": (1e9, 1e9),  # whoever accepted drives there (`cli.week.crew`); the room does not make a helper up
    "falls_per_day": 0.0,
    "thefts_per_day": 0.0,
    "jam_probability": 0.0002,
    "forgets_to_lock_probability": 0.003,
    "line_fault_probability": 0.0,
    "faults": {
        "jam_per_sale": 0.0008, "missed_drop_per_sale": 0.0002, "heater_fault_per_sale": 0.0,
        "box_forgotten_per_sale": 0.003, "door_left_open_per_visit": 0.02, "brown_outs_per_hour": 0.001,
        "crc_error_per_frame": 0.0, "dropped_byte_per_frame": 0.0,
    },
    "reading_interval_s": 150.0,
    "tick_s": 60.0,
}  # fmt: skip
"""Laid over the facts of every site. Rooms and machines step by 150 s instead of 15 and 30 s; what happens at once
(a press, a cut, a sale) is still said at once, and heartbeats in between are counted without being played."""

PEAK_MEALS_PER_HOUR: Final = 9.0
"""At noon, per machine; 41 on a workday of the 80 it holds."""
DEPOT: Final = (38.8640, 121.5235)
"""Workshop and kitchen, in the middle of the zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeekPlan:
    """One run. `crew`: (early, late, night) members on a workday; on weekends half of them."""

    seed: int = 1
    days: float = 7.0
    counts: Mapping[str, int] = field(default_factory=lambda: {"bike": 180, "meal_machine": 20, "nursing_room": 190})
    policy: Policy = "planned"
    crew: tuple[int, int, int] = (4, 3, 1)
    without_on_delays: bool = False
    """Plants noise: every alarm of the kinds' tables sounds at the first bad reading."""
    fault_factor: float = 1.0
    """Scales `RATES`: short runs of few devices want to see something."""

    @property
    def until_ms(self) -> int:
        """When it ends, business ms."""
        return MONDAY_MS + round(self.days * DAY_MS)
