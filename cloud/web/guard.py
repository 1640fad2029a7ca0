"""Deny by default: a route that does not say who may use it stops the start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute, Mount

STATIC_FILES = "/static"


@dataclass(frozen=True, slots=True)
class Access:
    """What one route declares: the roles it allows, or why it is public."""

    path: str
    methods: frozenset[str]
    roles: frozenset[str] | None
    public_reason: str | None


def declared_access(routes: Sequence[BaseRoute]) -> list[Access]:
    """The access of every route.

    Raises:
        RuntimeError: a route declares neither `allow(…)` nor `public(…)`, or both; the message names it.
    """
    found = []
    for context in iter_route_contexts(routes):
        route = context.original_route
        if isinstance(route, Mount) and route.path == STATIC_FILES:
            found.append(Access(route.path, frozenset({"GET", "HEAD"}), None, "style sheets, scripts and pictures"))
            continue
        path = str(context.path)
        if not isinstance(route, APIRoute):
            raise RuntimeError(f"route {path!r} can't declare who may use it; make it an API route")  # noqa: TRY004  # one error for all
        calls = list(_calls(context.dependant))
        roles = [frozenset(map(str, call.allowed_roles)) for call in calls if hasattr(call, "allowed_roles")]
        reasons = [str(call.public_reason) for call in calls if hasattr(call, "public_reason")]
        methods = frozenset(context.methods or ())
        if bool(roles) == bool(reasons):
            raise RuntimeError(
                f"route {','.join(sorted(methods))} {path}: add Depends(allow(…)) or Depends(public(reason)), not both"
            )
        allowed = frozenset.intersection(*roles) if roles else None
        found.append(Access(path, methods, allowed, reasons[0] if reasons else None))
    return found


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)
