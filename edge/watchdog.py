"""Feeds the service manager's watchdog only while everything that must make progress does.

Three things can be stuck without ending: the event loop (then this does not run), the journal's thread (a disk that
answers no more) and the line task (a driver or a journal it waits for). In each case feeding stops, and the service
manager kills and restarts the process; journalled events are sent again afterwards.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from edge.notify import ServiceManager
from edge.records import JournalError

FEEDS_PER_PERIOD: Final = 4
"""So that three checks may be late before the manager loses patience."""
LINE_WORK_S_MAX: Final = 30.0
"""One piece of the line task's work: handling of what the hardware said, with its commit."""

_log = logging.getLogger(__name__)


AskJournal = Callable[[], Awaitable[object]]


async def journal_answers(ask: AskJournal, patience_s: float) -> bool:
    """Whether the journal's thread took a question and came back within `patience_s`."""
    try:
        async with asyncio.timeout(patience_s):
            await ask()
    except TimeoutError:
        return False
    except (JournalError, RuntimeError):  # an answer too: a full, damaged or reopened journal is handled elsewhere
        return True
    return True


class Watchdog:
    """`run` feeds until cancelled; a check that fails is logged once, and feeding resumes when it passes again."""

    def __init__(
        self,
        manager: ServiceManager,
        ask_journal: AskJournal,
        lines_busy_s: Callable[[], Mapping[str, float]],
        describe: Callable[[], str],
        *,
        line_work_s_max: float = LINE_WORK_S_MAX,
    ) -> None:
        """Nothing runs yet.

        Args:
            manager: who is told.
            ask_journal: puts a question to the journal's thread.
            lines_busy_s: device id → seconds its line task has been at one piece of work.
            describe: one line about how things are, shown by `systemctl status`.
            line_work_s_max: a piece of work that takes longer is stuck.
        """
        self._manager = manager
        self._ask_journal = ask_journal
        self._lines_busy_s = lines_busy_s
        self._describe = describe
        self._line_work_s_max = line_work_s_max
        self.stuck = ""
        """What makes no progress; empty when all is well."""

    async def run(self, pause_s: float) -> None:
        """Check and feed every `pause_s`; the journal has as long to answer."""
        while True:
            await self.look(pause_s)
            await asyncio.sleep(pause_s)

    async def look(self, patience_s: float) -> None:
        """One check, and its word to the manager."""
        stuck = self._stuck_line()
        if not stuck and not await journal_answers(self._ask_journal, patience_s):
            stuck = "the journal's thread does not answer; is the disk dying?"
        if stuck and stuck != self.stuck:
            _log.error("no progress: %s", stuck)
        elif self.stuck and not stuck:
            _log.warning("progress again after: %s", self.stuck)
        self.stuck = stuck
        if stuck:
            self._manager.unwell(stuck)
        else:
            self._manager.alive(self._describe())

    def _stuck_line(self) -> str:
        for device_id, seconds in self._lines_busy_s().items():
            if seconds > self._line_work_s_max:
                return f"the line task of {device_id} has been at one piece of work for {seconds:.0f} s"
        return ""
