"""A bound on the CPU of single processes: a control group where one may be made, else pauses.

Neither a processor of its own (taskset) nor `nice` would bound anything on a machine that is not busy: one process
would then have all that is there, and a second could not add to it.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cli.processes import cpu_seconds

PERIOD_US: Final = 20_000
"""Short, so that a process at its bound waits for milliseconds."""
_ROOTS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_FIRST_VERSION: Final = Path("/sys/fs/cgroup/cpu")
PAUSE_S: Final = 0.01


class CpuShare:
    """`with CpuShare(20, name) as share: share.bound(pid)`: 20 % of one CPU for each process, until the end.

    `how` says by what means.
    """

    def __init__(self, percent: float, name: str) -> None:
        self._percent = percent
        self._name = name
        self._groups: list[Path] = []
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.how = ""

    def __enter__(self) -> Self:
        return self

    def bound(self, pid: int) -> None:
        """From now on `pid` gets no more than its share."""
        quota_us = round(self._percent / 100 * PERIOD_US)
        name = f"fleet-{self._name}-{os.getpid()}-{len(self._groups)}"
        for root in _ROOTS:
            if self._put(root / name, pid, {"cpu.max": f"{quota_us} {PERIOD_US}"}):
                self.how = f"cgroup v2, cpu.max {quota_us} {PERIOD_US}"
                return
        wanted = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
        if self._put(_FIRST_VERSION / name, pid, wanted):
            self.how = f"cgroup v1, cpu.cfs_quota_us {quota_us} of {PERIOD_US}"
            return
        self.how = f"paused by signal whenever above {self._percent:g} % (no control group can be made here)"
        thread = threading.Thread(target=self._pause, args=(pid,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _put(self, group: Path, pid: int, wanted: dict[str, str]) -> bool:
        if not group.parent.is_dir():
            return False
        try:
            group.mkdir()
        except OSError:
            return False
        try:
            for name, text in wanted.items():
                if not (group / name).exists():  # the controller is not there, and a plain file would bound nobody
                    raise FileNotFoundError(name)
                (group / name).write_text(text)
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            return False
        self._groups.append(group)
        return True

    def _pause(self, pid: int) -> None:
        began_s, began_cpu_s = time.monotonic(), cpu_seconds(pid)
        with suppress(ProcessLookupError):
            while not self._ended.wait(PAUSE_S):
                allowed_s = (time.monotonic() - began_s) * self._percent / 100
                used_s = cpu_seconds(pid) - began_cpu_s
                os.kill(pid, signal.SIGSTOP if used_s > allowed_s else signal.SIGCONT)
            os.kill(pid, signal.SIGCONT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """To be left after the processes have ended, or while they may have all there is again."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for group in self._groups:
            with suppress(OSError):
                for pid in (group / "cgroup.procs").read_text().split():
                    (group.parent / "cgroup.procs").write_text(pid)
                group.rmdir()
