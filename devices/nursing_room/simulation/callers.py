"""The emergency call: who presses, who comes to help, who clears it in the room."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from devices.nursing_room import messages
from devices.nursing_room.call import RoomCallEvent, RoomCallState
from devices.nursing_room.simulation.context import Action, Context

LOCAL_ALARM_MS_MIN: Final = 30
LOCAL_ALARM_MS_MAX: Final = 150
"""Debouncing, the sounder's relay and the lamp, all local: well within the 200 ms that are promised."""
_RETRY_MS: Final = 15_000


class Callers:
    """A press, the local alarm, and the helpers: the crew once the light says so, else somebody nearby."""

    def __init__(self, context: Context, started_ms: int) -> None:
        self._context = context
        self._firmware, self._agenda = context.firmware, context.agenda
        self._press_latched = False
        self.actions: Mapping[str, Action] = {"press": self.press, "attend": self.attend, "clear": self.clear}
        self.timers: Mapping[str, Action] = {
            "own_press": self._on_own_press,
            "local_alarm": self._on_local_alarm,
            "crew_arrives": partial(self._on_helper_arrives, who="crew"),
            "bystander_arrives": partial(self._on_helper_arrives, who="bystander"),
            "clear_key": self.clear,
        }
        self._plan_own_press(started_ms)

    def press(self, now_ms: int) -> None:
        """Somebody presses the button or pulls the cord."""
        if not self._context.room.button_works:
            self._context.happened(now_ms, "press_unheard", cause="dead_button")
        elif not self._firmware.running:
            self._press_latched = True  # the switch stays in until the controller has read it
            self._context.happened(now_ms, "press_latched")
        else:
            self._take_press(now_ms)

    def on_controller_started(self, now_ms: int) -> None:
        """A press made while the controller was down is read now; an open call sounds and lights again."""
        if self._press_latched:
            self._press_latched = False
            self._take_press(now_ms)
        elif self._firmware.call is not RoomCallState.IDLE:
            self._sound(now_ms)

    def on_light(self, before: RoomCallState, now_ms: int) -> None:
        """The light may have changed: "help is coming" means that a crew member sets out."""
        if self._firmware.call is not RoomCallState.HELP_COMING or before is RoomCallState.HELP_COMING:
            return
        if not self._agenda.has("crew_arrives"):
            self._agenda.set("crew_arrives", now_ms + self._context.delay_ms("crew_travel_s", 120.0, 300.0))

    def attend(self, now_ms: int) -> None:
        """A long press on the device, by whoever came."""
        if not self._firmware.running or not self._firmware.step(RoomCallEvent.LONG_PRESS):
            self._context.happened(now_ms, "long_press_ignored")
            return
        self._context.report(now_ms, messages.Attended, press_id=self._firmware.press_id)
        self._firmware.read(now_ms)

    def clear(self, now_ms: int) -> None:
        """The clear key."""
        if not self._firmware.running and self._firmware.press_id is not None:
            self._agenda.set("clear_key", now_ms + _RETRY_MS)  # whoever stands there tries again
            return
        call_id = self._firmware.clear()
        if call_id is None:
            self._context.happened(now_ms, "clear_key_ignored")
            return
        for name in ("crew_arrives", "bystander_arrives", "clear_key"):
            self._agenda.cancel(name)
        self._context.report(now_ms, messages.ClearedAtOrigin, press_id=call_id)
        self._firmware.read(now_ms)

    def _take_press(self, now_ms: int) -> None:
        press_id = self._firmware.new_press_id()
        self._firmware.press(press_id)
        self._context.report(now_ms, messages.Pressed, press_id=press_id)
        self._sound(now_ms)
        if not self._agenda.has("crew_arrives") and not self._agenda.has("bystander_arrives"):
            after_ms = self._context.delay_ms("bystander_after_s", 900.0, 2_400.0)
            self._agenda.set("bystander_arrives", now_ms + after_ms)
        self._agenda.cancel("clear_key")
        self._firmware.read(now_ms)

    def _sound(self, now_ms: int) -> None:
        if not self._agenda.has("local_alarm"):
            delay_ms = self._context.randomness.randint(LOCAL_ALARM_MS_MIN, LOCAL_ALARM_MS_MAX)
            self._agenda.set("local_alarm", now_ms + delay_ms)

    def _on_local_alarm(self, now_ms: int) -> None:
        self._context.happened(now_ms, "local_alarm", press_id=self._firmware.press_id, sound=True, light=True)

    def _plan_own_press(self, now_ms: int) -> None:
        self._context.plan_rare("own_press", self._context.fact("presses_per_day", 0.0), now_ms)

    def _on_own_press(self, now_ms: int) -> None:
        self._plan_own_press(now_ms)
        self.press(now_ms)

    def _on_helper_arrives(self, now_ms: int, who: str) -> None:
        self._context.happened(now_ms, "helper_arrived", who=who)
        self.attend(now_ms)
        self._agenda.set("clear_key", now_ms + self._context.delay_ms("at_scene_s", 20.0, 90.0))
