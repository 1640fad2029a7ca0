"""What is to be done, and when: one heap for people, faults, links and lines."""

import heapq
from collections.abc import Awaitable, Callable
from itertools import count

Act = Callable[[], Awaitable[None] | None]


class Agenda:
    """Acts in the order of their time; of two at the same time the one that was put first."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Act]] = []
        self._order = count()

    def at(self, at_ms: int, act: Act) -> None:
        """Do `act` then."""
        heapq.heappush(self._due, (at_ms, next(self._order), act))

    @property
    def next_due_ms(self) -> int | None:
        """When the next one is due."""
        return self._due[0][0] if self._due else None

    def take(self) -> Act:
        """Remove and return the earliest."""
        return heapq.heappop(self._due)[2]
