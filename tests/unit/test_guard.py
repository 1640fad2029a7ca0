"""A command that is killed leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.guard import MOUNTED_AS, start_of

PARENT = """
import subprocess, sys, time
from pathlib import Path
from cli.processes import guard
children = [subprocess.Popen([sys.executable, "-c", program]) for program in sys.argv[2:]]
for child in children:
    guard.watch(child, Path(sys.argv[1]))
print(*(child.pid for child in children), guard._process.pid, flush=True)
time.sleep(float(sys.stdin.readline()))
"""
OBEYS = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def gone(pids, within_s=20.0):
    deadline = time.monotonic() + within_s
    while any(start_of(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("ending", [None, signal.SIGKILL, signal.SIGTERM])
def test_children_and_guard_end_with_a_command_however_it_ends(tmp_path, ending):
    root = Path(__file__).parent.parent.parent
    stranger = subprocess.Popen([sys.executable, "-c", OBEYS])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), OBEYS, STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=root,
    )  # fmt: skip
    try:
        line = parent.stdout.readline()
        while not line[:1].isdigit():  # the stubborn child speaks as well
            line = parent.stdout.readline()
        pids = [int(word) for word in line.split()]
        assert all(start_of(pid) for pid in pids)
        if ending is None:
            parent.stdin.write(b"0\n")
            parent.stdin.flush()
        else:
            parent.send_signal(ending)
        assert parent.wait() == (0 if ending is None else -ending)
        assert gone(pids)
        assert stranger.poll() is None, "nobody else is touched"
    finally:
        parent.kill()
        parent.stdin.close()
        parent.stdout.close()
        stranger.kill()
        stranger.wait()


def test_a_process_id_that_was_given_to_somebody_else_is_left_alone(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", OBEYS])
    try:
        script = Path(__file__).parent.parent.parent / "cli" / "guard.py"
        lines = f"process {other.pid} 1\nfolder {tmp_path}\n".encode()
        subprocess.run([sys.executable, "-I", "-S", str(script)], input=lines, check=True, timeout=30)
        assert other.poll() is None
        assert os.path.exists(f"/proc/{other.pid}")  # noqa: PTH110
    finally:
        other.kill()
        other.wait()


def mounted():
    return {line.split()[1].replace("\\040", " ") for line in Path("/proc/mounts").read_text().splitlines()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system (sudo make test)")
def test_small_file_systems_of_a_killed_command_are_taken_down_and_no_others(tmp_path):
    ours, foreign, elsewhere = tmp_path / "a round" / "full", tmp_path / "a round" / "foreign", tmp_path / "other"
    for place, name in ((ours, MOUNTED_AS), (foreign, "somebody"), (elsewhere, MOUNTED_AS)):
        place.mkdir(parents=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", name, place], check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"this machine mounts nothing: {done.stderr.decode().strip()}")
    try:
        script = Path(__file__).parent.parent.parent / "cli" / "guard.py"
        lines = f"folder {tmp_path / 'a round'}\n".encode()
        subprocess.run([sys.executable, "-I", "-S", str(script)], input=lines, check=True, timeout=30)
        assert str(ours) not in mounted()
        assert {str(foreign), str(elsewhere)} <= mounted()
    finally:
        for place in (ours, foreign, elsewhere):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
