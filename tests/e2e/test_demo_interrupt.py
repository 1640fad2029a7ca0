"""Ctrl-C in a terminal goes to every process of its group: the demo must still end in order and leave nothing."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo_process import TREE, needs_mosquitto

pytestmark = [pytest.mark.e2e, pytest.mark.mosquitto]

UP_S_MAX = 60.0


def living(word):
    """Processes whose command line has the word."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if word in words and int(process.name) != os.getpid():
            found.append(words.replace("\0", " "))
    return found


@pytest.mark.parametrize("moment", ["Preparing", "sign in as admin"])
def test_ctrl_c_ends_the_children_and_removes_the_temporary_folder(tmp_path, moment):
    needs_mosquitto()
    arguments = ["demo", "--json", "--port", "0", "--count", "bike=2", "--count", "meal_machine=1"]
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments, "--count", "nursing_room=0"], cwd=TREE,
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as demo:  # fmt: skip
        words, deadline = "", time.monotonic() + UP_S_MAX
        while moment not in words:
            ready, _, _ = select.select([demo.stderr], [], [], max(0.0, deadline - time.monotonic()))
            chunk = demo.stderr.read1().decode() if ready else ""
            words += chunk
            assert chunk, words
        os.killpg(demo.pid, signal.SIGINT)
        _, rest = demo.communicate(timeout=UP_S_MAX)
    assert demo.returncode == 130, words + rest.decode()
    assert "Traceback" not in rest.decode()
    assert living(str(tmp_path)) == []
    assert list(tmp_path.glob("fleet-demo-*")) == []
