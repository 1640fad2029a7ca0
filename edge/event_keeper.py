"""Events of one driver: journalled first, acknowledged to the hardware afterwards, both in the order of the outputs."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from edge.journal import Journal
from edge.records import JournalFullError
from fleet.envelope import Lane
from fleet.messages import Event

_WAITING_MAX: Final = 1_024  # far more than a controller keeps unacknowledged


class EventKeeper:
    """Withholds every line acknowledgement while an event of this or an earlier output is not durable.

    A driver may pass an event on only once, and acknowledge its repetition without it. So what the journal refuses
    stays here, is offered again before anything else is acknowledged, and the hardware goes on repeating meanwhile.
    """

    def __init__(
        self, device_id: str, journal: Journal, retry_s: float, counts: Counter[str], write: Callable[[bytes], None]
    ) -> None:
        """`write` takes line acknowledgements; `counts` is where the agent counts."""
        self._device_id = device_id
        self._journal = journal
        self._retry_s = retry_s
        self._counts = counts
        self._write = write
        self._waiting: dict[str, tuple[int, Event, int]] = {}
        self._in_turn = asyncio.Lock()  # first come, first served: that is the order of the outputs
        self._refused = asyncio.Event()

    async def keep(self, events: Iterable[tuple[int, Event]], after_commit: bytes, clock: int = 0) -> None:
        """Journal `events`, then write `after_commit`; without room it is dropped, and the hardware repeats.

        `clock` as in `edge.records.Row`.
        """
        async with self._in_turn:
            for occurred_at, event in events:
                while len(self._waiting) >= _WAITING_MAX:  # the line waits rather than lose what a driver told once
                    await asyncio.sleep(self._retry_s)
                    await self._journal_waiting()
                self._waiting.setdefault(event.event_id, (occurred_at, event, clock))
            await self._journal_waiting()
            if self._waiting:
                self._counts["line_acknowledgements_withheld"] += bool(after_commit)
                self._refused.set()
            elif after_commit:
                self._write(after_commit)

    async def run(self) -> None:
        """Offer refused events again, also if the hardware never repeats them."""
        while True:
            await self._refused.wait()
            await asyncio.sleep(self._retry_s)
            async with self._in_turn:
                await self._journal_waiting()
                if not self._waiting:
                    self._refused.clear()

    async def _journal_waiting(self) -> None:
        waiting = list(self._waiting.values())
        for urgent in (True, False):  # what people wait for shares no commit with anything else
            await asyncio.gather(
                *(self._journal_one(*one) for one in waiting if (one[1].lane is Lane.EMERGENCY) is urgent)
            )

    async def _journal_one(self, occurred_at: int, event: Event, clock: int) -> None:
        try:
            row = await self._journal.append(
                self._device_id, event.lane, occurred_at, event.model_dump_json().encode(), event.event_id, clock=clock
            )
        except JournalFullError:
            self._counts["events_refused"] += 1
            return
        self._waiting.pop(event.event_id, None)
        self._counts["events" if row else "events_repeated_by_hardware"] += 1
