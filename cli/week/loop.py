"""The virtual loop of `fleet simulate`, driven by a world that knows better when something happens.

A week has millions of readings that nobody waits for: they are worked off without a turn of the loop. Only when
something was woken, or a timer is due, the loop turns.
"""

import asyncio
from typing import Final

from cli.simulate.loop import VirtualLoop

TURNS_MAX: Final = 100_000


class WeekLoop(VirtualLoop):
    """See above; time moves only in `go_to` and in the loop's own timers before it."""

    async def go_to(self, at_s: float) -> None:
        """Let everything that others wait for until `at_s` happen, then be there."""
        if self._scheduled and self._scheduled[0].when() <= at_s:  # type: ignore[attr-defined]
            await asyncio.sleep(max(0.0, at_s - self._now_s))
        self._now_s = max(self._now_s, at_s)

    async def rest(self) -> None:
        """Let whoever was woken do what it can without time passing."""
        for _ in range(TURNS_MAX):
            if not self._ready:  # type: ignore[attr-defined]
                return
            await asyncio.sleep(0)
        raise RuntimeError("somebody is woken again and again and no time has passed")
