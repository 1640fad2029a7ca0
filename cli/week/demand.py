"""Who rides and who eats: wishes over the day, met by what the product offers at that moment."""

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import devices
from cli.week.agenda import Agenda
from cli.week.cloud import WeekCloud
from cli.week.geography import Point, straight_metres
from cli.week.hardware import Hardware
from cli.week.plan import PEAK_MEALS_PER_HOUR
from firmware_sim.demand import HOUR_MS, MEALS, local_hour, local_weekday
from fleet.randomness import Randomness

WALK_METRES_MAX: Final = 300.0
"""So far a rider walks to a bike."""
WEEKEND_RIDES: Final = 0.35
_SATURDAY: Final = 5
TRIES_MAX: Final = 3


class Demand:
    """Counts what was wanted and what people got, in `counts`."""

    def __init__(
        self,
        hardware: Hardware,
        cloud: WeekCloud,
        agenda: Agenda,
        now_ms: Callable[[], int],
        randomness: Callable[..., Randomness],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._hardware, self._cloud, self._agenda = hardware, cloud, agenda
        self._now_ms = now_ms
        self._riders = randomness("riders")
        self._eaters: dict[str, Randomness] = {}
        self._rentable = devices.role("bike", "rules").rentable
        self._unlock: Any = devices.kind_named("bike").command_type("unlock")
        self._dispense: Any = devices.kind_named("meal_machine").command_type("dispense")
        self._purchases = 0
        self._stands: list[tuple[Point, tuple[float, ...], int]] = _stands(hardware)
        self._bikes = [one for one, unit in hardware.units.items() if unit.kind == "bike"]
        for stand in range(len(self._stands)):
            self._agenda.at(self._now_ms(), partial(self._next_hour, stand))
        for device_id, unit in hardware.units.items():
            if unit.kind == "meal_machine":
                self._eaters[device_id] = randomness("eaters", device_id)
                self._next_meal(device_id)

    # --- bikes -------------------------------------------------------------------------------------------------

    def _next_hour(self, stand: int) -> None:
        """Wishes to ride from here within the hour that begins."""
        now_ms = self._now_ms()
        _, per_bike_hour, bikes = self._stands[stand]
        weekend = WEEKEND_RIDES if local_weekday(now_ms) >= _SATURDAY else 1.0
        rate = per_bike_hour[int(local_hour(now_ms))] * bikes * weekend
        at = 0.0
        while rate > 0 and (at := at + self._riders.expovariate(rate)) < 1.0:
            self._agenda.at(now_ms + round(at * HOUR_MS), partial(self._ride, stand))
        self._agenda.at(now_ms + HOUR_MS, partial(self._next_hour, stand))

    def _ride(self, stand: int) -> None:
        self.counts["rides_wanted"] += 1
        here = self._stands[stand][0]
        near = []
        for device_id in self._bikes:
            lane = self._cloud.lanes[device_id]
            reading = lane.state.reading
            if reading is None or not lane.online or not self._rentable(lane.state):
                continue
            metres = straight_metres(here, (reading.latitude, reading.longitude))
            if metres <= WALK_METRES_MAX:
                near.append((metres, device_id))
        self.counts["rides_found" if near else "rides_missed"] += 1
        if near:
            self._hardware.command(min(near)[1], self._unlock())

    # --- meals -------------------------------------------------------------------------------------------------

    def _next_meal(self, device_id: str) -> None:
        at_ms = MEALS.next_ms(self._now_ms(), PEAK_MEALS_PER_HOUR, self._eaters[device_id])
        self._agenda.at(at_ms, partial(self._eat, device_id))

    def _eat(self, device_id: str) -> None:
        self._next_meal(device_id)
        self.counts["meals_wanted"] += 1
        self._buy(device_id, 1)

    def _buy(self, device_id: str, tries: int) -> None:
        """Somebody takes one of the meals that are shown; with a queue at the machine, again a minute later."""
        draw = self._eaters[device_id]
        reading = self._cloud.lanes[device_id].state.reading
        offered = _offered(reading, self._now_ms()) if reading is not None else []
        if not offered:
            self.counts["meals_missed"] += 1
            return
        if reading.heating_queue_count >= 2:
            if tries < TRIES_MAX:
                self._agenda.at(self._now_ms() + draw.randint(45_000, 90_000), partial(self._buy, device_id, tries + 1))
            else:
                self.counts["meals_missed_queue"] += 1
            return
        self._purchases += 1
        sku = offered[draw.randint(0, len(offered) - 1)]
        self.counts["meals_bought"] += 1
        self._hardware.command(device_id, self._dispense(purchase_id=f"{self._purchases:032x}", sku=sku))


def _offered(reading: Any, now_ms: int) -> list[str]:
    if reading.locked_out or reading.heater_fault or not reading.mains_power:
        return []
    return sorted(
        {
            slot.sku
            for slot in reading.slots
            if slot.status == "ready" and any(lot.count and lot.expires_at > now_ms for lot in slot.lots)
        }
    )


def _stands(hardware: Hardware) -> list[tuple[Point, tuple[float, ...], int]]:
    """(where, wishes per bike and hour, bikes that began there) of each place with bikes."""
    by_name: defaultdict[str, list[Any]] = defaultdict(list)
    for device_id, unit in hardware.units.items():
        if unit.kind == "bike":
            site = hardware.world.site(device_id)
            by_name[site.name].append(site)
    found = []
    for sites in by_name.values():
        where = (sum(site.latitude for site in sites) / len(sites), sum(site.longitude for site in sites) / len(sites))
        found.append((where, tuple(sites[0].facts["demand_per_hour"]), len(sites)))
    return found
