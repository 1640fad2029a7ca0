"""What a bike is now, folded from its readings and events."""

from typing import Any, Final, Literal

from msgspec.structs import replace

from fleet.kind import DeviceState

FALLEN_ABOVE_DEGREES: Final = 60.0
UPRIGHT_BELOW_DEGREES: Final = 45.0
SWAP_BELOW_PERCENT: Final = 25.0
SWAPPED_ABOVE_PERCENT: Final = 60.0

LockBelief = Literal["locked", "unlocked", "jammed", "unknown"]


class State(DeviceState, frozen=True, kw_only=True):
    """Facts that outlive a reading. Times are the device's own, in ms since the epoch.

    `opened_by` is the command whose lock_opened event is the latest evidence; None while the bolt is
    locked or open without one. `lock_changed_at` orders events against readings, which travel in another lane.
    """

    lock_state: LockBelief = "unknown"
    lock_changed_at: int = 0
    opened_by: str | None = None
    moved_at: int | None = None
    moved_metres: float = 0.0
    fallen_at: int | None = None
    tampered_at: int | None = None
    battery_swap_wanted: bool = False


def initial(device_id: str) -> State:
    """A bike that was enrolled and has not said anything yet."""
    return State(device_id=device_id)


def apply_reading(state: State, reading: Any) -> State:
    """The state after a reading. Hot path: a reading that changes no fact costs one copy."""
    if (
        reading.lock_state == state.lock_state
        and (state.fallen_at is not None) == (reading.tilt_degrees > FALLEN_ABOVE_DEGREES)
        and state.moved_at is None
        and state.battery_swap_wanted == (reading.battery_percent < SWAP_BELOW_PERCENT)
    ):
        return replace(state, reading=reading)
    return _apply_changing_reading(state, reading)


def _apply_changing_reading(state: State, reading: Any) -> State:
    at = reading.at
    changes: dict[str, Any] = {"reading": reading}
    if reading.lock_state != state.lock_state and at >= state.lock_changed_at:
        still_open = state.lock_state == "jammed" and reading.lock_state == "unlocked"  # the rider pulled it free
        changes |= {
            "lock_state": reading.lock_state,
            "lock_changed_at": at,
            "opened_by": state.opened_by if still_open else None,
        }
    if state.fallen_at is None:
        if reading.tilt_degrees > FALLEN_ABOVE_DEGREES:
            changes["fallen_at"] = at
    elif reading.tilt_degrees < UPRIGHT_BELOW_DEGREES and at >= state.fallen_at:
        changes["fallen_at"] = None
    if state.moved_at is not None and reading.speed_metres_per_second == 0 and at > state.moved_at:
        changes |= {"moved_at": None, "moved_metres": 0.0}
    if reading.battery_percent < SWAP_BELOW_PERCENT:
        changes["battery_swap_wanted"] = True
    elif reading.battery_percent > SWAPPED_ABOVE_PERCENT:
        changes["battery_swap_wanted"] = False
    return replace(state, **changes)


def apply_event(state: State, event: Any, occurred_at: int) -> State:
    """The state after an event. Events come in the order of their lane, whatever their times say."""
    changes: dict[str, Any]
    match event.type:
        case "lock_opened":
            changes = {
                "lock_state": "unlocked",
                "lock_changed_at": occurred_at,
                "opened_by": event.command_id,
                "moved_at": None,
                "moved_metres": 0.0,
            }
            if event.command_id is not None:  # a command that works shows that the lock is sound
                changes["tampered_at"] = None
        case "lock_closed":
            changes = {"lock_state": "locked", "lock_changed_at": occurred_at, "opened_by": None}
        case "lock_jammed":
            changes = {"lock_state": "jammed", "lock_changed_at": occurred_at}
        case "moved_while_locked":
            changes = {"moved_at": occurred_at, "moved_metres": event.moved_metres}
        case "fall":
            changes = {"fallen_at": occurred_at}
        case "tamper":
            changes = {"tampered_at": occurred_at}
        case "battery_low":
            changes = {"battery_swap_wanted": True}
        case _:
            raise ValueError(f"a bike has no event {event.type!r}")
    return replace(state, **changes)
