"""Any service apprise has a URL for: chat bots, push, SMS, voice, mail.

Each URL is a channel of its own, so that one dead service neither delays the others nor makes them repeat.
apprise blocks, so it runs in threads; how many of them may hang is bounded per channel.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from cloud.adapters.notify import words
from cloud.model import Notification
from cloud.ports import NotDeliveredError
from fleet.incident import Priority

THREADS_MAX: Final = 8

_KINDS: Final = {
    Priority.EMERGENCY.value: "failure",
    Priority.HIGH.value: "warning",
    Priority.MEDIUM.value: "warning",
    Priority.LOW.value: "info",
}


class AppriseChannel:
    """One apprise URL."""

    def __init__(self, url: str) -> None:
        """Check the URL.

        Raises:
            ValueError: apprise has no service for it; the message names only its scheme, the rest is secret.
        """
        import apprise  # noqa: PLC0415  # a second of imports that only those who use it shall wait for

        scheme = url.partition("://")[0]
        self._service: Any = apprise.Apprise()
        if not self._service.add(url):
            raise ValueError(f"apprise does not understand this {scheme!r} address")
        self.name = name_of(url)
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=self.name)

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """Hand it to the service; raises NotDeliveredError unless the service took it."""
        del delivery_id  # such services know no repeats
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, notification)

    def _send(self, notification: Notification) -> None:
        result = self._service.notify(
            title=words.title(notification),
            body=words.body(notification),
            notify_type=_KINDS.get(notification.priority, "info"),
            body_format="text",
        )
        with result:
            if not result:
                reasons = "; ".join(str(entry) for entry in result.logs())
                raise NotDeliveredError(f"{result.status.name.lower()} {reasons}".strip())

    def close(self) -> None:
        """Start nothing new; threads that hang in a service are left to its time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def name_of(url: str) -> str:
    """The channel's name: its scheme and a short hash, stable and free of secrets."""
    scheme = url.partition("://")[0]
    return f"{scheme}-{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}"


def channels(urls: Sequence[str]) -> list[AppriseChannel]:
    """A channel per URL; raises ValueError for one that apprise does not understand."""
    return [AppriseChannel(url) for url in dict.fromkeys(urls)]
