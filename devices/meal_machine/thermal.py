"""Heat in a meal machine: first-order models of the chilled space and of the heater, in closed form."""

import math
from dataclasses import dataclass
from typing import Final

COMPRESSOR_ON_CELSIUS: Final = 4.5
COMPRESSOR_OFF_CELSIUS: Final = 3.0
EVAPORATOR_CELSIUS: Final = 0.0
COOLING_TIME_CONSTANT_S: Final = 1_800.0
INSULATION_TIME_CONSTANT_S: Final = 40_000.0  # from 4 to 10 °C in about 4 h without power
OPEN_DOOR_TIME_CONSTANT_S: Final = 4_500.0  # from 4 to 8 °C in about 17 minutes
HEATER_TARGET_CELSIUS: Final = 135.0
HEATER_RISE_TIME_CONSTANT_S: Final = 25.0
HEATER_FALL_TIME_CONSTANT_S: Final = 400.0


def _towards(value: float, target: float, seconds: float, time_constant_s: float) -> float:
    return target + (value - target) * math.exp(-seconds / time_constant_s)


@dataclass
class Probe:
    """What a thermometer says of a true temperature: that, nothing once it is dead, the same for ever once stuck."""

    dead: bool = False
    stuck: bool = False
    last_celsius: float | None = None

    def read(self, celsius: float) -> float | None:
        """The value as it is reported, °C with two decimals."""
        if self.dead:
            return None
        if not self.stuck or self.last_celsius is None:
            self.last_celsius = round(celsius, 2)
        return self.last_celsius


@dataclass
class Thermal:
    """True temperatures. Modes are constant inside one `advance`."""

    ambient_celsius: float
    chilled_celsius: float = 3.8
    heater_celsius: float = 24.0
    compressor_on: bool = False

    def advance(self, seconds: float, *, mains: bool, door_open: bool, heating: bool) -> None:
        """Let `seconds` pass."""
        if self.chilled_celsius >= COMPRESSOR_ON_CELSIUS:
            self.compressor_on = True
        elif self.chilled_celsius <= COMPRESSOR_OFF_CELSIUS:
            self.compressor_on = False
        if door_open:  # an open door beats the compressor
            self._chill(self.ambient_celsius, seconds, OPEN_DOOR_TIME_CONSTANT_S)
        elif mains and self.compressor_on:
            self._chill(EVAPORATOR_CELSIUS, seconds, COOLING_TIME_CONSTANT_S)
        else:
            self._chill(self.ambient_celsius, seconds, INSULATION_TIME_CONSTANT_S)
        if heating and mains:
            self.heater_celsius = _towards(
                self.heater_celsius, HEATER_TARGET_CELSIUS, seconds, HEATER_RISE_TIME_CONSTANT_S
            )
        else:
            self.heater_celsius = _towards(
                self.heater_celsius, self.ambient_celsius, seconds, HEATER_FALL_TIME_CONSTANT_S
            )

    def _chill(self, target: float, seconds: float, time_constant_s: float) -> None:
        self.chilled_celsius = _towards(self.chilled_celsius, target, seconds, time_constant_s)
