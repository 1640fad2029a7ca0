"""A wake-up call with a deadline, for the tasks that wait so with every message."""

import asyncio


class Wake:
    """`asyncio.Event` as far as one waiter needs it; its deadline costs a timer, not a context and a cancellation."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        """Whether `set` was called since the last `clear`."""
        return self._is_set

    def set(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._is_set = True
        if self._waiter is not None:
            _release(self._waiter)

    def clear(self) -> None:
        """From now on `wait` waits again."""
        self._is_set = False

    async def wait(self, seconds: float | None = None) -> None:
        """Until it is set, for at most so many seconds (None: however long).

        Raises:
            RuntimeError: somebody waits already.
        """
        if self._is_set:
            return
        if self._waiter is not None:
            raise RuntimeError("a wake-up call has one waiter")
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), _release, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


def _release(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
