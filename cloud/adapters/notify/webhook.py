"""A webhook: signed JSON by HTTP POST to one address.

The receiver checks `X-Fleet-Signature: sha256=<hex>`, the HMAC-SHA256 of `<X-Fleet-Timestamp>.<body>` under
the shared secret, refuses a time stamp older than `REPLAY_WINDOW_S`, and drops a `delivery_id` it has seen
(docs/notifications.md shows how).
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

import msgspec

from cloud.adapters.notify import addresses
from cloud.adapters.notify.http_channel import HttpChannel
from cloud.model import Notification
from cloud.ports import NotDeliveredError
from fleet.clock import MILLISECONDS_PER_SECOND

TIMESTAMP_HEADER: Final = "X-Fleet-Timestamp"
SIGNATURE_HEADER: Final = "X-Fleet-Signature"
DELIVERY_HEADER: Final = "X-Fleet-Delivery"
REPLAY_WINDOW_S: Final = 300.0
"""A receiver should refuse what was signed longer ago, or so far ahead."""

_encoder = msgspec.json.Encoder()


def signature_of(secret: str, timestamp: str, body: bytes) -> str:
    """Value of the signature header for a body sent at `timestamp` (ms since the epoch, decimal)."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


def is_genuine(secret: str, timestamp: str, signature: str, body: bytes, *, now_ms: int) -> bool:
    """What a receiver checks: our signature, and not older than the replay window."""
    if not timestamp.isdecimal() or abs(now_ms - int(timestamp)) > REPLAY_WINDOW_S * MILLISECONDS_PER_SECOND:
        return False
    return hmac.compare_digest(signature_of(secret, timestamp, body), signature)


class WebhookChannel(HttpChannel):
    """Delivered means any 2xx. Redirects are not followed: the address is what the admin wrote, nothing else."""

    def __init__(
        self,
        url: str,
        *,
        secret: str,
        real_now_ms: Callable[[], int],
        timeout_s: float = 5.0,
        name: str = "webhook",
        allow_private: bool = False,
    ) -> None:
        """See HttpChannel.

        Raises:
            ValueError: the address is not http or https, or names a private host that is not allowed.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"webhook address {url!r} must begin with http:// or https://")
        if not allow_private:
            try:
                addresses.refuse_private_literal(url)
            except addresses.PrivateAddressError as refusal:
                raise ValueError(f"webhook address: {refusal}") from None
        super().__init__(allow_private=allow_private, timeout_s=timeout_s)
        self.name = name
        self._url = url
        self._secret = secret
        self._real_now_ms = real_now_ms

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """POST it; raises NotDeliveredError with the status or the network's reason."""
        body = _encoder.encode({"delivery_id": delivery_id, "notification": notification})
        timestamp = str(self._real_now_ms())
        headers = {
            "Content-Type": "application/json",
            DELIVERY_HEADER: delivery_id,
            TIMESTAMP_HEADER: timestamp,
        }
        if self._secret:
            headers[SIGNATURE_HEADER] = signature_of(self._secret, timestamp, body)
        status = await self._request(self._url, body, headers)
        if not 200 <= status < 300:
            raise NotDeliveredError(f"HTTP {status}")
