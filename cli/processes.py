"""Children of a command: our own processes, started, watched and ended by pid."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from cli.guard import start_of

STOP_S_MAX = 15.0


class Guard:
    """A process beside this one that ends our children and takes down their mounts when we end, however that is."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folders: set[Path] = set()

    def watch(self, process: "subprocess.Popen[bytes]", folder: Path | None = None) -> None:
        """`process` is ended with us; what was mounted below `folder` goes with us as well."""
        if folder is not None and folder.resolve() not in self._folders:
            self._folders.add(folder.resolve())
            self._say(f"folder {folder.resolve()}")
        self._say(f"process {process.pid} {start_of(process.pid)}")

    def _say(self, line: str) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))], stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()


guard = Guard()


class Child:
    """One `fleet` process with its log file; can be started again after it died."""

    def __init__(
        self, name: str, arguments: Sequence[str], log_file: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.restarts = -1
        self._arguments = [sys.executable, "-m", "cli.main", *arguments]
        self._log_file = log_file
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again)."""
        if self._log is None:
            self._log = self._log_file.open("ab")
        self.restarts += 1
        self._process = subprocess.Popen(
            self._arguments, stdout=self._log, stderr=self._log, env=self._environment,
            process_group=0,  # Ctrl-C in a terminal goes to the whole group: children end when we end them
        )  # fmt: skip
        guard.watch(self._process, self._log_file.parent)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, limit_s: float = STOP_S_MAX) -> None:
        """SIGTERM, wait, then SIGKILL."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._log is not None:
            self._log.close()
            self._log = None

    def last_words(self, lines: int = 8) -> str:
        """End of its log, for an error message."""
        if not self._log_file.exists():
            return ""
        return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-lines:])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, from /proc; 0.0 where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads_cpu_seconds(pid: int) -> float:
    """CPU time of the threads that live now, to the nanosecond where the kernel counts it so; for idle processes."""
    try:
        found = [int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()]
    except (OSError, ValueError, IndexError):
        return cpu_seconds(pid)
    return sum(found) / 1e9


def resident_mb(pid: int) -> float:
    """Largest resident set of a process so far in MB, from /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def monotonic_s() -> float:
    """Real seconds, one origin for all processes of this boot."""
    return time.monotonic()


def process_started_s() -> float:
    """Moment at which this process began, on the clock of `time.monotonic`; now, where /proc does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.monotonic()
    return time.monotonic() - max(0.0, age_s)
