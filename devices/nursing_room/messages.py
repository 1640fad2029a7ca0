"""What a nursing room says and is told."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from fleet.envelope import Lane
from fleet.messages import Command, Event, Reading
from fleet.units import labelled, measured

CallLight = Literal["idle", "calling", "received", "help_coming", "attended"]
SterilizerState = Literal["idle", "running", "aborted"]
SterilizerOutcome = Literal["completed", "aborted"]
SelfTestFailure = Literal["none", "button_link", "cord", "battery"]
RestartCause = Literal["power_on", "brown_out", "command"]

PressId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="UUID of one press, made by the hardware")]


class RoomReading(Reading):
    """The room every 15 s, and at once when its call, button, cord or mains changes."""

    call_state: CallLight = labelled(zh="呼叫状态", en="Call state")
    button_link_ok: bool = labelled(zh="按钮已连接", en="Button connected")
    button_battery_percent: int = measured("percent", 0, 100, zh="按钮电量", en="Button battery")
    cord_in_place: bool = labelled(zh="拉绳在位", en="Pull cord in place")
    occupied: bool = labelled(zh="使用中", en="Occupied")
    fridge_celsius: float = measured("celsius", -40, 85, zh="冰箱温度", en="Fridge temperature")
    fridge_door_open: bool = labelled(zh="冰箱门开启", en="Fridge door open")
    sterilizer_state: SterilizerState = labelled(zh="消毒柜状态", en="Sterilizer state")
    sterilizer_door_open: bool = labelled(zh="消毒柜门开启", en="Sterilizer door open")
    lamp_hours: float = measured("hours", 0, 100_000, zh="紫外灯使用时间", en="UV lamp hours")
    air_celsius: float = measured("celsius", -40, 85, zh="室温", en="Air temperature")
    air_relative_humidity_percent: float = measured(
        "relative_humidity_percent", 0, 100, zh="空气湿度", en="Air humidity"
    )
    mains_power: bool = labelled(zh="市电正常", en="Mains power")
    backup_battery_percent: int = measured("percent", 0, 100, zh="后备电池电量", en="Backup battery")


class Pressed(Event):
    """Somebody in the room calls for help. Every press has an id of its own; a further press joins the open call."""

    lane: ClassVar[Lane] = Lane.EMERGENCY
    type: Literal["pressed"] = "pressed"
    press_id: PressId = labelled(zh="按下编号", en="Press")


class Attended(Event):
    """Presence proven by a long press on the device. `press_id` is the press that opened the call."""

    lane: ClassVar[Lane] = Lane.EMERGENCY
    type: Literal["attended"] = "attended"
    press_id: PressId = labelled(zh="按下编号", en="Press")


class ClearedAtOrigin(Event):
    """The clear key in the room: the only end of a call. `press_id` is the press that opened the call."""

    lane: ClassVar[Lane] = Lane.EMERGENCY
    type: Literal["cleared_at_origin"] = "cleared_at_origin"
    press_id: PressId = labelled(zh="按下编号", en="Press")


class CordRemoved(Event):
    """The pull cord was torn off or taken away."""

    type: Literal["cord_removed"] = "cord_removed"


class CordReplaced(Event):
    """The pull cord is back."""

    type: Literal["cord_replaced"] = "cord_replaced"


class SelfTestResult(Event):
    """The proof test of button link, cord, battery, lights and sounder; weekly or by command."""

    type: Literal["self_test_result"] = "self_test_result"
    passed: bool = labelled(zh="自检通过", en="Self-test passed")
    failure: SelfTestFailure = labelled(zh="自检异常", en="Failure")


class SterilizerCycleFinished(Event):
    """A UV and heat cycle came to its end, or was cut short (door interlock, power)."""

    type: Literal["sterilizer_cycle_finished"] = "sterilizer_cycle_finished"
    outcome: SterilizerOutcome = labelled(zh="消毒结果", en="Outcome")
    duration_seconds: int = measured("seconds", 0, 86_400, zh="时长", en="Duration")
    lamp_hours: float = measured("hours", 0, 100_000, zh="紫外灯使用时间", en="UV lamp hours")


class FridgeExcursionEnded(Event):
    """The fridge is back below its limit after more than a minute above it."""

    type: Literal["fridge_excursion_ended"] = "fridge_excursion_ended"
    duration_seconds: int = measured("seconds", 0, 31_536_000, zh="时长", en="Duration")
    peak_celsius: float = measured("celsius", -40, 85, zh="最高温度", en="Highest temperature")


class MainsLost(Event):
    """The room runs on its backup battery."""

    type: Literal["mains_lost"] = "mains_lost"


class MainsRestored(Event):
    """Mains power is back."""

    type: Literal["mains_restored"] = "mains_restored"


class Restarted(Event):
    """The controller started again; an open call was kept."""

    type: Literal["restarted"] = "restarted"
    cause: RestartCause = labelled(zh="重启原因", en="Cause")
    call_restored: bool = labelled(zh="呼叫已恢复", en="Open call kept")


class CallLightCommand(Command):
    """Shows the caller how far help is; `not_possible` unless `press_id` is the latest press of an open call.

    Without a press it is for the open call, whichever press it is.
    """

    lifetime_s_max: ClassVar[float] = 60.0
    urgent: ClassVar[bool] = True
    press_id: PressId | None = labelled(zh="按下编号", en="Press", default=None)


class ShowReceived(CallLightCommand):
    """Light "received by the centre"."""

    action: Literal["show_received"] = "show_received"


class ShowHelpComing(CallLightCommand):
    """Light "somebody is coming"."""

    action: Literal["show_help_coming"] = "show_help_coming"


class StartSelfTest(Command):
    """Proof-test the button now; refused as `busy` while a call is open. The result follows as an event."""

    lifetime_s_max: ClassVar[float] = 60.0
    roles: ClassVar[frozenset[str]] = frozenset({"admin", "crew"})
    action: Literal["start_self_test"] = "start_self_test"


class Reboot(Command):
    """Restart the controller; refused as `busy` while a call is open."""

    lifetime_s_max: ClassVar[float] = 30.0
    action: Literal["reboot"] = "reboot"


EVENTS: Final[tuple[type[Event], ...]] = (
    Pressed, Attended, ClearedAtOrigin, CordRemoved, CordReplaced, SelfTestResult, SterilizerCycleFinished,
    FridgeExcursionEnded, MainsLost, MainsRestored, Restarted,
)  # fmt: skip
COMMANDS: Final[tuple[type[Command], ...]] = (ShowReceived, ShowHelpComing, StartSelfTest, Reboot)
