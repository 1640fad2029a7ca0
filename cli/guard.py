"""Ends what a killed command leaves behind: its processes, and the small file systems it mounted.

Run as a script with nothing but the standard library; standard input says what to look after, one thing a line
(`process <pid> <start>`, `folder <path>`), and its end says that the command is gone: orderly, or by `kill -9`. What
ended by itself is not touched: a process id that was given to somebody else shows another start.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 5.0
MOUNTED_AS = "fleet-chaos"
_ESCAPED = re.compile(r"\\([0-7]{3})")  # spaces and the like in the kernel's list of mounts


def start_of(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none, or it has ended and nobody took notice."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def main() -> None:
    """Until standard input ends; then clean up."""
    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(wanted, signal.SIG_IGN)  # the command ends first, whatever ends it
    processes: dict[int, str] = {}
    folders: set[str] = set()
    for line in sys.stdin:
        what, _, rest = line.rstrip("\n").partition(" ")
        if what == "process":
            pid, _, start = rest.partition(" ")
            processes[int(pid)] = start
        elif what == "folder":
            folders.add(rest)
    _end(processes)
    _unmount(folders)


def _end(processes: dict[int, str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        left = [pid for pid, start in processes.items() if start and start_of(pid) == start]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, wanted)
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = [pid for pid in left if start_of(pid) == processes[pid]]


def _unmount(folders: set[str]) -> None:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return
    for source, shown, *_ in mounts:
        place = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), shown)
        if source == MOUNTED_AS and any(place.startswith(f"{folder}/") for folder in folders):
            with contextlib.suppress(OSError):
                subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


if __name__ == "__main__":
    main()
