"""Tells people that calls would not arrive, on ways that do not lead through the cloud.

An address is HTTP, or anything that apprise knows (mail, SMS, voice, chat). Each is tried a few times on its own;
none waits for another.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import structlog

from cloud.supervision.chain import Announcement

_log = structlog.get_logger(__name__)

TRIES: Final = 5
WAIT_S: Final = (0.5, 1.0, 2.0, 4.0)
TIMEOUT_S: Final = 5.0


class Voice:
    """`say` returns at once; `run` must be running."""

    def __init__(self, urls: Sequence[str], *, source: str) -> None:
        """`source`: which deployment speaks. Raises ValueError for an address that nobody understands."""
        self._urls = tuple(dict.fromkeys(urls))
        self._source = source
        self._waiting: asyncio.Queue[tuple[str, Announcement]] = asyncio.Queue(256)
        self._services: dict[str, Any] = {}
        self.told = 0
        self.failed = 0
        for url in self._urls:
            if not url.startswith(("http://", "https://")):
                self._services[url] = _apprise(url)

    def say(self, announcement: Announcement) -> None:
        """To every address; the oldest of too many is given up, with a line in the log."""
        for url in self._urls:
            if self._waiting.full():
                self._waiting.get_nowait()
                self.failed += 1
                _log.error("an announcement was given up: too many wait")
            self._waiting.put_nowait((url, announcement))

    async def run(self) -> None:
        """Deliver until cancelled; a hanging address holds one worker, never all."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for _ in range(max(1, len(self._urls))):
                group.create_task(self._work(session))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            url, announcement = await self._waiting.get()
            for attempt in range(TRIES):
                error = await self._send(session, url, announcement)
                if not error:
                    self.told += 1
                    break
                _log.warning("announcement not taken", way=url.partition("://")[0], error=error, attempt=attempt + 1)
                if attempt < len(WAIT_S):
                    await asyncio.sleep(WAIT_S[attempt])
            else:
                self.failed += 1

    async def _send(self, session: aiohttp.ClientSession, url: str, announcement: Announcement) -> str:
        service = self._services.get(url)
        try:
            if service is not None:
                async with asyncio.timeout(4 * TIMEOUT_S):
                    return await asyncio.to_thread(_notify, service, self._source, announcement)
            body = {"source": self._source, **announcement.document()}
            async with session.post(url, json=body, allow_redirects=False) as answer:
                return "" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"


def _apprise(url: str) -> Any:
    import apprise

    service = apprise.Apprise()
    if not service.add(url):
        raise ValueError(f"watchdog_urls: apprise does not understand this {url.partition('://')[0]!r} address")
    return service


def _notify(service: Any, source: str, announcement: Announcement) -> str:
    title = announcement.title
    body = f"{title.en}\n{announcement.reason}".strip()
    with service.notify(title=f"[{source}] {title.zh}", body=body, body_format="text") as result:
        return "" if result else "not taken"
