"""An event loop on virtual time: nobody waits, and the same calls give the same order in every process.

When nothing is ready the clock moves to the next timer. What the code gives to threads runs on the loop's own
thread, either at once or at moments drawn from the run's randomness, in the order of each executor. Tasks of a
group are cancelled in the order of their creation: a plain set would order them by address.
"""

import asyncio
import selectors
from collections.abc import Callable, Iterator
from typing import Any, Final

from fleet.randomness import Randomness

ROUNDS_MAX: Final = 100_000
_TICK_S: Final = 1e-9  # two moments that must keep their order


class _NoSelector(selectors.BaseSelector):
    """Tells the loop that the time it wanted to wait has passed."""

    def __init__(self) -> None:
        self.moved: Callable[[float | None], None] = lambda _timeout: None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.moved(timeout)
        return []

    def get_map(self) -> Any:
        return self._keys


class StuckError(RuntimeError):
    """Every task waits for something that no timer will bring about."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Seconds are virtual, from 0. `delays`: seeded delays of work in threads; None runs it at once."""

    def __init__(self, delays: Randomness | None = None) -> None:
        self._now_s = 0.0
        self._delays = delays
        self._free_s: dict[int, float] = {}
        self._executors = 0
        self._rounds = 0
        selector = _NoSelector()
        selector.moved = self._let_time_pass
        super().__init__(selector)
        self._clock_resolution = _TICK_S

    def _let_time_pass(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            raise StuckError("nothing will ever happen again")
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise StuckError(f"{ROUNDS_MAX} rounds of the loop and no time has passed")
        if timeout_s > 0:
            self._rounds = 0
            # Exactly to the timer, not by the difference: sums of differences would drift apart from it.
            self._now_s = max(self._now_s, self._scheduled[0].when()) if self._scheduled else self._now_s  # type: ignore[attr-defined]

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now_s

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        """Run `func` on this thread: at once, or begun and answered a little later."""
        future = self.create_future()
        if self._delays is None:
            _run(future, func, args)
            return future
        order = self._number_of(executor)
        begin_s = max(self._now_s + self._delay_s(), self._free_s.get(order, 0.0) + _TICK_S)
        answer_s = begin_s + self._delay_s()
        self._free_s[order] = answer_s

        def begin() -> None:
            if future.cancelled():
                return
            done = self.create_future()
            _run(done, func, args)
            self.call_at(answer_s, _hand_over, done, future)

        self.call_at(begin_s, begin)
        return future

    def _number_of(self, executor: Any) -> int:
        """Work of one executor keeps its order, others have their own; numbered, because addresses are used again."""
        if executor is None:
            return 0
        number = getattr(executor, "virtual_number", 0)
        if not number:
            self._executors += 1
            number = executor.virtual_number = self._executors
        return int(number)

    def _delay_s(self) -> float:
        assert self._delays is not None
        draw = self._delays.random()
        if draw < 0.9:
            return 0.002 * draw
        return 0.02 * draw if draw < 0.995 else 0.5 * (draw - 0.99) * 100


def _run(future: "asyncio.Future[Any]", func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        result = func(*args)
    except BaseException as error:  # noqa: BLE001  # as a thread would hand it over
        future.set_exception(error)
        future.exception()  # whoever waits hears of it; nobody waits for a process that was killed
    else:
        future.set_result(result)


def _hand_over(done: "asyncio.Future[Any]", future: "asyncio.Future[Any]") -> None:
    if future.done():
        return
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(error)


class _InOrder:
    """As much of a set as a task group needs, in the order of insertion."""

    def __init__(self) -> None:
        self._items: dict[Any, None] = {}

    def add(self, item: Any) -> None:
        self._items[item] = None

    def discard(self, item: Any) -> None:
        self._items.pop(item, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)


class OrderedTaskGroup(asyncio.TaskGroup):
    """`asyncio.TaskGroup` that cancels its tasks in the order in which they were made."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: Any = _InOrder()
