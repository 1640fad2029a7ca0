"""What a bike says and understands."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

import fleet.messages
from fleet.envelope import READINGS_PER_MESSAGE_MAX
from fleet.messages import Command, CommandId, Event
from fleet.units import labelled, measured

LockState = Literal["locked", "unlocked", "jammed"]

Latitude = Annotated[float, measured("degrees", -90, 90, zh="纬度（WGS-84）", en="Latitude (WGS-84)")]
Longitude = Annotated[float, measured("degrees", -180, 180, zh="经度（WGS-84）", en="Longitude (WGS-84)")]
AccuracyMetres = Annotated[float, measured("metres", 0, 6_553.5, zh="定位精度", en="Position accuracy")]
BatteryPercent = Annotated[float, measured("percent", 0, 100, zh="电量", en="Battery")]
TiltDegrees = Annotated[float, measured("degrees", 0, 180, zh="倾角", en="Tilt")]
CausingCommand = Annotated[
    CommandId | None,
    labelled(zh="触发的指令", en="Command that caused it", description="None: not caused by a command"),
]


class Reading(fleet.messages.Reading):
    """Every 15 min parked, every 30 s in a ride, and at once when the lock moved."""

    battery_percent: BatteryPercent
    latitude: Latitude
    longitude: Longitude
    accuracy_metres: AccuracyMetres
    """Radius that holds the true position with 68 % probability; grows while there is no fix."""
    speed_metres_per_second: Annotated[float, measured("metres_per_second", 0, 60, zh="速度", en="Speed")]
    lock_state: Annotated[LockState, labelled(zh="车锁", en="Lock")]
    tilt_degrees: TiltDegrees
    signal_dbm: Annotated[float, measured("dbm", -128, 0, zh="信号强度", en="Signal strength")]
    odometer_metres: Annotated[float, measured("metres", 0, 4_294_967_295, zh="总里程", en="Odometer")]
    temperature_celsius: Annotated[float | None, measured("celsius", -50, 125, zh="电池温度", en="Battery temperature")]
    """None while its sensor gives no value."""
    fix_age_seconds: Annotated[float, measured("seconds", 0, 65_535, zh="定位距今", en="Age of the position")] = 0.0
    """How long ago the position was measured; until the next fix the last one is repeated."""


class Telemetry(fleet.messages.Telemetry):
    """Payload of a bike's telemetry lane."""

    readings: Annotated[tuple[Reading, ...], Field(min_length=1, max_length=READINGS_PER_MESSAGE_MAX)]


class PositionedEvent(Event):
    """An event that names where it happened."""

    latitude: Latitude
    longitude: Longitude
    accuracy_metres: AccuracyMetres


class LockOpened(PositionedEvent):
    """The sensor saw the bolt leave: the evidence that starts a ride."""

    type: Literal["lock_opened"] = "lock_opened"
    command_id: CausingCommand = None


class LockClosed(PositionedEvent):
    """The sensor saw the bolt enter: pushed by the rider, or moved by a `lock` command."""

    type: Literal["lock_closed"] = "lock_closed"
    command_id: CausingCommand = None


class LockJammed(PositionedEvent):
    """The bolt reached neither end in time."""

    type: Literal["lock_jammed"] = "lock_jammed"
    command_id: CausingCommand = None


class MovedWhileLocked(PositionedEvent):
    """Accelerometer and position agree that a locked bike is being carried away."""

    type: Literal["moved_while_locked"] = "moved_while_locked"
    moved_metres: Annotated[float, measured("metres", 0, 6_553.5, zh="移动距离", en="Moved by")]


class Fall(PositionedEvent):
    """It lies on the ground."""

    type: Literal["fall"] = "fall"
    tilt_degrees: TiltDegrees


class Tamper(PositionedEvent):
    """The casing's switch opened or the lock was struck."""

    type: Literal["tamper"] = "tamper"


class BatteryLow(Event):
    """The pack fell below the hardware's own limit; reported once per discharge."""

    type: Literal["battery_low"] = "battery_low"
    battery_percent: BatteryPercent


class Unlock(Command):
    """Open the lock. Riders get it through a ride; crew and admins may ask for it on site."""

    roles: ClassVar[frozenset[str]] = frozenset({"admin", "crew"})
    action: Literal["unlock"] = "unlock"


class Lock(Command):
    """Close the lock by motor; refused while the bike moves."""

    roles: ClassVar[frozenset[str]] = frozenset({"admin", "crew"})
    action: Literal["lock"] = "lock"


class Ring(Command):
    """Sound the bell, to be found among others."""

    roles: ClassVar[frozenset[str]] = frozenset({"admin", "crew"})
    action: Literal["ring"] = "ring"
    duration_seconds: Annotated[int, measured("seconds", 1, 30, zh="响铃时长", en="Duration")] = 5


class Locate(Command):
    """Take a fresh position and report a reading at once."""

    lifetime_s_max: ClassVar[float] = 60.0
    roles: ClassVar[frozenset[str]] = frozenset({"admin", "crew"})
    action: Literal["locate"] = "locate"


class Reboot(Command):
    """Restart the controller; the lock keeps its position."""

    lifetime_s_max: ClassVar[float] = 60.0
    action: Literal["reboot"] = "reboot"


class SetInterval(Command):
    """How often to report while parked."""

    lifetime_s_max: ClassVar[float] = 60.0
    action: Literal["set_interval"] = "set_interval"
    parked_interval_seconds: Annotated[
        int, measured("seconds", 60, 14_400, zh="停放时上报间隔", en="Report interval while parked")
    ]
