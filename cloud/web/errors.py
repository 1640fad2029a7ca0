"""Every error of the API as `application/problem+json` (RFC 9457); pages get a page with the same words."""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from cloud.api.problem import ProblemError
from cloud.web.language import language_of
from cloud.web.templating import render

_log = structlog.get_logger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
BODY_BYTES_MAX: Final = 1_000_000
AWAY: Final = ProblemError(
    503, "database_away", "Not available now", "The database can't be reached; try again.", retry_after_s=2
)
TOO_LARGE: Final = ProblemError(413, "too_large", "Too large", f"Send at most {BODY_BYTES_MAX} bytes.")
_MACHINE_PATHS = ("/api/", "/static/", "/healthz", "/readyz", "/metrics")


def problem_response(problem: ProblemError, instance: str) -> JSONResponse:
    """The answer for programs."""
    headers = {}
    if "retry_after_s" in problem.extra:
        headers["retry-after"] = str(problem.extra["retry_after_s"])
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(problem.body(instance), problem.status, headers, media_type=PROBLEM_JSON)


def is_for_people(path: str) -> bool:
    """Whether a path is a page rather than an interface for programs."""
    return not path.startswith(_MACHINE_PATHS)


def validation_problem(error: RequestValidationError) -> ProblemError:
    """What was wrong with the input, without repeating the input: it may hold a secret."""
    wrong: list[dict[str, Any]] = [
        {"where": ".".join(map(str, one["loc"])), "what": one["msg"], "type": one["type"]} for one in error.errors()
    ]
    detail = "; ".join(f"{one['where']}: {one['what']}" for one in wrong[:5])
    return ProblemError(422, "invalid_input", "Input not valid", detail, errors=wrong)


def install(app: FastAPI) -> None:
    """Register the handlers."""

    async def answer(request: Request, problem: ProblemError) -> Response:
        path = request.url.path
        if not is_for_people(path):
            return problem_response(problem, path)
        if problem.status == HTTPStatus.UNAUTHORIZED and path != "/login":
            target = path + (f"?{request.url.query}" if request.url.query else "") if request.method == "GET" else "/"
            return RedirectResponse(f"/login?next={quote(target, safe='/')}", HTTPStatus.SEE_OTHER)
        return render("problem.html", language_of(request, None), problem.status, problem=problem, person=None)

    @app.exception_handler(ProblemError)
    async def on_problem(request: Request, error: ProblemError) -> Response:
        return await answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return await answer(request, validation_problem(error))

    @app.exception_handler(OperationalError)
    async def on_database_away(request: Request, error: OperationalError) -> Response:
        _log.error("request refused: the database can't be used", path=request.url.path, error=str(error.orig))
        return await answer(request, AWAY)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == TOO_LARGE.status:
            return await answer(request, TOO_LARGE)
        status = HTTPStatus(error.status_code)
        code = status.name.lower()
        detail = f"There is nothing at {request.url.path}." if status == HTTPStatus.NOT_FOUND else ""
        response = await answer(request, ProblemError(status.value, code, status.phrase, detail))
        response.headers.update(error.headers or {})
        return response
