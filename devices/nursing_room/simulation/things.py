"""What people use, break, forget to close and repair in a room: button, cord, fridge, sterilizer, the room itself."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from devices.nursing_room import messages
from devices.nursing_room.simulation import people
from devices.nursing_room.simulation.climate import STERILIZER_CYCLE_MS
from devices.nursing_room.simulation.context import Action, Context

VISIT_MINUTES: Final = (8.0, 32.0)
FRIDGE_USE_SECONDS: Final = (10.0, 35.0)
FRIDGE_USED_SHARE: Final = 0.6
STERILIZER_USED_SHARE: Final = 0.35


class Things:
    """Every change is true at once; the controller reads the button, the cord and the mains at once too."""

    def __init__(self, context: Context, started_ms: int) -> None:
        self._context = context
        self._room, self._agenda, self._firmware = context.room, context.agenda, context.firmware
        self.actions: Mapping[str, Action] = {
            "enter": self._enter,
            "leave": self._leave,
            "break_button": partial(self._change, "button_broken", button_wired=False),
            "repair_button": partial(self._change, "button_repaired", button_wired=True),
            "drain_button_battery": self._drain_button_battery,
            "replace_button_battery": partial(self._change, "button_battery_replaced", button_battery_percent=100.0),
            "remove_cord": partial(self._move_cord, in_place=False),
            "replace_cord": partial(self._move_cord, in_place=True),
            "open_fridge_door": partial(self._move_fridge_door, is_open=True),
            "close_fridge_door": partial(self._move_fridge_door, is_open=False),
            "start_sterilizer": self._start_sterilizer,
            "open_sterilizer": self._open_sterilizer,
            "close_sterilizer": self._close_sterilizer,
            "replace_lamp": self._replace_lamp,
        }
        self.timers: Mapping[str, Action] = {
            "visit_starts": self._on_visit_starts,
            "visit_ends": self._leave,
            "fridge_opens": self._on_fridge_opens,
            "fridge_closes": self.actions["close_fridge_door"],
            "sterilizer_done": partial(self.finish_cycle, outcome="completed"),
        }
        self._plan_visit(started_ms)

    def _change(self, what: str, now_ms: int, **things: Any) -> None:
        for name, value in things.items():
            setattr(self._room, name, value)
        self._context.happened(now_ms, what)
        self._firmware.read(now_ms)

    def _drain_button_battery(self, now_ms: int, percent: float = 12.0) -> None:
        self._change("button_battery_drained", now_ms, button_battery_percent=float(percent))

    def _move_cord(self, now_ms: int, *, in_place: bool) -> None:
        if self._room.cord_in_place is in_place:
            return
        self._room.cord_in_place = in_place
        self._context.report(now_ms, messages.CordReplaced if in_place else messages.CordRemoved)
        self._firmware.read(now_ms)

    # --- visits ---

    def _plan_visit(self, now_ms: int) -> None:
        visits = self._context.fact("visits_per_workday", 5.0) * self._context.fact("demand_factor", 1.0)
        self._agenda.set("visit_starts", people.next_visit_ms(now_ms, visits, self._context.randomness))

    def _on_visit_starts(self, now_ms: int) -> None:
        draw = self._context.randomness
        self._plan_visit(now_ms)
        if self._room.occupied:  # the door says so: the next one comes later
            return
        self._enter(now_ms)
        minutes = draw.uniform(*VISIT_MINUTES)
        self._agenda.set("visit_ends", now_ms + round(minutes * 60_000))
        if draw.random() < FRIDGE_USED_SHARE:
            self._agenda.set("fridge_opens", now_ms + round(draw.uniform(0.1, 0.9) * minutes * 60_000))

    def _enter(self, now_ms: int) -> None:
        self._room.step_to(now_ms)
        self._room.occupied = True
        self._context.happened(now_ms, "visit_started")

    def _leave(self, now_ms: int) -> None:
        self._room.step_to(now_ms)
        self._room.occupied = False
        self._agenda.cancel("visit_ends")
        self._context.happened(now_ms, "visit_ended")
        if self._context.randomness.random() < STERILIZER_USED_SHARE:
            self._start_sterilizer(now_ms)

    # --- fridge ---

    def _on_fridge_opens(self, now_ms: int) -> None:
        if self._room.fridge.door_open:
            return
        self._move_fridge_door(now_ms, is_open=True)
        seconds = self._context.randomness.uniform(*FRIDGE_USE_SECONDS)
        self._agenda.set("fridge_closes", now_ms + round(seconds * 1000))

    def _move_fridge_door(self, now_ms: int, *, is_open: bool) -> None:
        if self._room.fridge.door_open is is_open:
            return
        self._room.step_to(now_ms)
        self._room.fridge.door_open = is_open
        self._context.happened(now_ms, "fridge_door_opened" if is_open else "fridge_door_closed")

    # --- sterilizer ---

    def _start_sterilizer(self, now_ms: int) -> None:
        sterilizer = self._room.sterilizer
        if not self._room.power.mains or not sterilizer.start(now_ms):
            self._context.happened(now_ms, "sterilizer_start_refused")
            return
        self._agenda.set("sterilizer_done", now_ms + STERILIZER_CYCLE_MS)
        self._context.happened(now_ms, "sterilizer_started")

    def _open_sterilizer(self, now_ms: int) -> None:
        if self._room.sterilizer.door_open:
            return
        self._room.sterilizer.door_open = True
        self._context.happened(now_ms, "sterilizer_opened")
        self.finish_cycle(now_ms, outcome="aborted")  # the interlock

    def _close_sterilizer(self, now_ms: int) -> None:
        self._room.sterilizer.door_open = False
        self._context.happened(now_ms, "sterilizer_closed")
        if self._room.sterilizer.aborted:
            self._start_sterilizer(now_ms)  # whoever opened it starts it again

    def finish_cycle(self, now_ms: int, *, outcome: messages.SterilizerOutcome) -> None:
        """End the running cycle, if there is one."""
        sterilizer = self._room.sterilizer
        self._agenda.cancel("sterilizer_done")
        if sterilizer.running_since_ms is None:
            return
        duration_ms = sterilizer.stop(now_ms, aborted=outcome == "aborted")
        self._context.report(
            now_ms,
            messages.SterilizerCycleFinished,
            outcome=outcome,
            duration_seconds=round(duration_ms / 1000),
            lamp_hours=round(sterilizer.lamp_hours, 1),
        )

    def _replace_lamp(self, now_ms: int) -> None:
        self._room.sterilizer.lamp_hours = 0.0
        self._context.happened(now_ms, "lamp_replaced")
