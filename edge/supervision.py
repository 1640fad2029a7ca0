"""A task that dies ends the process soon, whatever else is stuck: the service manager restarts it."""

import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from edge.records import JournalCorruptError

GOODBYE_S: Final = 0.8
"""Long enough to journal what waits; the process is gone within 1 s of a task's death."""
EXIT_CODE: Final = 70

_log = logging.getLogger(__name__)

OnFailure = Callable[[BaseException], None]


async def supervised(work: Coroutine[Any, Any, None], on_failure: OnFailure) -> None:
    """Run `work`; `on_failure` hears of its death before anything is cleaned up.

    A damaged journal is no such death: the host opens a new one and goes on.
    """
    try:
        await work
    except Exception as error:
        if not _is_damage(error):
            on_failure(error)
        raise


def _is_damage(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(JournalCorruptError) is not None
    return isinstance(error, JournalCorruptError)


class LastResort:
    """Ends the process `GOODBYE_S` after the first failure, from a thread of its own."""

    def __init__(self, leave: Callable[[int], object] = os._exit, goodbye_s: float = GOODBYE_S) -> None:
        self._leave = leave
        self._goodbye_s = goodbye_s
        self._timer: threading.Timer | None = None

    def __call__(self, error: BaseException) -> None:
        """A task died of `error`."""
        _log.critical("a task died, the process ends: %s: %s", type(error).__name__, error, exc_info=error)
        if self._timer is None:
            self._timer = threading.Timer(self._goodbye_s, self._leave, args=(EXIT_CODE,))
            self._timer.daemon = True
            self._timer.start()
