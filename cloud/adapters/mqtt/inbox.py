"""Received messages between the connection that reads them and the one consumer that fetches them."""

import asyncio

from cloud.model import Inbound


class Inbox:
    """A list and one waiter. Bounded by the connection, which stops reading (`ReceiverOptions.held_max`).

    Messages of a connection that is lost stay: they cannot be acknowledged any more, but committing them
    is harmless (keys make it idempotent), and an emergency among them need not wait for the device's resend.
    """

    def __init__(self) -> None:
        self.pending: list[Inbound] = []
        self._wanted_count = 0
        self._complete = False
        self._waiter: asyncio.Future[None] | None = None

    def arrived(self, *, complete: bool = False) -> None:
        """Called by the connection after each read that added messages. `complete`: the batch waits for no more."""
        self._complete = self._complete or complete
        if self._waiter is not None and (self._complete or len(self.pending) >= self._wanted_count):
            self._release()

    async def next_batch(self, messages_max: int, linger_s: float) -> list[Inbound]:
        """Wait for the first message, then up to `linger_s` for `messages_max` of them, or until it is complete.

        One consumer only.
        """
        if self._waiter is not None:
            raise RuntimeError("an inbox has one consumer")
        if not self.pending:
            await self._wait(1, None)
        if linger_s > 0 and len(self.pending) < messages_max and not self._complete:
            await self._wait(messages_max, linger_s)
        return self._take(messages_max)

    def _take(self, messages_max: int) -> list[Inbound]:
        if len(self.pending) <= messages_max:
            batch, self.pending, self._complete = self.pending, [], False
        else:
            batch, self.pending = self.pending[:messages_max], self.pending[messages_max:]
        return batch

    async def _wait(self, count: int, limit_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._wanted_count = count
        self._waiter = waiter = loop.create_future()
        timer = None if limit_s is None else loop.call_later(limit_s, self._release)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _release(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
