"""A seeded bike: its controller on the line, its lock, and the people around it.

`controller.py` holds the electronics. Here are the people and mishaps: riders who ride where commuters
go and lock up there, thieves, wind, maintenance. Facts of a site that a scenario may set:
`jam_probability`, `line_fault_probability`, `battery_percent`, `falls_per_day`, `thefts_per_day`,
`forgets_to_lock_probability`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from devices.bike import city
from devices.bike.city import sites
from devices.bike.controller import Controller
from devices.bike.frames import EventCode, LockCode
from devices.bike.line import Noise, Port
from devices.bike.physics import Motion
from fleet.kind import SimulatorOutput, Site
from fleet.randomness import Randomness

__all__ = ["BikeSimulator", "create", "sites"]

_DAY_MS: Final = 86_400_000
_FALLEN_DEGREES: Final = 84.0
_UPRIGHT_DEGREES: Final = 7.0
_THEFT_REPORT_METRES: Final = 20.0


class BikeSimulator:
    """One bike and the people around it; see `fleet.kind.Simulator`."""

    ACTIONS: ClassVar[tuple[str, ...]] = (
        "close_lock", "tamper", "fall", "raise", "move", "jam", "clear_jam",
        "swap_battery", "brown_out", "corrupt_line", "drop_line_bytes", "lose_fix", "find_fix", "break_thermometer",
    )  # fmt: skip

    def __init__(self, device_id: str, randomness: Randomness, site: Site, started_ms: int) -> None:
        self._randomness = randomness
        self._facts = site.facts
        noise = Noise(randomness, float(site.facts.get("line_fault_probability", 0.0002)))
        self._port = Port(device_id, noise)
        self._controller = Controller(randomness, site, started_ms, self._port)
        self._body = self._controller.body
        self._people: dict[str, int] = {}
        """What people and mishaps do next: name → ms."""
        self._schedule_mishap("fall", self._per_day("falls_per_day", 1 / 60), started_ms)
        self._schedule_mishap("move", self._per_day("thefts_per_day", 1 / 400), started_ms)
        self._steps: Mapping[str, Callable[[int], None]] = {
            "mount": self._mount,
            "arrive": self._arrive,
            "fall": self._fall,
            "raise": self._raise,
            "move": self._start_carrying,
            "carried_far": self._carried_far,
            "put_down": self._put_down,
        }
        self._destination = ""

    # --- the protocol ---------------------------------------------------------------------------------------------

    @property
    def next_due_ms(self) -> int:
        return min((self._controller.next_due_ms, *self._people.values()))

    def advance(self, now_ms: int) -> SimulatorOutput:
        while (due_ms := self.next_due_ms) <= now_ms:
            self._controller.advance(due_ms)
            self._react(due_ms)
            for name in sorted(name for name, at_ms in self._people.items() if at_ms <= due_ms):
                if self._people.pop(name, None) is not None:  # an earlier step may have called it off
                    self._steps[name](due_ms)
        self._controller.advance(now_ms)
        return self._port.take()

    def on_bytes(self, data: bytes, now_ms: int) -> SimulatorOutput:
        before = self.advance(now_ms)
        self._controller.on_bytes(data, now_ms)
        self._react(now_ms)
        after = self._port.take()
        return SimulatorOutput(before.to_driver + after.to_driver, before.truths + after.truths)

    def act(self, action: str, now_ms: int, **arguments: Any) -> SimulatorOutput:
        if action not in self.ACTIONS:
            raise ValueError(f"a bike has no action {action!r}; actions: {', '.join(self.ACTIONS)}")
        before = self.advance(now_ms)
        self._port.log(now_ms, f"action_{action}", **arguments)
        getattr(self, f"_act_{action}")(now_ms, **arguments)
        after = self._port.take()
        return SimulatorOutput(before.to_driver + after.to_driver, before.truths + after.truths)

    def snapshot(self) -> Mapping[str, Any]:
        body = self._body
        return {
            "lock_state": self._controller.lock.name.lower(),
            "latitude": body.position[0],
            "longitude": body.position[1],
            "battery_percent": body.battery_percent,
            "temperature_celsius": body.temperature_celsius,
            "odometer_metres": body.odometer_metres,
            "tilt_degrees": body.tilt_degrees,
            "riding": body.motion is not None and body.motion.wheels_turn,
            "carried": body.motion is not None and not body.motion.wheels_turn,
            "destination": self._destination,
            "powered": self._controller.powered,
            "unacknowledged_events": self._controller.unacknowledged_events,
        }

    # --- riders ---------------------------------------------------------------------------------------------------

    def _react(self, now_ms: int) -> None:
        """People see what the lock did: it opened for somebody, or was closed under them."""
        if self._controller.opened_for_rider:
            self._controller.opened_for_rider = False
            self._people["mount"] = now_ms + round(self._randomness.uniform(2_000, 8_000))
        elif self._controller.lock is LockCode.LOCKED:
            self._people.pop("mount", None)

    def _mount(self, now_ms: int) -> None:
        body = self._body
        place = city.destination(body.position, now_ms, self._randomness)
        goal = city.parked_near(place, self._randomness)
        middle = city.between(body.position, goal, self._randomness.uniform(0.3, 0.7))
        bend_metres = city.distance_metres(body.position, goal) * self._randomness.gauss(0, 0.08)
        heading = self._randomness.uniform(0, math.tau)
        corner = city.shifted(middle, bend_metres * math.cos(heading), bend_metres * math.sin(heading))
        speed = min(6.5, max(2.5, self._randomness.gauss(4.2, 0.7)))
        motion = Motion((body.position, corner, goal), speed, wheels_turn=True)
        self._stand_up()
        self._people.pop("put_down", None)
        self._people.pop("carried_far", None)
        body.motion = motion
        self._destination = place.name
        self._people["arrive"] = now_ms + round(motion.length_metres / speed * 1_000)
        self._port.log(now_ms, "ride_started", destination=place.name, metres=round(motion.length_metres))
        self._controller.report(now_ms)

    def _arrive(self, now_ms: int) -> None:
        self._dismount(now_ms)
        if self._randomness.random() < float(self._facts.get("forgets_to_lock_probability", 0.003)):
            self._port.log(now_ms, "lock_forgotten")
        else:
            self._controller.push_lever(now_ms)

    def _dismount(self, now_ms: int) -> None:
        self._body.motion = None
        self._destination = ""
        self._people.pop("arrive", None)
        self._people.pop("mount", None)
        self._port.log(now_ms, "ride_ended")
        self._controller.report(now_ms)

    # --- mishaps --------------------------------------------------------------------------------------------------

    def _per_day(self, fact: str, default: float) -> float:
        return float(self._facts.get(fact, default))

    def _schedule_mishap(self, name: str, rate_per_day: float, now_ms: int) -> None:
        if rate_per_day > 0:
            self._people[name] = now_ms + max(1_000, round(self._randomness.expovariate(rate_per_day) * _DAY_MS))

    def _fall(self, now_ms: int) -> None:
        self._schedule_mishap("fall", self._per_day("falls_per_day", 1 / 60), now_ms)
        body = self._body
        if body.motion is not None or body.tilt_degrees >= _FALLEN_DEGREES:
            return  # a rider keeps it upright; what lies cannot fall
        body.tilt_degrees = _FALLEN_DEGREES
        self._people["raise"] = now_ms + round(self._randomness.uniform(20, 180) * 60_000)
        self._controller.sense(EventCode.FALL, now_ms, amount=_FALLEN_DEGREES)

    def _raise(self, now_ms: int) -> None:
        self._stand_up()
        self._port.log(now_ms, "raised")
        self._controller.report(now_ms)

    def _stand_up(self) -> None:
        self._body.tilt_degrees = _UPRIGHT_DEGREES
        self._people.pop("raise", None)

    def _start_carrying(self, now_ms: int, metres: float | None = None) -> None:
        self._schedule_mishap("move", self._per_day("thefts_per_day", 1 / 400), now_ms)
        body = self._body
        if self._controller.lock is LockCode.UNLOCKED or body.motion is not None:
            return  # an open bike is ridden away, not carried
        heading = self._randomness.uniform(0, math.tau)
        length = metres if metres is not None else self._randomness.uniform(60, 600)
        goal = city.shifted(body.position, length * math.cos(heading), length * math.sin(heading))
        motion = Motion((body.position, goal), 1.2, wheels_turn=False)
        body.carried_metres = 0.0
        body.motion = motion
        if length > _THEFT_REPORT_METRES:
            self._people["carried_far"] = now_ms + round(_THEFT_REPORT_METRES / motion.metres_per_second * 1_000)
        self._people["put_down"] = now_ms + round(length / motion.metres_per_second * 1_000)
        self._port.log(now_ms, "carrying_started", metres=length)

    def _carried_far(self, now_ms: int) -> None:
        self._controller.sense(EventCode.MOVED_WHILE_LOCKED, now_ms, amount=self._body.carried_metres)
        self._controller.report(now_ms)

    def _put_down(self, now_ms: int) -> None:
        self._body.motion = None
        self._people.pop("carried_far", None)
        self._port.log(now_ms, "carrying_ended", metres=round(self._body.carried_metres))
        self._controller.report(now_ms)

    # --- actions --------------------------------------------------------------------------------------------------

    def _act_close_lock(self, now_ms: int) -> None:
        if self._body.motion is not None and self._body.motion.wheels_turn:
            self._dismount(now_ms)
        self._people.pop("mount", None)
        self._controller.push_lever(now_ms)

    def _act_tamper(self, now_ms: int) -> None:
        self._controller.sense(EventCode.TAMPER, now_ms)

    def _act_fall(self, now_ms: int) -> None:
        if self._body.motion is not None and self._body.motion.wheels_turn:
            self._dismount(now_ms)
        self._people.pop("fall", None)
        self._fall(now_ms)

    def _act_raise(self, now_ms: int) -> None:
        self._raise(now_ms)

    def _act_move(self, now_ms: int, metres: float = 80.0) -> None:
        self._people.pop("move", None)
        self._start_carrying(now_ms, metres)

    def _act_jam(self, now_ms: int) -> None:  # noqa: ARG002  # felt at the next movement of the bolt
        self._controller.blocked = True

    def _act_clear_jam(self, now_ms: int) -> None:
        self._controller.free_bolt(now_ms)

    def _act_swap_battery(self, now_ms: int, percent: float = 100.0) -> None:
        self._controller.swap_battery(now_ms, percent)

    def _act_brown_out(self, now_ms: int) -> None:
        self._controller.brown_out(now_ms)

    def _act_lose_fix(self, now_ms: int) -> None:
        self._controller.lose_fix(now_ms)

    def _act_find_fix(self, now_ms: int) -> None:
        self._controller.find_fix()
        self._controller.report(now_ms)

    def _act_break_thermometer(self, now_ms: int) -> None:
        self._controller.thermometer_dead = True
        self._controller.report(now_ms)

    def _act_corrupt_line(self, now_ms: int, frames: int = 1) -> None:  # noqa: ARG002  # the next frames suffer
        self._port.noise.corrupt_next += frames

    def _act_drop_line_bytes(self, now_ms: int, frames: int = 1) -> None:  # noqa: ARG002  # the next frames suffer
        self._port.noise.drop_next += frames


def create(device_id: str, randomness: Randomness, site: Site, started_ms: int) -> BikeSimulator:
    """A parked, locked bike at `site`."""
    return BikeSimulator(device_id, randomness, site, started_ms)
