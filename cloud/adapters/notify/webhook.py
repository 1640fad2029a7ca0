"""A webhook: signed JSON by HTTP POST to one address.

The receiver checks `X-Fleet-Signature: sha256=<hex>`, the HMAC-SHA256 of `<X-Fleet-Timestamp>.<body>` under
the shared secret, refuses an old time stamp, and drops a `delivery_id` it has seen.
"""

import hashlib
import hmac
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import aiohttp
import msgspec

from cloud.model import Notification
from cloud.ports import NotDeliveredError

TIMESTAMP_HEADER: Final = "X-Fleet-Timestamp"
SIGNATURE_HEADER: Final = "X-Fleet-Signature"
DELIVERY_HEADER: Final = "X-Fleet-Delivery"
CONNECTIONS_MAX: Final = 64
KEEP_ALIVE_S: Final = 75.0
ANSWER_BYTES_MAX: Final = 65_536

_encoder = msgspec.json.Encoder()


def signature_of(secret: str, timestamp: str, body: bytes) -> str:
    """Value of the signature header for a body sent at `timestamp` (ms since the epoch, decimal)."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


class WebhookChannel:
    """Delivered means any 2xx. Redirects are not followed: the address is what the admin wrote, nothing else."""

    def __init__(
        self,
        url: str,
        *,
        secret: str,
        real_now_ms: Callable[[], int],
        timeout_s: float = 5.0,
        name: str = "webhook",
    ) -> None:
        """Open it with `async with` inside the event loop that sends.

        Raises:
            ValueError: the address is not http or https.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"webhook address {url!r} must begin with http:// or https://")
        self.name = name
        self._url = url
        self._secret = secret
        self._real_now_ms = real_now_ms
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """POST it; raises NotDeliveredError with the status or the network's reason."""
        if self._session is None:
            raise RuntimeError("the webhook is not open: use it with `async with`")
        body = _encoder.encode({"delivery_id": delivery_id, "notification": notification})
        timestamp = str(self._real_now_ms())
        headers = {
            "Content-Type": "application/json",
            DELIVERY_HEADER: delivery_id,
            TIMESTAMP_HEADER: timestamp,
        }
        if self._secret:
            headers[SIGNATURE_HEADER] = signature_of(self._secret, timestamp, body)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
                await answer.content.read(ANSWER_BYTES_MAX)  # the rest closes the connection instead of keeping it
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotDeliveredError(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise NotDeliveredError(f"HTTP {status}")
