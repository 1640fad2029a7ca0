"""Hands deliveries of the synthetic room back to the watchdog, which knows by that that the way is whole.

It never fails towards the outbox: a watchdog that is away is no outage that people must be told of by dispatch. The
watchdog misses the delivery, and an external dead man's switch misses the watchdog.
"""

from typing import Final

import msgspec
import structlog

from cloud.adapters.notify.http_channel import HttpChannel
from cloud.model import Notification
from cloud.ports import NotDeliveredError
from cloud.synthetic import PROBE_CHANNEL

_log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 3.0
_HEADERS: Final = {"Content-Type": "application/json"}

_encoder = msgspec.json.Encoder()


class ProbeChannel(HttpChannel):
    """POSTs `{"event_id": …}` to the watchdog's `/delivered`."""

    name = PROBE_CHANNEL

    def __init__(self, url: str) -> None:
        """Raises ValueError: the address is not http."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"probe address {url!r} must begin with http:// or https://")
        super().__init__(allow_private=True, timeout_s=TIMEOUT_S)
        self._url = url.rstrip("/") + "/delivered"

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """Hand it back; what is not of the synthetic room is none of its business."""
        del delivery_id
        event_id = notification.facts.get("event_id")
        if not event_id or "call_id" not in notification.facts:
            return
        try:
            await self._request(self._url, _encoder.encode({"event_id": event_id}), _HEADERS)
        except NotDeliveredError as error:
            _log.warning("the watchdog did not take a delivery", error=str(error))
