"""Plays `cli.week.plan.RATES`: what breaks, what is cut off, who calls for help."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from cli.week.agenda import Agenda
from cli.week.geography import straight_metres
from cli.week.hardware import Hardware
from cli.week.plan import RATES, Rate, WeekPlan
from firmware_sim.demand import DAY_MS, local_hour
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.randomness import Randomness

BUILDING_METRES: Final = 200.0
"""Devices of such a neighbourhood share a transformer."""
_CALL: Final = "press"
_BY_DAY: Final = (7, 22)
"""Local hours in which people press; buildings are empty at night."""
_MISTAKE_CLEARED: Final = 0.5
_POWER: Final = {"nursing_room": ("cut_mains", "restore_mains"), "meal_machine": ("power_off", "power_on")}


class Faults:
    """Counts by name in `counts`; `on_defect(device id)`: a rider reports a bike; `on_press(device id, mistake)`."""

    def __init__(
        self,
        plan: WeekPlan,
        hardware: Hardware,
        agenda: Agenda,
        now_ms: Callable[[], int],
        randomness: Callable[..., Randomness],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.on_defect: Callable[[str], None] = lambda _device_id: None
        self.on_press: Callable[[str, bool], None] = lambda _device_id, _mistake: None
        self._plan, self._hardware, self._agenda = plan, hardware, agenda
        self._now_ms = now_ms
        self._lasting: set[tuple[str, str]] = set()
        for rate in RATES:
            able = [one for one, unit in hardware.units.items() if rate.kind in ("", unit.kind)]
            if able:
                self._next(rate, able, randomness("fault", rate.name))

    def _next(self, rate: Rate, able: list[str], draw: Randomness) -> None:
        per_day = self._plan.fault_factor * (1 if rate.of_fleet else len(able)) / rate.days_between
        at_ms = self._now_ms() + max(1, round(draw.expovariate(per_day) * DAY_MS))
        self._agenda.at(at_ms, partial(self._happen, rate, able, draw))

    def _happen(self, rate: Rate, able: list[str], draw: Randomness) -> None:
        self._next(rate, able, draw)
        device_id = able[draw.randint(0, len(able) - 1)]
        over_s = draw.uniform(*rate.over_after_s)
        chance = draw.random()
        if rate.act == _CALL and not _BY_DAY[0] <= local_hour(self._now_ms()) < _BY_DAY[1]:
            return
        if (device_id, rate.name) in self._lasting:
            return
        self.counts[rate.name] += 1
        if rate.act == "link":
            for one in able if rate.of_fleet else [device_id]:
                self._hardware.lose_link(one, over_s)
        elif rate.act == "power":
            self._cut_building(device_id, over_s)
        elif rate.act == "defect":
            self.on_defect(device_id)
        else:
            self._break(rate, device_id, over_s, chance)

    def _break(self, rate: Rate, device_id: str, over_s: float, chance: float) -> None:
        self._hardware.act(device_id, rate.act, **rate.arguments)
        if rate.act == _CALL:
            self.on_press(device_id, rate.over_by is not None)
            if chance > _MISTAKE_CLEARED:
                return
        if rate.over_by is not None:
            self._lasting.add((device_id, rate.name))
            self._later(over_s, partial(self._over, rate, device_id))

    def _over(self, rate: Rate, device_id: str) -> None:
        self._lasting.discard((device_id, rate.name))
        assert rate.over_by is not None
        self._hardware.act(device_id, rate.over_by)

    def _cut_building(self, device_id: str, for_s: float) -> None:
        """Everything with a plug near there, at once."""
        site = self._hardware.world.site(device_id)
        for other, unit in self._hardware.units.items():
            near = self._hardware.world.site(other)
            metres = straight_metres((site.latitude, site.longitude), (near.latitude, near.longitude))
            if unit.kind in _POWER and metres <= BUILDING_METRES:
                cut, restore = _POWER[unit.kind]
                self._hardware.act(other, cut)
                self._later(for_s, partial(self._hardware.act, other, restore))

    def _later(self, after_s: float, act: Callable[[], None]) -> None:
        self._agenda.at(self._now_ms() + round(after_s * MILLISECONDS_PER_SECOND), act)
