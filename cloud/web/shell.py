"""The outermost layer around every request: its id, its size, where it comes from, what every answer carries.

One plain ASGI class instead of a stack of middleware, so that an answer to any failure passes through it.
"""

import re
import secrets
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.api.problem import ProblemError
from cloud.settings import CloudSettings
from cloud.web.errors import problem_response
from fleet.clock import Clock

BODY_BYTES_MAX: Final = 1_000_000
_REQUEST_ID: Final = re.compile(r"^[A-Za-z0-9-]{8,64}$")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_log = structlog.get_logger(__name__)


class _TooLargeError(Exception):
    pass


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
            "fleet_http_request_seconds", "Time to the start of the answer", ["route"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        started_s = self._clock.monotonic_s()
        status = 0
        received_bytes = 0

        async def counted_receive() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > BODY_BYTES_MAX:
                raise _TooLargeError
            return message

        async def dressed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = request_id
                for name, value in self._headers.items():
                    answer.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    answer.setdefault("cache-control", "no-store")
                self._seconds.labels(_route(scope)).observe(self._clock.monotonic_s() - started_s)
            await send(message)

        async def refuse(problem: ProblemError) -> None:
            if not status:
                await problem_response(problem, scope["path"])(scope, receive, dressed_send)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if int(headers.get("content-length") or 0) > BODY_BYTES_MAX:
                    raise _TooLargeError  # noqa: TRY301  # one answer for both ways to be too large
                if self._is_foreign(scope["method"], headers):
                    await refuse(ProblemError(403, "foreign_origin", "Request from another site refused"))
                else:
                    await self._app(scope, counted_receive, dressed_send)
            except _TooLargeError:
                await refuse(ProblemError(413, "too_large", "Too large", f"Send at most {BODY_BYTES_MAX} bytes."))
            except Exception:
                _log.exception("request failed", method=scope["method"], path=scope["path"])
                await refuse(
                    ProblemError(
                        500, "internal", "Something failed here", "Tell us the request id.", request_id=request_id
                    )
                )
            finally:
                self._requests.labels(scope["method"], _route(scope), str(status)).inc()

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
