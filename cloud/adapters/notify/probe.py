"""Hands deliveries of the synthetic room back to the watchdog, which knows by that that the way is whole.

It never fails towards the outbox: a watchdog that is away is no outage that people must be told of by dispatch. The
watchdog misses the delivery, and an external dead man's switch misses the watchdog.
"""

from types import TracebackType
from typing import Final, Self

import aiohttp
import structlog

from cloud.model import Notification
from cloud.synthetic import PROBE_CHANNEL

_log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 3.0


class ProbeChannel:
    """POSTs `{"event_id": …}` to the watchdog's `/delivered`."""

    name = PROBE_CHANNEL

    def __init__(self, url: str) -> None:
        """Raises ValueError: the address is not http."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"probe address {url!r} must begin with http:// or https://")
        self._url = url.rstrip("/") + "/delivered"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """Hand it back; what is not of the synthetic room is none of its business."""
        del delivery_id
        event_id = notification.facts.get("event_id")
        if self._session is None or not event_id or "call_id" not in notification.facts:
            return
        try:
            async with self._session.post(self._url, json={"event_id": event_id}, allow_redirects=False) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("the watchdog did not take a delivery", error=f"{type(error).__name__}: {error}")
