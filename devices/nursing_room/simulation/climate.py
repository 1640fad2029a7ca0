"""The physics of a room's fridge, sterilizer, air and power. Pure numbers; time comes as steps."""

import math
from dataclasses import dataclass
from typing import Final

from devices.nursing_room.messages import SterilizerState
from fleet.randomness import Randomness

FRIDGE_LIMIT_CELSIUS: Final = 4.0
FRIDGE_RETURN_CELSIUS: Final = 3.5
EXCURSION_LOGGED_MS_MIN: Final = 60_000
STERILIZER_CYCLE_MS: Final = 15 * 60_000
BACKUP_HOURS: Final = 8.0
_BACKUP_CHARGE_HOURS: Final = 4.0
_HOUR_S: Final = 3_600.0


@dataclass
class Fridge:
    """First-order heat model: leaks through the walls (slowly) or the open door (fast), cooled by a thermostat.

    The constants give a compressor duty of about one half, and 4 °C about a minute after the door was left open.
    """

    celsius: float
    wall_time_constant_s: float = 3 * _HOUR_S
    door_time_constant_s: float = 20 * 60.0
    cooling_celsius_per_hour: float = 15.0
    door_open: bool = False
    cooling: bool = False

    def step(self, seconds: float, air_celsius: float, *, powered: bool) -> None:
        """Let `seconds` pass; powered: whether the compressor may run."""
        if self.celsius > 3.2:
            self.cooling = True
        elif self.celsius < 2.2:
            self.cooling = False
        time_constant_s = self.door_time_constant_s if self.door_open else self.wall_time_constant_s
        # Towards the balance of leak and cooling, which a linear first-order system approaches exactly so.
        balance = air_celsius
        if self.cooling and powered:
            balance -= self.cooling_celsius_per_hour / _HOUR_S * time_constant_s
        self.celsius = balance + (self.celsius - balance) * math.exp(-seconds / time_constant_s)


@dataclass
class Excursion:
    """How long and how far the fridge was above its limit, judged by what the probe reads."""

    since_ms: int | None = None
    peak_celsius: float = 0.0

    def watch(self, celsius: float, now_ms: int) -> tuple[int, float] | None:
        """(duration_ms, peak) at the end of an excursion worth logging."""
        if self.since_ms is None:
            if celsius > FRIDGE_LIMIT_CELSIUS:
                self.since_ms, self.peak_celsius = now_ms, celsius
            return None
        self.peak_celsius = max(self.peak_celsius, celsius)
        if celsius > FRIDGE_RETURN_CELSIUS:
            return None
        duration_ms, self.since_ms = now_ms - self.since_ms, None
        return (duration_ms, self.peak_celsius) if duration_ms >= EXCURSION_LOGGED_MS_MIN else None


@dataclass
class Sterilizer:
    """A UV and heat cabinet with a door interlock."""

    lamp_hours: float
    door_open: bool = False
    running_since_ms: int | None = None
    aborted: bool = False

    @property
    def state(self) -> SterilizerState:
        """As it is reported."""
        if self.running_since_ms is not None:
            return "running"
        return "aborted" if self.aborted else "idle"

    def start(self, now_ms: int) -> bool:
        """Start a cycle; False when the interlock or a running cycle forbids it."""
        if self.door_open or self.running_since_ms is not None:
            return False
        self.running_since_ms, self.aborted = now_ms, False
        return True

    def stop(self, now_ms: int, *, aborted: bool) -> int:
        """End the running cycle; its length in ms."""
        assert self.running_since_ms is not None, "no cycle is running"
        duration_ms, self.running_since_ms = now_ms - self.running_since_ms, None
        self.aborted = aborted
        self.lamp_hours += duration_ms / 3_600_000
        return duration_ms


@dataclass
class Air:
    """Temperature and humidity wander around what the building keeps, a little higher with people inside."""

    celsius: float
    humidity_percent: float

    def step(self, seconds: float, randomness: Randomness, *, occupied: bool) -> None:
        """Let `seconds` pass."""
        pull = 1.0 - math.exp(-seconds / 1_800.0)
        wander = math.sqrt(seconds)
        self.celsius += (23.0 + 1.2 * occupied - self.celsius) * pull + randomness.gauss(0.0, 0.01) * wander
        humidity = (42.0 + 8.0 * occupied - self.humidity_percent) * pull + randomness.gauss(0.0, 0.05) * wander
        self.humidity_percent = min(95.0, max(5.0, self.humidity_percent + humidity))


@dataclass
class Power:
    """Mains with a backup battery that carries the controller, not the fridge."""

    mains: bool = True
    backup_percent: float = 100.0

    def step(self, seconds: float) -> None:
        """Let `seconds` pass."""
        hours = _BACKUP_CHARGE_HOURS if self.mains else -BACKUP_HOURS
        self.backup_percent = min(100.0, max(0.0, self.backup_percent + 100.0 * seconds / (hours * _HOUR_S)))

    @property
    def available(self) -> bool:
        """Whether the controller has any power."""
        return self.mains or self.backup_percent > 0.0
