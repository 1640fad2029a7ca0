"""A simulated nursing room: its controller, its things, and the people who use it or come to help.

Everything happens at its own due time, however late `advance` is called, so what a room does depends on
its seed and on what it is told, not on the caller's rhythm. Bytes and truths of one call belong together;
the caller writes the truths down before it delivers the bytes. The parts are in `simulation/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from devices.nursing_room.kind import KIND
from devices.nursing_room.simulation.callers import Callers
from devices.nursing_room.simulation.context import Action, Context
from devices.nursing_room.simulation.controller import Controller
from devices.nursing_room.simulation.sites import sites
from devices.nursing_room.simulation.things import Things
from fleet.kind import SimulatorOutput, Site
from fleet.randomness import Randomness

__all__ = ["MISHAPS", "Mishap", "RoomSimulator", "create", "sites"]


@dataclass(frozen=True)
class Mishap:
    """Something that goes wrong by itself, and what ends it after a time drawn from `lasts_s`."""

    action: str
    per_day: float
    remedy: str | None = None
    lasts_s: tuple[float, float] = (0.0, 0.0)


MISHAPS: Final = (
    Mishap("break_button", 1 / 400, "repair_button", (7_200.0, 28_800.0)),
    Mishap("remove_cord", 1 / 300, "replace_cord", (3_600.0, 21_600.0)),
    Mishap("drain_button_battery", 1 / 500, "replace_button_battery", (43_200.0, 144_000.0)),
    Mishap("open_fridge_door", 1 / 30, "close_fridge_door", (600.0, 2_400.0)),
    Mishap("open_sterilizer", 1 / 60, "close_sterilizer", (120.0, 1_800.0)),
    Mishap("cut_mains", 1 / 200, "restore_mains", (600.0, 5_400.0)),
    Mishap("brown_out", 1 / 60),
)


class RoomSimulator:
    """See `fleet.kind.Simulator`."""

    ACTIONS: ClassVar[tuple[str, ...]] = (
        "press", "attend", "clear", "enter", "leave",
        "break_button", "repair_button", "drain_button_battery", "replace_button_battery",
        "remove_cord", "replace_cord",
        "open_fridge_door", "close_fridge_door", "start_sterilizer", "open_sterilizer", "close_sterilizer",
        "replace_lamp", "cut_mains", "restore_mains", "brown_out",
    )  # fmt: skip

    def __init__(self, device_id: str, randomness: Randomness, site: Site, started_ms: int) -> None:
        self.device_id = device_id
        self._now_ms = started_ms
        self._context = Context(device_id, randomness, site.facts, started_ms)
        self._agenda, self._firmware = self._context.agenda, self._context.firmware
        self._callers = Callers(self._context, started_ms)
        things = Things(self._context, started_ms)
        interval_ms = round(self._context.fact("reading_interval_s", KIND.reading_interval_s) * 1000)
        controller = Controller(self._context, self._callers, things, started_ms, interval_ms)
        self._actions: dict[str, Action] = {**self._callers.actions, **things.actions, **controller.actions}
        self._timers: dict[str, Action] = {
            **self._callers.timers,
            **things.timers,
            **controller.timers,
            **{f"mishap_{mishap.action}": partial(self._on_mishap, mishap) for mishap in MISHAPS},
            **{f"remedy_{mishap.remedy}": self._actions[mishap.remedy] for mishap in MISHAPS if mishap.remedy},
        }
        for mishap in MISHAPS:
            self._plan_mishap(mishap, started_ms)

    def advance(self, now_ms: int) -> SimulatorOutput:
        self._catch_up(now_ms)
        return self._context.recorder.take()

    def on_bytes(self, data: bytes, now_ms: int) -> SimulatorOutput:
        self._catch_up(now_ms)
        before = self._firmware.call
        self._firmware.on_bytes(data, self._now_ms)
        self._callers.on_light(before, self._now_ms)
        return self._context.recorder.take()

    def act(self, action: str, now_ms: int, **arguments: Any) -> SimulatorOutput:
        if action not in self._actions:
            raise ValueError(f"a nursing room knows no action {action!r}; actions: {', '.join(self.ACTIONS)}")
        self._catch_up(now_ms)
        self._actions[action](self._now_ms, **arguments)
        return self._context.recorder.take()

    @property
    def next_due_ms(self) -> int:
        return self._agenda.next_due_ms

    def snapshot(self) -> Mapping[str, Any]:
        return {
            **self._context.room.reading(self._now_ms, self._firmware.call).model_dump(),
            "press_id": self._firmware.press_id,
            "running": self._firmware.running,
            "unacknowledged_events": self._firmware.unacknowledged,
        }

    def _catch_up(self, now_ms: int) -> None:
        while (entry := self._agenda.take(now_ms)) is not None:
            due_ms, name = entry
            self._now_ms = max(self._now_ms, due_ms)
            self._timers[name](self._now_ms)
        self._now_ms = max(self._now_ms, now_ms)

    def _plan_mishap(self, mishap: Mishap, now_ms: int) -> None:
        per_day = mishap.per_day * self._context.fact("mishap_factor", 1.0)
        self._context.plan_rare(f"mishap_{mishap.action}", per_day, now_ms)

    def _on_mishap(self, mishap: Mishap, now_ms: int) -> None:
        self._plan_mishap(mishap, now_ms)
        self._actions[mishap.action](now_ms)
        if mishap.remedy is not None:
            lasts_s = self._context.randomness.uniform(*mishap.lasts_s) * self._context.fact("remedy_factor", 1.0)
            self._agenda.set(f"remedy_{mishap.remedy}", now_ms + max(1_000, round(lasts_s * 1000)))


def create(device_id: str, randomness: Randomness, site: Site, started_ms: int) -> RoomSimulator:
    """A room at `site`, its people and its luck drawn from `randomness`."""
    return RoomSimulator(device_id, randomness, site, started_ms)
