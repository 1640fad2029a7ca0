from typing import ClassVar, Literal

from fleet.envelope import Lane
from fleet.messages import Command, Event, Reading
from fleet.units import measured


class DoorbellReading(Reading):
    temperature_celsius: float = measured("celsius", -40, 80, zh="温度", en="temperature")


class Pressed(Event):
    lane: ClassVar[Lane] = Lane.EMERGENCY
    type: Literal["pressed"] = "pressed"


class Opened(Event):
    type: Literal["opened"] = "opened"


class Ring(Command):
    action: Literal["ring"] = "ring"
    times: int = measured("count", 1, 10, zh="次数", en="times", default=1)
