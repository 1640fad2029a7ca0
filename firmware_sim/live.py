"""The world in real time: a loop that sleeps until something is due."""

import asyncio
from typing import Final

from firmware_sim.world import World
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

STEPS_PER_SLICE_MAX: Final = 64
"""Steps between two turns of the event loop, so that a busy world starves nobody."""
PAUSE_S_MIN: Final = 0.005
"""Real seconds between wake-ups: things due closer together are done in one turn, a little late."""
SETTLE_PAUSE_S: Final = 0.05
PAUSE_S_MAX: Final = 1.0
"""So that a clock that was set forward is noticed."""


async def run(world: World, clock: Clock) -> None:
    """Advance `world` with `clock` until cancelled. Run it in a TaskGroup: an error in it must end the process."""
    while True:
        if not world.advance(clock.now_ms(), steps_max=STEPS_PER_SLICE_MAX):
            await asyncio.sleep(0)
            continue
        await asyncio.sleep(pause_s(world, clock))


async def settle(world: World, clock: Clock, *, within_s: float) -> bool:
    """End the script and go on until no hardware keeps an event, so that a comparison can be fair.

    Returns False if that did not come to pass within so many real seconds.
    """
    world.end_script()
    deadline_s = clock.monotonic_s() + within_s
    while True:
        finished = world.advance(clock.now_ms(), steps_max=STEPS_PER_SLICE_MAX)
        if finished and world.unacknowledged_events == 0:
            return True
        if clock.monotonic_s() > deadline_s:
            return False
        await asyncio.sleep(SETTLE_PAUSE_S if finished else 0)


def pause_s(world: World, clock: Clock) -> float:
    """Real seconds until the world wants to be advanced again."""
    due_ms = world.next_due_ms
    if due_ms is None:
        return PAUSE_S_MAX
    ahead_s = (due_ms - clock.now_ms()) / MILLISECONDS_PER_SECOND / clock.speed
    return min(PAUSE_S_MAX, max(PAUSE_S_MIN, ahead_s))
