"""Faults that somebody means: messages that were genuine once, kept back or repeated when they do harm."""

import asyncio
from typing import TYPE_CHECKING, Final

from cli.simulate.wiretap import order_of
from fleet.topics import DownChannel

if TYPE_CHECKING:
    import random

    from cli.simulate.machines import EdgeBox
    from cli.simulate.simulation import Simulation

_MS_PER_S: Final = 1_000
_ROUNDS: Final = 40
_PAUSE_S: Final = 0.7
_GREETING_S: Final = 6.0
_DROPPED: Final = 0.5
_LOOKS: Final = 8
_PRESS_SHARE: Final = 0.15
_WELCOME_SHARE: Final = 0.75
_LIFETIME_S_MAX: Final = 120.0


class Attacks:
    """Coroutines for the deck of `Faults`, drawing from its randomness."""

    def __init__(self, simulation: "Simulation", randomness: "random.Random") -> None:
        self._simulation = simulation
        self._randomness = randomness

    async def late_order(self) -> None:
        """A command is kept back until it has expired; then the box's clock is set back, or an old welcome repeated."""
        simulation, randomness = self._simulation, self._randomness
        broker, tap = simulation.broker, simulation.broker.wiretap
        box = randomness.choice(simulation.boxes)
        device_id = randomness.choice(box.device_ids)
        broker.reset(device_id)  # its next welcome is fresh
        await asyncio.sleep(_GREETING_S)
        asked_s, welcome = simulation.loop.time(), tap.welcomes.get(device_id)
        kept = tap.withheld.setdefault(device_id, [])
        simulation.people.order_something(device_id)
        for _ in range(_LOOKS):
            await asyncio.sleep(1.0)
            if kept:
                break
        if not kept:
            tap.withheld.pop(device_id, None)
            return
        order = order_of(kept[0])
        await asyncio.sleep(min(_LIFETIME_S_MAX, (order.not_after - order.issued_at) / _MS_PER_S + 5.0))
        tap.withheld.pop(device_id, None)
        back_s = simulation.loop.time() - asked_s - 2.0
        box.clock.jump(-back_s)
        if welcome is not None and randomness.random() < _WELCOME_SHARE:
            time_ms, payload = welcome
            broker.say_again(device_id, DownChannel.ACK, payload)
            await asyncio.sleep(min(_LIFETIME_S_MAX, max(0.0, (order.issued_at - time_ms) / _MS_PER_S)))
        for payload in kept[:3]:
            broker.say_again(device_id, DownChannel.COMMAND, payload)
        await asyncio.sleep(2.0)
        box.clock.jump(back_s)

    async def old_words(self) -> None:
        """A box gets a new disk, messages get lost, and what was said to its old storage is said again."""
        simulation, randomness = self._simulation, self._randomness
        boxes = [box for box in simulation.boxes if box.alive and self._pressable(box)]
        if not boxes:
            return
        box = randomness.choice(boxes)
        simulation.oracle.gone_with(box)
        box.kill(1.0, keep_disk=False)
        weather = simulation.weather
        weather.dropped = _DROPPED
        for _ in range(_ROUNDS):
            await asyncio.sleep(_PAUSE_S)
            for device_id in box.device_ids:
                payload = simulation.broker.wiretap.outdated(device_id)
                if payload is not None:
                    simulation.broker.say_again(device_id, DownChannel.ACK, payload)
            for device_id in self._pressable(box):
                if randomness.random() < _PRESS_SHARE:
                    simulation.world.act(device_id, "press")
        weather.dropped = 0.0

    def _pressable(self, box: "EdgeBox") -> list[str]:
        return [one for one in box.device_ids if can_press(self._simulation, one)]


def can_press(simulation: "Simulation", device_id: str) -> bool:
    """Whether somebody can press there now."""
    return "press" in simulation.world.actions(device_id)
