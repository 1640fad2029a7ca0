"""The HTTP application: every router, every rule that holds for all of them, in one place."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.staticfiles import StaticFiles

from cloud.alarms.endpoints import router as alarms_router
from cloud.alarms.maintenance_endpoints import router as maintenance_router
from cloud.api.access import Sessions
from cloud.api.changes import SESSION_ENDED, Changes
from cloud.api.services import Services
from cloud.calls.endpoints import router as calls_router
from cloud.devices.endpoints import router as devices_router
from cloud.enrolment.endpoints import router as enrolment_router
from cloud.inbox.endpoints import router as inbox_router
from cloud.incidents.endpoints import router as incidents_router
from cloud.meals.endpoints import router as meals_router
from cloud.members.endpoints import router as members_router
from cloud.members.service import MemberService
from cloud.notifications.endpoints import router as notifications_router
from cloud.planning.endpoints import router as planning_router
from cloud.platform_alerts.endpoints import router as platform_alerts_router
from cloud.rides.endpoints import router as rides_router
from cloud.roster.endpoints import router as roster_router
from cloud.settings import CloudSettings
from cloud.supervision.endpoints import router as supervision_router
from cloud.wallet.endpoints import router as wallet_router
from cloud.web import errors, guard, operations, stream
from cloud.web.pages import routers as page_routers
from cloud.web.shell import Shell
from cloud.work_orders.endpoints import router as work_orders_router
from fleet.clock import Clock

STATIC_FOLDER: Final = Path(__file__).parent / "static"


API_ROUTERS: Final = (
    maintenance_router, incidents_router,
    members_router, devices_router, alarms_router, calls_router, supervision_router, work_orders_router,
    planning_router, rides_router, meals_router,
    wallet_router, inbox_router, notifications_router, enrolment_router, roster_router, platform_alerts_router,
)  # fmt: skip


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
    for router in [*API_ROUTERS, stream.router, operations.router, *page_routers()]:
        app.include_router(router)
    app.mount(guard.STATIC_FILES, StaticFiles(directory=STATIC_FOLDER), name="static")
    errors.install(app)
    if isinstance(sessions, MemberService):  # open streams of a closed account end at once
        sessions.on_disabled = lambda person_id: changes.publish(SESSION_ENDED, {"person_id": person_id})
    app.state.access = guard.declared_access(app.routes)
    app.add_middleware(Shell, settings=settings, clock=clock, registry=registry)
    return app
