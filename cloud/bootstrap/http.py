"""Pages, API and health over HTTP; the server's end is the process's end."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cloud.adapters.sql.database import SqlDatabase
from cloud.bootstrap import heap
from cloud.bootstrap.parts import Parts
from cloud.web.operations import operations_app

GRACEFUL_STOP_S: Final = 3
CHECK_S_MAX: Final = 2.0


async def serve_http(parts: Parts) -> None:
    """Serve until a signal. Raises StoppedError then, which ends the group of tasks."""
    settings = parts.settings
    config = uvicorn.Config(
        _application(parts), host=settings.http_host, port=settings.http_port, log_config=None, access_log=False,
        lifespan="off", timeout_graceful_shutdown=GRACEFUL_STOP_S, server_header=False,
        proxy_headers=True, forwarded_allow_ips=settings.forwarded_allow_ips,
    )  # fmt: skip
    server = _Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    heap.settle()
    await server.serve()
    raise StoppedError


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again when it is done, and that ends us before we have let go."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _application(parts: Parts) -> FastAPI:
    async def ready() -> dict[str, str]:
        return {"database": await _reachable(parts.database)} | {name: check() for name, check in parts.checks.items()}

    if "api" not in parts.roles:
        return operations_app(REGISTRY, ready)
    from cloud.web.app import create_app  # noqa: PLC0415  # pages and templates: only where people come

    return create_app(
        parts.services, parts.settings, sessions=parts.sessions, changes=parts.changes, clock=parts.around.clock,
        registry=REGISTRY, ready=ready,
    )  # fmt: skip


async def _reachable(database: SqlDatabase) -> str:
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            await database.read(lambda tx: tx.execute(text("SELECT 1")).scalar_one())
    except (TimeoutError, DBAPIError):
        return "not reachable"
    return "ok"


class StoppedError(Exception):
    """Ends the task group after a signal."""
