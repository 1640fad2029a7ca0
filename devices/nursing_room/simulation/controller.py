"""The controller's supply and chores: mains and backup battery, brown-outs and restarts, self-tests."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from devices.nursing_room import messages
from devices.nursing_room.call import RoomCallState
from devices.nursing_room.simulation import people
from devices.nursing_room.simulation.callers import Callers
from devices.nursing_room.simulation.context import Action, Context
from devices.nursing_room.simulation.things import Things
from fleet.envelope import Lane
from fleet.messages import ReplyStatus

BOOT_SECONDS: Final = (2.0, 6.0)
SELF_TEST_MS: Final = 4_000
SELF_TEST_INTERVAL_MS: Final = round(6.5 * people.DAY_MS)
SELF_TEST_POSTPONED_MS: Final = 600_000


class Controller:
    """What happens to the controller itself, and what it does without being asked."""

    def __init__(self, context: Context, callers: Callers, things: Things, started_ms: int, interval_ms: int) -> None:
        self._context = context
        self._room, self._agenda, self._firmware = context.room, context.agenda, context.firmware
        self._callers, self._things = callers, things
        self._interval_ms = interval_ms
        self._boot_cause: messages.RestartCause = "power_on"
        self._reboot_command: bytes | None = None
        self._self_test_command: bytes | None = None
        self._firmware.orders.update(start_self_test=self._order_self_test, reboot=self._order_reboot)
        self.actions: Mapping[str, Action] = {
            "cut_mains": self._cut_mains,
            "restore_mains": self._restore_mains,
            "brown_out": self._brown_out,
        }
        self.timers: Mapping[str, Action] = {
            "reading": self._on_reading,
            "boot": self._on_boot,
            "self_test": self._on_self_test,
            "self_test_done": self._on_self_test_done,
            **{f"repeat_{lane}": self._repeater(lane) for lane in (Lane.EMERGENCY, Lane.EVENT)},
        }
        draw = context.randomness
        self._agenda.set("reading", started_ms + draw.randint(1, interval_ms))
        self._agenda.set("self_test", started_ms + draw.randint(60_000, SELF_TEST_INTERVAL_MS))

    def _repeater(self, lane: Lane) -> Callable[[int], None]:
        return partial(self._firmware.repeat, lane)

    def _on_reading(self, now_ms: int) -> None:
        self._agenda.set("reading", now_ms + self._interval_ms)
        self._room.step_to(now_ms)
        self._firmware.read(now_ms)
        ended = self._room.excursion.watch(round(self._room.fridge.celsius, 2), now_ms)
        if ended is not None:
            seconds, peak = round(ended[0] / 1000), ended[1]
            self._context.report(now_ms, messages.FridgeExcursionEnded, duration_seconds=seconds, peak_celsius=peak)
        if self._firmware.running and not self._room.power.available:
            self._stop(now_ms, "backup_empty")

    # --- power ---

    def _cut_mains(self, now_ms: int) -> None:
        if not self._room.power.mains:
            return
        self._room.step_to(now_ms)
        self._room.power.mains = False
        self._context.report(now_ms, messages.MainsLost)
        self._things.finish_cycle(now_ms, outcome="aborted")
        self._firmware.read(now_ms)

    def _restore_mains(self, now_ms: int) -> None:
        if self._room.power.mains:
            return
        self._room.step_to(now_ms)
        self._room.power.mains = True
        self._context.report(now_ms, messages.MainsRestored)
        if self._firmware.running:
            self._firmware.read(now_ms)
        else:
            self._boot_later(now_ms, "power_on")

    def _brown_out(self, now_ms: int) -> None:
        if not self._firmware.running:
            return
        self._stop(now_ms, "brown_out")
        self._boot_later(now_ms, "brown_out")

    def _stop(self, now_ms: int, cause: str) -> None:
        self._context.happened(now_ms, "controller_stopped", cause=cause, call_state=self._firmware.call.value)
        self._firmware.stop()
        self._self_test_command = None
        for name in ("self_test_done", "local_alarm"):
            self._agenda.cancel(name)

    def _boot_later(self, now_ms: int, cause: messages.RestartCause) -> None:
        self._boot_cause = cause
        self._agenda.set("boot", now_ms + round(self._context.randomness.uniform(*BOOT_SECONDS) * 1000))

    def _on_boot(self, now_ms: int) -> None:
        if not self._room.power.available:  # the battery gave out in the meantime; mains will start it
            return
        restored = self._firmware.call is not RoomCallState.IDLE
        self._firmware.start(now_ms)
        self._context.report(now_ms, messages.Restarted, cause=self._boot_cause, call_restored=restored)
        if self._reboot_command is not None:
            self._firmware.answer(self._reboot_command, ReplyStatus.SUCCEEDED)
            self._reboot_command = None
        self._callers.on_controller_started(now_ms)

    def _order_reboot(self, command_id: bytes, now_ms: int) -> None:
        self._stop(now_ms, "command")
        self._reboot_command = command_id  # kept in non-volatile memory, to answer after the start
        self._boot_later(now_ms, "command")

    # --- self-test ---

    def _order_self_test(self, command_id: bytes, now_ms: int) -> None:
        self._self_test_command = command_id
        self._agenda.set("self_test_done", now_ms + SELF_TEST_MS)

    def _on_self_test(self, now_ms: int) -> None:
        quiet = not self._room.occupied and self._firmware.call is RoomCallState.IDLE and self._firmware.running
        self._agenda.set("self_test", now_ms + (SELF_TEST_INTERVAL_MS if quiet else SELF_TEST_POSTPONED_MS))
        if quiet and not self._agenda.has("self_test_done"):
            self._agenda.set("self_test_done", now_ms + SELF_TEST_MS)

    def _on_self_test_done(self, now_ms: int) -> None:
        failure = self._room.self_test()
        self._context.report(now_ms, messages.SelfTestResult, passed=failure == "none", failure=failure)
        if self._self_test_command is not None:
            self._firmware.answer(self._self_test_command, ReplyStatus.SUCCEEDED)
            self._self_test_command = None
