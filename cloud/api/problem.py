"""Errors of the API after RFC 9457: `application/problem+json` with type, title, status, detail and our `code`."""

from typing import Any


class ProblemError(Exception):
    """A request that is answered with an error.

    `code` is a stable word for programs (`bike_busy`), `detail` names the fix for people.
    """

    def __init__(self, status: int, code: str, title: str, detail: str = "", **extra: Any) -> None:
        super().__init__(f"{status} {code}: {detail or title}")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.extra = extra

    def body(self, instance: str) -> dict[str, Any]:
        """The JSON object of the answer."""
        return {
            "type": f"urn:fleet:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "instance": instance,
            **self.extra,
        }


def not_found(what: str, identity: str) -> ProblemError:
    """404 for an object that does not exist or is not the asker's to see."""
    return ProblemError(404, "not_found", f"No such {what}", f"There is no {what} {identity!r} that you may see.")


def conflict(code: str, detail: str) -> ProblemError:
    """409 for something that is not possible now."""
    return ProblemError(409, code, "Not possible now", detail)
