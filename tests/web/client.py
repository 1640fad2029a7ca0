"""HTTP against the application in this process, as one of the world's people."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from cloud.api.access import CSRF_HEADER
from tests.web.world import PASSWORD, World


@asynccontextmanager
async def client(
    world: World, login: str = "", base_url: str = "http://fleet.test"
) -> AsyncIterator[httpx.AsyncClient]:
    """A browser-like client; with `login` it is signed in and confirms its writes."""
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as made:
        if login:
            answer = await made.post("/api/v1/session", json={"login": login, "password": PASSWORD})
            assert answer.status_code == 201, answer.text
            made.headers[CSRF_HEADER] = answer.json()["csrf_token"]
        yield made
