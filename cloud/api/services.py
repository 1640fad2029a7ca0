"""How endpoints reach the services that `bootstrap` made: `Annotated[RideService, Depends(service(RideService))]`."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from fastapi import Request

from cloud.api.problem import ProblemError

T = TypeVar("T")


class Services:
    """Services by their type; filled by `bootstrap`, read by endpoints."""

    def __init__(self) -> None:
        self._by_type: dict[type[Any], Any] = {}

    def add(self, instance: Any, *, as_type: type[Any] | None = None) -> None:
        """Offer `instance` under its own type, or under `as_type`."""
        self._by_type[as_type or type(instance)] = instance

    def get(self, kind: type[T]) -> T:
        """The instance offered as `kind`; raises ProblemError 503 in a process without that role."""
        try:
            return cast(T, self._by_type[kind])
        except KeyError:
            detail = f"This process was started without the role that offers {kind.__name__}; ask one that has it."
            raise ProblemError(503, "role_not_here", "Not offered by this process", detail) from None


def service(kind: type[T]) -> Callable[[Request], T]:
    """FastAPI dependency that hands out the service of that type."""

    def provide(request: Request) -> T:
        return cast(Services, request.app.state.services).get(kind)

    return provide
