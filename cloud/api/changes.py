"""Tells open pages what changed: an in-process fan-out from the pipeline's commits to streams.

Nobody depends on it for truth: a page that missed something loads again. So a subscriber that does not
keep up is cut off, told to reload, and counted. Changes to the same thing that a subscriber has not read yet
are joined into the latest one. Everything here runs on the event loop's thread.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

PENDING_MAX: Final = 1000
SUBSCRIBERS_MAX: Final = 1000
RELOAD: Final = "reload"
SESSION_ENDED: Final = "session_ended"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was committed.

    `topic`: `device`, `alarm`, `call`, `order`, `command`, `ride`, `purchase`, … `facts` holds at least the
    identity (`id` or `device_id`); `person_id` among them makes it that person's alone.
    """

    topic: str
    facts: dict[str, Any]


class TooManySubscribersError(Exception):
    """The bound on open streams is reached."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One stream's view; see `Changes.subscribe`."""

    pending: OrderedDict[tuple[str, str], Change] = field(default_factory=OrderedDict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    cut_off: bool = False

    async def next(self) -> Change:
        """The next change, or `reload` for good once this subscriber did not keep up. May be cancelled safely."""
        while not self.pending and not self.cut_off:
            self.news.clear()
            await self.news.wait()
        if self.cut_off:
            return Change(RELOAD, {})
        return self.pending.popitem(last=False)[1]


class Changes:
    """Publish from the pipeline, subscribe from streams. `on_dropped` counts subscribers that were cut off."""

    def __init__(self, on_dropped: Callable[[], None] = lambda: None) -> None:
        self._subscriptions: set[Subscription] = set()
        self._on_dropped = on_dropped

    @property
    def subscribers(self) -> int:
        """Open subscriptions."""
        return len(self._subscriptions)

    def publish(self, topic: str, facts: dict[str, Any]) -> None:
        """Tell every subscriber; never blocks. Call it after the commit, on the event loop's thread."""
        change = Change(topic, facts)
        key = (topic, str(facts.get("id") or facts.get("device_id") or facts.get("person_id") or ""))
        for subscription in tuple(self._subscriptions):
            if key not in subscription.pending and len(subscription.pending) >= PENDING_MAX:
                subscription.cut_off = True
                subscription.pending.clear()
                self._subscriptions.discard(subscription)
                self._on_dropped()
            else:
                subscription.pending[key] = change
            subscription.news.set()

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Changes from now on, until the block is left.

        Raises:
            TooManySubscribersError: at `SUBSCRIBERS_MAX`.
        """
        if len(self._subscriptions) >= SUBSCRIBERS_MAX:
            raise TooManySubscribersError
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
