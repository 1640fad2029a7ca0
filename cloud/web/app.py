"""The HTTP application: every router, every rule that holds for all of them, in one place."""

import importlib
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.staticfiles import StaticFiles

from cloud.api.access import Sessions
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.devices.endpoints import router as devices_router
from cloud.members.endpoints import router as members_router
from cloud.settings import CloudSettings
from cloud.web import errors, guard, operations, stream
from cloud.web.pages import routers as page_routers
from cloud.web.shell import Shell
from fleet.clock import Clock

STATIC_FOLDER: Final = Path(__file__).parent / "static"


async def _always_ready() -> dict[str, str]:
    return {"http": "ok"}


def create_app(
    services: Services,
    settings: CloudSettings,
    *,
    sessions: Sessions,
    changes: Changes,
    clock: Clock,
    registry: CollectorRegistry,
    ready: operations.Ready = _always_ready,
) -> FastAPI:
    """The application over the services that `bootstrap` made.

    Raises:
        RuntimeError: a route does not declare who may use it; the message names it.
    """
    app = FastAPI(title="Fleet", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.services = services
    app.state.settings = settings
    app.state.sessions = sessions
    app.state.changes = changes
    app.state.clock = clock
    app.state.registry = registry
    app.state.ready = ready
    for router in [*_api_routers(), stream.router, operations.router, *page_routers()]:
        app.include_router(router)
    app.mount(guard.STATIC_FILES, StaticFiles(directory=STATIC_FOLDER), name="static")
    errors.install(app)
    app.state.access = guard.declared_access(app.routes)
    app.add_middleware(Shell, settings=settings, clock=clock, registry=registry)
    return app


def _api_routers() -> list[APIRouter]:
    routers = [members_router, devices_router]
    for name in ("alarms", "calls", "work_orders", "rides", "meals", "wallet"):
        try:
            routers.append(importlib.import_module(f"cloud.{name}.endpoints").router)
        except ModuleNotFoundError:
            continue
    return routers
