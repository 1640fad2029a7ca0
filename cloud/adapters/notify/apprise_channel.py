"""Any service apprise has a URL for: chat bots, push, SMS, voice, mail.

Each URL of a group is a channel of its own, so that one dead service neither delays the others nor makes them
repeat; it writes in both languages. A person's own bot, number or account is an address of a personal channel and is
written to in that person's language. apprise blocks, so it runs in threads; how many of them may hang is bounded
per channel.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import quote

from cloud.adapters.notify import words
from cloud.model import Notification, Recipient
from cloud.notifications.addresses import check_chat
from cloud.ports import AddressRefusedError, NotDeliveredError
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

    def __init__(self, url: str, *, link: words.Link = words.nowhere) -> None:
        """Check the URL. `link`: where a reader answers.

        Raises:
            ValueError: apprise has no service for it; the message names only its scheme, the rest is secret.
        """
        import apprise  # noqa: PLC0415  # a second of imports that only those who use it shall wait for

        scheme = url.partition("://")[0]
        self._service: Any = apprise.Apprise()
        if not self._service.add(url):
            raise ValueError(f"apprise does not understand this {scheme!r} address")
        self.name = name_of(url)
        self._link = link
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=self.name)

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """Hand it to the service; raises NotDeliveredError unless the service took it."""
        del delivery_id  # such services know no repeats
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, notification)

    def _send(self, notification: Notification) -> None:
        text = f"{words.body(notification)}\n\n{self._link(notification)}".rstrip()
        _notify(self._service, words.title(notification), text, notification.priority)

    def close(self) -> None:
        """Start nothing new; threads that hang in a service are left to its time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _notify(service: Any, title: str, text: str, priority: str) -> None:
    result = service.notify(title=title, body=text, notify_type=_KINDS.get(priority, "info"), body_format="text")
    with result:
        if not result:
            reasons = "; ".join(str(entry) for entry in result.logs())
            raise NotDeliveredError(f"{result.status.name.lower()} {reasons}".strip())


class PersonalAppriseChannel:
    """Addresses of single people, each of which is an apprise URL or fills `{address}` in a template of one.

    Without a template only bots of `cloud.notifications.addresses` are taken: their hosts are the services' own, so
    nobody can make us send into our own network.
    """

    def __init__(self, name: str, *, template: str = "", link: words.Link = words.nowhere) -> None:
        """Raises ValueError for a template that apprise would not understand, or without `{address}`."""
        self.name = name
        self._template = template
        self._link = link
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=name)
        if template:
            if "{address}" not in template:
                raise ValueError(f"{name}_url: an apprise URL needs {{address}} where the number goes")
            self._service("+8613800000000")

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        """Raises AddressRefusedError for an address apprise does not understand, else NotDeliveredError."""
        del delivery_id  # such services know no repeats
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, notification, recipient)

    def _send(self, notification: Notification, recipient: Recipient) -> None:
        try:
            service = self._service(recipient.address)
        except ValueError as error:
            raise AddressRefusedError(str(error)) from error
        text = f"{words.text(notification, recipient.language)}\n\n{self._link(notification)}".rstrip()
        _notify(service, words.heading(notification, recipient.language), text, notification.priority)

    def _service(self, address: str) -> Any:
        import apprise  # noqa: PLC0415  # a second of imports that only those who use it shall wait for

        if not self._template:
            check_chat(address)
        url = self._template.replace("{address}", quote(address, safe="")) if self._template else address
        service = apprise.Apprise()
        if not service.add(url):
            raise ValueError(f"{self.name}: apprise does not understand this address")
        return service

    def close(self) -> None:
        """Start nothing new; threads that hang in a service are left to its time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def name_of(url: str) -> str:
    """The channel's name: its scheme and a short hash, stable and free of secrets."""
    scheme = url.partition("://")[0]
    return f"{scheme}-{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}"


def channels(urls: Sequence[str], link: words.Link = words.nowhere) -> list[AppriseChannel]:
    """A channel per URL; raises ValueError for one that apprise does not understand."""
    return [AppriseChannel(url, link=link) for url in dict.fromkeys(urls)]
