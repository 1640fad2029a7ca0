"""Which hosts may be sent to: addresses that people or admins typed must not lead into our own network.

A name is resolved once, every address it has is judged, and the connection is made to exactly those: a name that
answers differently a moment later (rebinding) gains nothing. Redirects are followed nowhere.
"""

import ipaddress
import socket
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from cloud.notifications.addresses import is_public
from cloud.ports import NotDeliveredError

CONNECTIONS_MAX: Final = 64
KEEP_ALIVE_S: Final = 75.0
ANSWER_BYTES_MAX: Final = 65_536


class PrivateAddressError(OSError):
    """The host is one of our own network. The text says so and how an admin allows it."""


def refuse_private_literal(url: str) -> None:
    """A host written as an address is not resolved, so it is judged here. Raises PrivateAddressError."""
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_public(host):
        raise _refused(host)


class PublicResolver(AbstractResolver):
    """Names → addresses, none of them of our own network."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises PrivateAddressError if any of the addresses is private: then the name is not to be trusted."""
        found = await self._inner.resolve(host, port, family)
        for result in found:
            if not is_public(result["host"]):
                raise _refused(f"{host} ({result['host']})")
        return found

    async def close(self) -> None:
        await self._inner.close()


def session(
    *, allow_private: bool, timeout_s: float, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A session without cookies and proxies; only public hosts unless `allow_private`."""
    options: dict[str, Any] = {"limit": CONNECTIONS_MAX, "keepalive_timeout": KEEP_ALIVE_S}
    if not allow_private:
        options["resolver"] = PublicResolver(resolver)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(**options),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def post(
    client: aiohttp.ClientSession,
    url: str,
    *,
    data: bytes,
    headers: dict[str, str],
    allow_private: bool,
    method: str = "POST",
) -> int:
    """Send it once; the status. Raises NotDeliveredError with the network's reason, and for every redirect."""
    try:
        if not allow_private:
            refuse_private_literal(url)
        async with client.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
            status = answer.status
            await answer.content.read(ANSWER_BYTES_MAX)  # the rest closes the connection instead of keeping it
            target = urlsplit(answer.headers.get("Location", "")).hostname or "another address"
    except PrivateAddressError as refusal:
        raise NotDeliveredError(str(refusal)) from refusal
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        private = _private_cause(error)
        raise NotDeliveredError(str(private) if private else f"{type(error).__name__}: {error}") from error
    if 300 <= status < 400:
        raise NotDeliveredError(f"HTTP {status}: it redirects to {target}; redirects are not followed, correct the URL")
    return status


def _private_cause(error: BaseException) -> PrivateAddressError | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PrivateAddressError):
            return seen
        own = getattr(seen, "os_error", None)
        seen = own if isinstance(own, PrivateAddressError) else seen.__cause__ or seen.__context__
    return None


def _refused(host: str) -> PrivateAddressError:
    return PrivateAddressError(
        f"{host} is an address of a private network and was refused; set FLEET_WEBHOOK_ALLOW_PRIVATE to allow it"
    )
