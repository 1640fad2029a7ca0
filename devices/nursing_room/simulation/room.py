"""The things in a simulated room: what they are, how they change with time, what the sensors say."""

from typing import Final

from devices.nursing_room.call import RoomCallState
from devices.nursing_room.messages import RoomReading, SelfTestFailure
from devices.nursing_room.simulation.climate import Air, Excursion, Fridge, Power, Sterilizer
from fleet.randomness import Randomness

BUTTON_BATTERY_PERCENT_PER_DAY: Final = 100.0 / 700.0
BUTTON_BATTERY_PERCENT_MIN: Final = 0.5
_DAY_S: Final = 86_400.0


class Room:
    """Physical state at `at_ms`; `step_to` lets time pass in exact steps of any length."""

    def __init__(self, randomness: Randomness, started_ms: int) -> None:
        self._randomness = randomness
        self._at_ms = started_ms
        self.fridge = Fridge(randomness.uniform(2.2, 3.3))
        self.excursion = Excursion()
        self.sterilizer = Sterilizer(lamp_hours=randomness.uniform(100.0, 7_400.0))
        self.air = Air(randomness.uniform(21.5, 24.5), randomness.uniform(35.0, 50.0))
        self.power = Power()
        self.button_wired = True
        self.button_battery_percent = randomness.uniform(35.0, 100.0)
        self.cord_in_place = True
        self.occupied = False

    @property
    def button_works(self) -> bool:
        """Whether a press would reach the controller."""
        return self.button_wired and self.button_battery_percent > BUTTON_BATTERY_PERCENT_MIN

    def step_to(self, now_ms: int) -> None:
        """Let time pass."""
        seconds = (now_ms - self._at_ms) / 1000
        if seconds <= 0:
            return
        self._at_ms = now_ms
        self.power.step(seconds)
        self.air.step(seconds, self._randomness, occupied=self.occupied)
        self.fridge.step(seconds, self.air.celsius, powered=self.power.mains)
        drained = BUTTON_BATTERY_PERCENT_PER_DAY * seconds / _DAY_S
        self.button_battery_percent = max(0.0, self.button_battery_percent - drained)

    def reading(self, at: int, call: RoomCallState) -> RoomReading:
        """What the sensors say, rounded to what the wire carries."""
        return RoomReading(
            at=at,
            call_state=call.value,
            button_link_ok=self.button_works,
            button_battery_percent=round(self.button_battery_percent),
            cord_in_place=self.cord_in_place,
            occupied=self.occupied,
            fridge_celsius=round(self.fridge.celsius, 2),
            fridge_door_open=self.fridge.door_open,
            sterilizer_state=self.sterilizer.state,
            sterilizer_door_open=self.sterilizer.door_open,
            lamp_hours=round(self.sterilizer.lamp_hours, 1),
            air_celsius=round(self.air.celsius, 2),
            air_relative_humidity_percent=round(self.air.humidity_percent, 1),
            mains_power=self.power.mains,
            backup_battery_percent=round(self.power.backup_percent),
        )

    def self_test(self) -> SelfTestFailure:
        """What the controller's proof test finds."""
        if not self.button_works:
            return "button_link"
        if not self.cord_in_place:
            return "cord"
        return "battery" if self.button_battery_percent < 5.0 else "none"
