"""The outermost layer around every request: its id, its size, where it comes from, what every answer carries.

One plain ASGI class instead of a stack of middleware, so that an answer to any failure passes through it.
"""

import re
import secrets
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.api.problem import ProblemError
from cloud.settings import CloudSettings
from cloud.web.errors import BODY_BYTES_MAX, TOO_LARGE, problem_response
from cloud.work_orders.photos import BYTES_MAX as PHOTO_BYTES_MAX
from fleet.clock import Clock

_REQUEST_ID: Final = re.compile(r"^[A-Za-z0-9-]{8,64}$")
STREAM_ROUTE: Final = "/api/v1/stream"
_PHOTO_PATH: Final = re.compile(r"^(/api/v1/work-orders/[^/]+/photos|/orders/[^/]+/photos)$")
_PHOTO_FORM_BYTES: Final = 20_000
"""What a form adds to its photo."""
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_log = structlog.get_logger(__name__)


def body_bytes_max(path: str) -> int:
    """How large a body may be there: photos of work are the only large ones."""
    return PHOTO_BYTES_MAX + _PHOTO_FORM_BYTES if _PHOTO_PATH.fullmatch(path) else BODY_BYTES_MAX


class _TooLargeError(HTTPException):
    """An HTTPException, because the framework answers 400 to anything else that is raised while it reads a body."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class _Exchange:
    """One request and its answer: counts what comes in, dresses what goes out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = headers
        self._received_bytes = 0
        self._bytes_max = body_bytes_max(scope["path"])
        self.status = 0
        """Of the answer that was begun; 0 before."""

    def admit(self, headers: Headers) -> None:
        """Raises _TooLargeError for a body that announces to be too large."""
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._bytes_max:
            raise _TooLargeError

    async def receive(self) -> Message:
        """Raises _TooLargeError as soon as a body without an announced length is too large."""
        message = await self._receive()
        self._received_bytes += len(message.get("body", b""))
        if self._received_bytes > self._bytes_max:
            raise _TooLargeError
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            answer = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                answer.setdefault(name, value)
            if not self._scope["path"].startswith("/static/"):
                answer.setdefault("cache-control", "no-store")
        await self._send(message)

    async def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem, unless an answer has begun."""
        if not self.status:
            await problem_response(problem, self._scope["path"])(self._scope, self._receive, self.send)


class Shell:
    """ASGI middleware: request id, size limit, origin check, security headers, 500 without internals, metrics."""

    def __init__(self, app: ASGIApp, *, settings: CloudSettings, clock: Clock, registry: CollectorRegistry) -> None:
        self._app = app
        self._clock = clock
        self._own_origin = _origin(settings.public_url) if settings.public_url else ""
        self._headers = security_headers(settings)
        self._requests = Counter(
            "fleet_http_requests_total", "HTTP answers", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "fleet_http_request_seconds", "Time to the end of the answer", ["route"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(scope, receive, send, {**self._headers, "x-request-id": request_id})
        started_s = self._clock.monotonic_s()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                exchange.admit(headers)
                if self._is_foreign(scope["method"], headers):
                    await exchange.refuse(ProblemError(403, "foreign_origin", "Request from another site refused"))
                else:
                    await self._app(scope, exchange.receive, exchange.send)
            except _TooLargeError:
                await exchange.refuse(TOO_LARGE)
            except Exception:  # noqa: BLE001  # the last resort: said to the log in full, to the asker in general
                _log.exception("request failed", method=scope["method"], path=scope["path"])
                detail = "Tell us the request id."
                await exchange.refuse(
                    ProblemError(500, "internal", "Something failed here", detail, request_id=request_id)
                )
            finally:
                route = _route(scope)
                self._requests.labels(scope["method"], route, str(exchange.status)).inc()
                if route != STREAM_ROUTE:  # it is meant to stay open
                    self._seconds.labels(route).observe(self._clock.monotonic_s() - started_s)

    def _is_foreign(self, method: str, headers: Headers) -> bool:
        """Whether a browser sends this write from another site; programs send neither header."""
        if method in _SAFE_METHODS:
            return False
        if headers.get("sec-fetch-site") not in {None, "same-origin", "none"}:
            return True
        origin = headers.get("origin")
        if origin is None:
            return False
        own = self._own_origin
        return origin != own if own else urlsplit(origin).netloc != headers.get("host")


def security_headers(settings: CloudSettings) -> dict[str, str]:
    """What every answer carries. Nothing inline runs; only a configured map server may be asked for pictures."""
    tiles = f" {_origin(settings.map_tiles_url)}" if settings.map_tiles_url else ""
    policy = (
        f"default-src 'self'; img-src 'self' data:{tiles}; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "permissions-policy": "geolocation=(self), camera=(self), microphone=()",
        "cross-origin-opener-policy": "same-origin",
    }
    if settings.public_url.startswith("https://"):
        headers["strict-transport-security"] = "max-age=31536000"
    return headers


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _route(scope: Scope) -> str:
    """The route's pattern: a bounded set of labels, unlike paths."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "none"))
