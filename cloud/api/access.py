"""Who asks, and whether they may. Every route declares it, or the application refuses to start.

person: Annotated[Person, Depends(allow("crew", "admin"))]
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, cast

from fastapi import Request

from cloud.api.problem import ProblemError

SESSION_COOKIE: Final = "__Host-fleet-session"
SESSION_COOKIE_PLAIN_HTTP: Final = "fleet-session"  # a `__Host-` cookie needs HTTPS; the demo on loopback has none
CSRF_HEADER: Final = "x-csrf-token"


class Role(StrEnum):
    """What a signed-in person is here for."""

    EMPLOYEE = "employee"
    CREW = "crew"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Person:
    """The person behind a request."""

    id: str
    login: str
    name: str
    role: Role
    language: str
    csrf_token: str = ""


class Sessions(Protocol):
    """Resolves the session cookie or bearer token of a request (`cloud/members/`)."""

    async def person_of(self, request: Request) -> Person | None: ...


def allow(*roles: str) -> Callable[[Request], Awaitable[Person]]:
    """Dependency that answers 401 without a session, 403 for another role, 403 for a write without its CSRF token.

    Requests with an `Authorization: Bearer` token carry no cookie and need no CSRF token.
    """
    allowed = frozenset(Role(role) for role in roles)

    async def signed_in(request: Request) -> Person:
        person = await cast(Sessions, request.app.state.sessions).person_of(request)
        if person is None:
            raise ProblemError(401, "sign_in_first", "Not signed in", "Sign in at /login or POST /api/v1/session.")
        if person.role not in allowed:
            raise ProblemError(
                403, "not_allowed", "Not allowed", f"This needs the role {' or '.join(sorted(allowed))}."
            )
        if request.method not in {"GET", "HEAD", "OPTIONS"} and "authorization" not in request.headers:
            token = request.headers.get(CSRF_HEADER) or await _form_token(request)
            if not token or token != person.csrf_token:
                raise ProblemError(403, "csrf", "Request not confirmed", "Reload the page and try again.")
        return person

    signed_in.allowed_roles = allowed  # type: ignore[attr-defined]  # the start-up check reads it
    return signed_in


def public(reason: str) -> Callable[[Request], Awaitable[None]]:
    """Dependency of a route that needs no session; the reason stands in the code."""

    async def anyone(request: Request) -> None:
        del request

    anyone.public_reason = reason  # type: ignore[attr-defined]
    return anyone


async def _form_token(request: Request) -> str:
    if not request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        return ""
    form: Any = await request.form()
    return str(form.get("csrf_token", ""))
