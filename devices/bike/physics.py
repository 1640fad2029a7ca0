"""The body of a simulated bike: charge, heat, motion, and what its sensors make of them."""

import math
from dataclasses import dataclass
from typing import Final

from devices.bike import city
from devices.bike.city import Coordinates
from fleet.randomness import Randomness

_DAY_MS: Final = 86_400_000
_HOUR_S: Final = 3_600
IDLE_PERCENT_PER_HOUR: Final = 0.035  # controller asleep, radio on paging
AWAKE_PERCENT_PER_HOUR: Final = 1.1  # GNSS and radio during a ride
REPORT_PERCENT: Final = 0.004
ACTUATION_PERCENT: Final = 0.04
_HEAT_TIME_CONSTANT_S: Final = 2_400
_WARMEST_DAY_OF_YEAR: Final = 212
_YEAR_DAYS: Final = 365.25


def ambient_celsius(at_ms: int) -> float:
    """Air temperature in Dalian at that day of the year and hour: −4 °C in January, 25 °C in July, warmest at 14 h."""
    season = math.cos((at_ms / _DAY_MS % _YEAR_DAYS - _WARMEST_DAY_OF_YEAR) / _YEAR_DAYS * math.tau)
    hour = math.cos((city.local_hour(at_ms) - 14) / 24 * math.tau)
    return 11.0 + 14.0 * season + 3.5 * hour


@dataclass(slots=True)
class Motion:
    """Movement along a line of points at a steady speed; `wheels_turn` is False while it is carried."""

    points: tuple[Coordinates, ...]
    metres_per_second: float
    wheels_turn: bool
    travelled_metres: float = 0.0

    @property
    def length_metres(self) -> float:
        return sum(city.distance_metres(a, b) for a, b in zip(self.points, self.points[1:], strict=False))

    def position(self) -> Coordinates:
        """Where it is now; the last point once all is travelled."""
        left = self.travelled_metres
        for start, end in zip(self.points, self.points[1:], strict=False):
            leg = city.distance_metres(start, end)
            if left < leg:
                return city.between(start, end, left / leg)
            left -= leg
        return self.points[-1]


@dataclass(slots=True)
class Body:
    """True physical quantities, moved on by `advance`."""

    position: Coordinates
    battery_percent: float
    temperature_celsius: float
    odometer_metres: float
    signal_base_dbm: float
    now_ms: int
    tilt_degrees: float = 7.0  # on its stand
    motion: Motion | None = None
    awake: bool = False
    carried_metres: float = 0.0

    def advance(self, now_ms: int) -> None:
        """Let charge, heat and motion go on until `now_ms`; going back in time changes nothing."""
        seconds = (now_ms - self.now_ms) / 1000
        if seconds <= 0:
            return
        self.now_ms = now_ms
        cold = 1.0 + max(0.0, 5.0 - self.temperature_celsius) * 0.03  # a cold cell gives less
        rate = AWAKE_PERCENT_PER_HOUR if self.awake or self.motion is not None else IDLE_PERCENT_PER_HOUR
        self.use_charge(rate * cold * seconds / _HOUR_S)
        ambient = ambient_celsius(now_ms) + (4.0 if self.motion is not None else 0.0)
        share = 1.0 - math.exp(-seconds / _HEAT_TIME_CONSTANT_S)
        self.temperature_celsius += (ambient - self.temperature_celsius) * share
        if self.motion is not None:
            metres = self.motion.metres_per_second * seconds
            self.motion.travelled_metres += metres
            self.position = self.motion.position()
            if self.motion.wheels_turn:
                self.odometer_metres += metres
            else:
                self.carried_metres += metres

    def use_charge(self, percent: float) -> None:
        self.battery_percent = max(0.0, self.battery_percent - percent)


class Receiver:
    """A GNSS receiver whose error wanders: successive fixes err in the same direction."""

    _PERSISTENCE: Final = 0.85

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self._north_metres = 0.0
        self._east_metres = 0.0

    def fix(self, position: Coordinates, sigma_metres: float) -> tuple[Coordinates, float]:
        """A measured position and the accuracy radius the receiver claims for it."""
        step = sigma_metres * math.sqrt(1 - self._PERSISTENCE**2) * 0.7  # 0.7: sigma is of the radius, not of an axis
        self._north_metres = self._PERSISTENCE * self._north_metres + self._randomness.gauss(0, step)
        self._east_metres = self._PERSISTENCE * self._east_metres + self._randomness.gauss(0, step)
        claimed = max(1.0, sigma_metres * self._randomness.uniform(0.8, 1.4))
        return city.shifted(position, self._north_metres, self._east_metres), claimed
