"""A real HTTP receiver on loopback for tests: remembers what it got and answers what it was told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]


@dataclass
class HttpReceiver:
    """`answers`: statuses for the next requests, then 204. `hold`: keeps every request waiting while unset."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.Response:
        peer = request.transport.get_extra_info("peername") if request.transport else ("", 0)
        got = Got(request.path, dict(request.headers), await request.read(), peer)
        async with self.changed:
            self.got.append(got)
            self.changed.notify_all()
        await self.hold.wait()
        return web.Response(status=self.answers.pop(0) if self.answers else 204, headers=self.headers)

    async def until_about(self, word: str) -> None:
        """Until a request came whose body holds this word in quotes."""
        wanted = f'"{word}"'.encode()
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: any(wanted in got.body for got in self.got))

    async def until(self, number: int) -> None:
        """Until so many requests came."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: len(self.got) >= number)


@asynccontextmanager
async def http_receiver() -> AsyncIterator[HttpReceiver]:
    """A receiver that listens on a free port of loopback."""
    receiver = HttpReceiver()
    receiver.hold.set()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.hold.set()
        await runner.cleanup()
