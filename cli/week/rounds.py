"""The way it is done without the product's plan: fixed rounds, and a detour for what can't wait.

- Machines: every one each weekday at 10:00, filled to capacity, by two vans (each half of one short tour).
- Rooms: a fifth of one short tour through all of them each weekday at 9:00, so that every button is tested weekly.
- Bikes: every stand once a day at 7:00 (8:00 on weekends), in one short tour; packs below 30 % are swapped.
- Whatever has an order of its own and is no part of a round (repairs, inspections) is driven to directly, by whom the
  product gave it to, between two stops.

The tours are good ones (nearest neighbour, 2-opt), the vans, loads and hands the same as under the plan.
"""

from functools import partial
from typing import Any, Final

from cli.week.agenda import Agenda
from cli.week.crew import Crew, Member
from cli.week.geography import Point, straight_metres, tour
from cli.week.handling import work_of
from cli.week.hardware import Hardware
from cli.week.ledger import Ledger
from cli.week.plan import DEPOT, MONDAY_MS, WeekPlan
from cli.week.van import BOXES_MAX, LOADING_S
from firmware_sim.demand import DAY_MS, HOUR_MS

OF_ROUNDS: Final = frozenset(
    {"restock", "battery_swap", "button_battery", "uv_lamp", "proof_test", "rebalance", "test_overdue"}
)
"""Keys of orders that wait for the next round."""
_PACK_PERCENT_MIN: Final = 30.0
_BUTTON_PERCENT_MIN: Final = 25
_LAMP_HOURS_MAX: Final = 7_500.0
_WORKDAYS: Final = 5
_STAND_METRES: Final = 150.0
_MACHINE_BOXES: Final = 40
"""So many must be in the van for the next machine, or it is loaded first."""
_LOOK_S: Final = 60.0


class Rounds:
    """Puts itself in the place of `Crew.next_job`."""

    def __init__(
        self, plan: WeekPlan, crew: Crew, ledger: Ledger, hardware: Hardware, agenda: Agenda, now_ms: Any
    ) -> None:
        self._crew, self._ledger, self._hardware, self._agenda, self._now_ms = crew, ledger, hardware, agenda, now_ms
        self._waiting: dict[str, list[tuple[str, str, Point]]] = {}
        crew.on_free = self.next_job
        machines, rooms = self._tour("meal_machine"), self._tour("nursing_room")
        stands = self._stands()
        half = (len(machines) + 1) // 2
        fifth = -(-len(rooms) // _WORKDAYS)
        for day in range(round(plan.days + 0.499)):
            workday = day % 7 < _WORKDAYS
            at_ms = MONDAY_MS + day * DAY_MS
            first, second = "crew-e1", "crew-e2" if workday and plan.crew[0] > 1 else "crew-e1"
            third = f"crew-e{min(3, plan.crew[0])}" if workday else "crew-e1"
            self._send(at_ms + (7 if workday else 8) * HOUR_MS, f"crew-e{plan.crew[0]}" if workday else first, stands)
            if workday:
                self._send(at_ms + 10 * HOUR_MS, first, machines[:half])
                self._send(at_ms + 10 * HOUR_MS, second, machines[half:])
                self._send(at_ms + 9 * HOUR_MS, third, rooms[day % 7 * fifth : (day % 7 + 1) * fifth])

    def _tour(self, kind: str) -> list[tuple[str, str, Point]]:
        ids = [one for one, unit in self._hardware.units.items() if unit.kind == kind]
        points = [self._ledger.place_of(one) for one in ids]
        return [(kind, ids[index], points[index]) for index in tour(DEPOT, points)]

    def _stands(self) -> list[tuple[str, str, Point]]:
        found: dict[str, Point] = {}
        for device_id, unit in self._hardware.units.items():
            if unit.kind == "bike":
                site = self._hardware.world.site(device_id)
                found.setdefault(site.name, (site.latitude, site.longitude))
        points = list(found.values())
        return [("bike", "", points[index]) for index in tour(DEPOT, points)]

    def _send(self, at_ms: int, person_id: str, stops: list[tuple[str, str, Point]]) -> None:
        async def begin() -> None:
            self._waiting.setdefault(person_id, []).extend(stops)
            await self._crew.wake(person_id)

        if stops:
            self._agenda.at(at_ms, begin)

    # --- one person --------------------------------------------------------------------------------------------

    async def next_job(self, member: Member) -> None:
        """What can't wait, else the next stop of one's round."""
        job = await self._ledger.next_job(
            member.person_id, member.van.at, self._now_ms(), member.until_ms, without=OF_ROUNDS
        )
        if job is not None:
            await self._crew.take(member, job)
            return
        stops = self._waiting.get(member.person_id)
        if not stops:
            return
        kind, device_id, place = stops[0]
        member.busy = "round"
        member.errand += 1
        if kind == "meal_machine" and member.van.boxes < min(_MACHINE_BOXES, BOXES_MAX):
            self._crew.drive(member, self._crew.depot, "load", partial(self._load, member))
            return
        stops.pop(0)
        self._crew.drive(member, place, f"round:{kind}", partial(self._serve, member, kind, device_id, place))

    async def _load(self, member: Member) -> None:
        member.van.load()
        self._crew.later(member, LOADING_S, partial(self._crew.free, member))

    async def _serve(self, member: Member, kind: str, device_id: str, place: Point) -> None:
        if kind == "bike":
            minutes = self._serve_stand(member, place)
        elif kind == "meal_machine":
            minutes = self._serve_machine(member, device_id)
        else:
            minutes = self._serve_room(member, device_id)
        self._crew.later(member, minutes * 60, partial(self._crew.free, member))

    def _serve_machine(self, member: Member, device_id: str) -> float:
        work = work_of("meal_machine", "restock")
        minutes = member.draw.uniform(*work.minutes)
        room = 80 - int(self._hardware.snapshot(device_id)["boxes"])
        self._crew.begin_work(device_id, {}, work, minutes)
        member.van.boxes = max(0, member.van.boxes - room)
        return minutes

    def _serve_room(self, member: Member, device_id: str) -> float:
        snapshot = self._hardware.snapshot(device_id)
        acts = []
        if snapshot["button_battery_percent"] <= _BUTTON_PERCENT_MIN:
            acts.append("replace_button_battery")
        if snapshot["lamp_hours"] >= _LAMP_HOURS_MAX:
            acts.append("replace_lamp")
        work = work_of("nursing_room", "proof_test")
        self._crew.do(device_id, tuple(acts), work.command_after)
        self._crew.counts["proof_tests"] += 1
        return member.draw.uniform(*work.minutes) + 3.0 * len(acts)

    def _serve_stand(self, member: Member, place: Point) -> float:
        """Every bike that stands within sight."""
        minutes = _LOOK_S / 60
        for device_id, unit in self._hardware.units.items():
            if unit.kind != "bike":
                continue
            snapshot = self._hardware.snapshot(device_id)
            here = snapshot["latitude"], snapshot["longitude"]
            if snapshot["riding"] or straight_metres(here, place) > _STAND_METRES:
                continue
            if snapshot["battery_percent"] < _PACK_PERCENT_MIN and member.van.packs > 0:
                member.van.packs -= 1
                self._hardware.act(device_id, "swap_battery")
                minutes += 3.0
        return minutes
