"""What people do about an order or an alarm: the hands of the week, as tables by kind and key.

Keys are those of the kinds' alarms, of their needs, and of what a person reports (`defect`).
"""

from dataclasses import dataclass
from typing import Final

from firmware_sim.scenario import Range

MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Done at the device: `before` at the arrival, `after` at the end; commands are sent from the phone.

    `restocks`: the visit itself is the simulator's `restock`, with the boxes of the order.
    """

    minutes: Range
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    command_before: str = ""
    command_after: str = ""
    restocks: bool = False


_MACHINE_REPAIR: Final = Work(minutes=(8, 20), after=("repair", "close_door"), command_after="unlock_after_service")
_LOOK: Final = Work(minutes=(3, 8))

WORK: Final = {
    ("bike", "battery_swap"): Work(minutes=(2, 4), after=("swap_battery",)),
    ("bike", "battery_critical"): Work(minutes=(2, 4), after=("swap_battery",)),
    ("bike", "battery_hot"): Work(minutes=(5, 10), after=("swap_battery",)),
    ("bike", "lock_jammed"): Work(minutes=(6, 15), after=("clear_jam", "close_lock")),
    ("bike", "opened_without_command"): Work(minutes=(4, 10), after=("clear_jam", "close_lock")),
    ("bike", "tampered"): Work(minutes=(4, 8), after=("close_lock",), command_before="unlock"),
    ("bike", "moved_while_locked"): _LOOK,
    ("bike", "fallen"): Work(minutes=(2, 4), after=("raise",)),
    ("bike", "sensor_gnss"): Work(minutes=(4, 10), after=("find_fix",)),
    ("bike", "defect"): Work(minutes=(10, 20)),
    ("meal_machine", "restock"): Work(minutes=(5, 9), restocks=True),
    ("meal_machine", "locked_out"): Work(minutes=(15, 30), before=("repair",), command_after="unlock_after_service",
                                         restocks=True),
    ("meal_machine", "door_open_long"): Work(minutes=(1, 2), after=("close_door",)),
    ("meal_machine", "mains_lost"): Work(minutes=(4, 10), after=("power_on",)),
    ("meal_machine", "output_blocked"): Work(minutes=(1, 3), after=("repair",)),
    ("nursing_room", "button_battery"): Work(minutes=(3, 5), after=("replace_button_battery",)),
    ("nursing_room", "button_disconnected"): Work(minutes=(8, 20), after=("replace_button_battery", "repair_button")),
    ("nursing_room", "cord_removed"): Work(minutes=(3, 6), after=("replace_cord",)),
    ("nursing_room", "self_test_failed"): Work(
        minutes=(8, 15), after=("repair_button", "replace_cord"), command_after="start_self_test"
    ),
    ("nursing_room", "test_overdue"): Work(minutes=(2, 4), command_after="start_self_test"),
    ("nursing_room", "proof_test"): Work(minutes=(2, 4), command_after="start_self_test"),
    ("nursing_room", "fridge_warm"): Work(minutes=(2, 5), after=("close_fridge_door",)),
    ("nursing_room", "fridge_hot"): Work(minutes=(2, 8), after=("close_fridge_door",)),
    ("nursing_room", "sterilizer_aborted"): Work(minutes=(2, 4), after=("close_sterilizer",)),
    ("nursing_room", "mains_lost"): Work(minutes=(4, 10), after=("restore_mains",)),
    ("nursing_room", "backup_battery_low"): Work(minutes=(4, 10), after=("restore_mains",)),
    ("nursing_room", "uv_lamp"): Work(minutes=(5, 10), after=("replace_lamp",)),
}  # fmt: skip
"""By (kind, key)."""


def work_of(kind: str, key: str) -> Work:
    """What is to be done; a machine that is not listed is repaired, anything else is looked at."""
    return WORK.get((kind, key), _MACHINE_REPAIR if kind == "meal_machine" else _LOOK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Done from where one is: the front desk goes there (`act`), or a command is sent."""

    within_minutes: Range = (2.0, 12.0)
    act: str = ""
    command: str = ""


BY_TELEPHONE: Final = {
    ("nursing_room", "fridge_door_open"): Call(act="close_fridge_door"),
    ("nursing_room", "fridge_warm"): Call(act="close_fridge_door"),
    ("nursing_room", "sterilizer_door_open"): Call(act="close_sterilizer"),
    ("nursing_room", "substitute_due"): Call(within_minutes=(5.0, 15.0)),
    ("nursing_room", "room_too_warm"): Call(within_minutes=(10.0, 60.0)),
    ("nursing_room", "room_too_cold"): Call(within_minutes=(10.0, 60.0)),
    ("bike", "left_unlocked"): Call(command="lock", within_minutes=(0.1, 0.5)),
    ("bike", "carried_by_vehicle"): Call(within_minutes=(1.0, 5.0)),
}
"""Alarms that somebody settles with a call; (kind, key)."""

SERVED_BY_NEED: Final = {
    ("bike", "battery_critical"): "battery_swap",
    ("nursing_room", "button_battery_low"): "button_battery",
    ("nursing_room", "button_battery_empty"): "button_battery",
    ("nursing_room", "lamp_worn"): "uv_lamp",
    ("meal_machine", "stock_low"): "restock",
    ("meal_machine", "stock_out"): "restock",
    ("meal_machine", "lots_expired"): "restock",
}
"""Alarms without an order of their own whose work is the order of a need; (kind, key) → its cause."""
