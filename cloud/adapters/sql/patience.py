"""Which errors of a database pass by themselves, and how long one waits for that.

A worker (pipeline, outbox, deadlines) has nobody to tell and waits for ever; a person's request waits a moment and is
then refused. Who is a worker says so once, with `endless`; the tasks it starts inherit it.
"""

from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

T = TypeVar("T")

WAIT_S_FIRST: Final = 0.05
WAIT_S_MAX: Final = 1.0
TRIES_OF_A_REQUEST: Final = 4

_ENDLESS: ContextVar[bool] = ContextVar("endless_patience", default=False)
_SQLITE_PASSING: Final = (
    "locked", "busy", "disk is full", "disk i/o error", "unable to open database file", "readonly database",
)  # fmt: skip
# PostgreSQL: connection lost or refused, resources or disk used up, shut down or starting, a lock not to be had.
_SQLSTATES_PASSING: Final = ("08", "53", "57P", "55P03", "58")


async def endless(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` in the running task, whose database then is waited for as long as it takes."""
    token = _ENDLESS.set(True)
    try:
        return await work
    finally:
        _ENDLESS.reset(token)


def may_try_again(error: Exception, tries: int) -> bool:
    """Whether to try once more after `tries` that ended with `error`."""
    return passes(error) and (_ENDLESS.get() or tries < TRIES_OF_A_REQUEST)


def is_endless() -> bool:
    """Whether the running task waits for ever."""
    return _ENDLESS.get()


def wait_s(tries: int) -> float:
    """Real seconds before the next try."""
    return float(min(WAIT_S_MAX, WAIT_S_FIRST * 2.0 ** min(tries - 1, 16)))


def passes(error: Exception) -> bool:
    """Whether it is about the database being away, locked or full; not about what was asked of it."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    if type(error.orig).__module__.startswith("sqlite3"):
        text = str(error.orig).lower()
        return any(part in text for part in _SQLITE_PASSING)
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(_SQLSTATES_PASSING)
