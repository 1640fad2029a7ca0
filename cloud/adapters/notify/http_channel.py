"""What the channels over HTTP share: one session while they are open, and addresses that are judged."""

from types import TracebackType
from typing import Self

import aiohttp

from cloud.adapters.notify import addresses


class HttpChannel:
    """Open it with `async with` inside the event loop that sends."""

    def __init__(self, *, allow_private: bool, timeout_s: float) -> None:
        """`allow_private`: the receiver may stand in our own network, or on this machine."""
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = addresses.session(allow_private=self._allow_private, timeout_s=self._timeout_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, url: str, body: bytes, headers: dict[str, str], *, method: str = "POST") -> int:
        """The status of the answer; raises NotDeliveredError with the network's reason."""
        if self._session is None:
            raise RuntimeError(f"the {type(self).__name__} is not open: use it with `async with`")
        return await addresses.post(
            self._session, url, data=body, headers=headers, allow_private=self._allow_private, method=method
        )
