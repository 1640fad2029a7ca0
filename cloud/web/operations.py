"""For whoever runs it: alive, ready, metrics, and the description of the API."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from cloud.api.access import public

Ready = Callable[[], Awaitable[dict[str, str]]]
"""Checks by name; "ok", or what is wrong."""

router = APIRouter()


@router.get("/healthz", dependencies=[Depends(public("the supervisor asks before anybody can sign in"))])
async def healthz() -> PlainTextResponse:
    """The process answers."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", dependencies=[Depends(public("the load balancer asks; names of checks only"))])
async def readyz(request: Request) -> JSONResponse:
    """200 if every part that this process needs works, else 503; which one, stands in the answer."""
    checks = await cast(Ready, request.app.state.ready)()
    healthy = all(result == "ok" for result in checks.values())
    return JSONResponse({"ready": healthy, "checks": checks}, 200 if healthy else 503)


@router.get("/metrics", dependencies=[Depends(public("scraped over loopback; the proxy does not pass it on"))])
def metrics(request: Request) -> Response:
    """Prometheus text."""
    registry = cast(CollectorRegistry, request.app.state.registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/api/v1/openapi.json", include_in_schema=False, dependencies=[Depends(public("describes the API, holds no data"))]
)
def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    return JSONResponse(document)


def operations_app(registry: CollectorRegistry, ready: Ready) -> FastAPI:
    """All that a process without pages and API answers."""
    app = FastAPI(title="Fleet", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.registry = registry
    app.state.ready = ready
    app.include_router(router)
    return app
