"""Tells open pages what changed: a fan-out from the commits of this process, and of others, to streams.

Nobody depends on it for truth: a page that missed something loads again. So a subscriber that does not
keep up is cut off, told to reload, and counted. Changes to the same thing that a subscriber has not read yet
are joined into the latest one. Everything here runs on the event loop's thread.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.ports import Signals
from cloud.signals import PAYLOAD_BYTES_MAX, Topic

PENDING_MAX: Final = 1000
SUBSCRIBERS_MAX: Final = 1000
RELOAD: Final = "reload"
SESSION_ENDED: Final = "session_ended"
_IDENTITY: Final = ("id", "device_id", "person_id")


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
    of_page: bool = False

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

    def __init__(self, on_dropped: Callable[[], None] = lambda: None, *, signals: Signals | None = None) -> None:
        """`signals`: tell other processes as well, and hear of theirs."""
        self._subscriptions: set[Subscription] = set()
        self._on_dropped = on_dropped
        self._signals = signals
        if signals is not None:
            signals.subscribe(Topic.CHANGES, self._heard)

    @property
    def subscribers(self) -> int:
        """Open subscriptions."""
        return len(self._subscriptions)

    @property
    def pages(self) -> int:
        """Of them, those of open pages; the others are ours."""
        return sum(1 for subscription in self._subscriptions if subscription.of_page)

    def publish(self, topic: str, facts: dict[str, Any]) -> None:
        """Tell every subscriber of every process; never blocks. Call it after the commit, on the loop's thread."""
        self.publish_here(topic, facts)
        if self._signals is not None:
            self._signals.publish(Topic.CHANGES, _encode(topic, facts))

    def publish_here(self, topic: str, facts: dict[str, Any]) -> None:
        """Tell the subscribers of this process alone: the others conclude the same from what they heard."""
        change = Change(topic, facts)
        thing = facts.get("id") or facts.get("event_id") or facts.get("device_id") or facts.get("person_id")
        key = (topic, str(thing or ""))
        for subscription in tuple(self._subscriptions):
            if key not in subscription.pending and len(subscription.pending) >= PENDING_MAX:
                self._cut_off(subscription)
            else:
                subscription.pending[key] = change
                subscription.news.set()

    def _cut_off(self, subscription: Subscription) -> None:
        subscription.cut_off = True
        subscription.pending.clear()
        self._subscriptions.discard(subscription)
        subscription.news.set()
        self._on_dropped()

    def _heard(self, payload: str | None) -> None:
        """A change in another process; None: some were missed, so everybody loads again."""
        if payload is None:
            for subscription in tuple(self._subscriptions):
                self._cut_off(subscription)
        else:
            topic, facts = json.loads(payload)
            self.publish_here(topic, facts)

    @contextmanager
    def subscribe(self, *, of_page: bool = False) -> Iterator[Subscription]:
        """Changes from now on, until the block is left; `of_page` says who asks, for the figures.

        Raises:
            TooManySubscribersError: at `SUBSCRIBERS_MAX`.
        """
        if len(self._subscriptions) >= SUBSCRIBERS_MAX:
            raise TooManySubscribersError
        subscription = Subscription(of_page=of_page)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)


def _encode(topic: str, facts: dict[str, Any]) -> str:
    """For another process. Facts that are too long to be sent are left out, except what they are about."""
    payload = json.dumps([topic, facts], ensure_ascii=False)
    if len(payload.encode()) <= PAYLOAD_BYTES_MAX:
        return payload
    return json.dumps([topic, {name: facts[name] for name in _IDENTITY if name in facts}], ensure_ascii=False)
