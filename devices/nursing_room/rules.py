"""What the cloud decides about a nursing room: its alarms, the work it asks for, the steps of its emergency call.

An emergency is a call, never an alarm; the alarms tell that a call might not be possible, that milk gets
warm, or that the sterilizer does not sterilize.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from devices.nursing_room.alarms import ALARMS, SENSORS
from devices.nursing_room.messages import ShowHelpComing, ShowReceived
from fleet.incident import Priority
from fleet.kind import CallStep, Need, Text
from fleet.messages import Command

__all__ = ["ALARMS", "CALL_FAULTS", "PROOFS", "SENSORS", "call_feedback", "call_steps", "needs"]

BUTTON_BATTERY_ORDER_PERCENT: Final = 25
LAMP_ORDER_HOURS: Final = 7_500.0
_DAY_S: Final = 86_400.0

CALL_FAULTS: Final = ("button_disconnected", "cord_removed", "button_battery_empty", "self_test_failed")
"""Alarms that mean: somebody in the room could press in vain."""
PROOFS: Final[Mapping[str, Callable[[Any], str]]] = {
    "pressed": lambda _event: "",
    "self_test_result": lambda event: "" if event.passed else event.failure,
}
"""Type of each event that tests the button → what was found wrong, empty where it works."""


def needs(state: Any, now_ms: int) -> Sequence[Need]:
    """Parts to bring before an alarm must sound."""
    del now_ms
    reading = state.reading
    if reading is None:
        return ()
    wanted: list[Need] = []
    if reading.button_battery_percent <= BUTTON_BATTERY_ORDER_PERCENT:
        wanted.append(
            Need(
                cause="button_battery",
                skill="battery",
                title=Text("更换呼叫按钮电池", "Replace the button's battery"),
                priority=Priority.MEDIUM,
                due_within_s=_DAY_S,
                items={"button_battery": 1},
            )
        )
    if reading.lamp_hours >= LAMP_ORDER_HOURS:
        wanted.append(
            Need(
                cause="uv_lamp",
                skill="repair",
                title=Text("更换消毒柜紫外灯", "Replace the sterilizer's UV lamp"),
                priority=Priority.LOW,
                due_within_s=7 * _DAY_S,
                items={"uv_lamp": 1},
            )
        )
    return wanted


def call_steps() -> Mapping[str, CallStep]:
    """The only events that move an emergency call; its end is at the origin alone."""
    return {
        "pressed": CallStep.PRESS,
        "attended": CallStep.ATTEND,
        "cleared_at_origin": CallStep.CLEAR_AT_ORIGIN,
    }


def call_feedback(state: Any, *, acknowledged: bool) -> Command | None:
    """Somebody accepted the call: "help is coming". Before that: "received". Both for the latest press of the call."""
    press_id = state.last_press_id
    return ShowHelpComing(press_id=press_id) if acknowledged else ShowReceived(press_id=press_id)
