"""A page of memory that the supervisor shares with one victim: what is armed, what was passed, how wrong its clock is.

It is a mapped file, so counts survive the victim's SIGKILL, a running victim can be armed without a word to it, and
what is armed while it is down waits for its start.
"""

import mmap
import os
import signal
from pathlib import Path
from typing import Final

from fleet.milestones import MILESTONES

_NUMBERS: Final = {name: number for number, name in enumerate(MILESTONES)}
_CELL_BYTES: Final = 8
_PER_MILESTONE: Final = 3
_FIRST: Final = 1  # cell 0 is the jump of the clock
_PASSED, _ARMED, _ENDED = range(_PER_MILESTONE)
SIZE_BYTES: Final = (_FIRST + _PER_MILESTONE * len(_NUMBERS)) * _CELL_BYTES


class Control:
    """Both ends of the page; the file is made where it is missing."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, SIZE_BYTES)
            self._cells = memoryview(mmap.mmap(descriptor, SIZE_BYTES)).cast("q")
        finally:
            os.close(descriptor)

    # --- the supervisor's side -----------------------------------------------------------------------------------

    def arm(self, name: str, passage: int) -> None:
        """The victim ends itself with SIGKILL at its `passage`-th arrival at the milestone from now on; 0 disarms."""
        self._cells[self._cell(name, _ARMED)] = passage

    def ended_at(self, name: str) -> int:
        """How often the victim ended itself there."""
        return self._cells[self._cell(name, _ENDED)]

    def passed(self, name: str) -> int:
        """How often the milestone was reached, by all lives of the victim."""
        return self._cells[self._cell(name, _PASSED)]

    def set_clock(self, jump_ms: int) -> None:
        """From now on the victim's business clock is wrong by so much."""
        self._cells[0] = jump_ms

    # --- the victim's side -----------------------------------------------------------------------------------------

    def observe(self, name: str) -> None:
        """The observer for `fleet.milestones`."""
        cells = self._cells
        cells[self._cell(name, _PASSED)] += 1
        armed = self._cell(name, _ARMED)
        if cells[armed] > 0:
            cells[armed] -= 1
            if cells[armed] == 0:
                cells[self._cell(name, _ENDED)] += 1
                os.kill(os.getpid(), signal.SIGKILL)

    def clock_jump_ms(self) -> int:
        """How wrong the clock is to be."""
        return self._cells[0]

    @staticmethod
    def _cell(name: str, which: int) -> int:
        return _FIRST + _PER_MILESTONE * _NUMBERS[name] + which
