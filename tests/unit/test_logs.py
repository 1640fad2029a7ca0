"""Logs hold what went wrong and where, never what the code held in its hands."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import structlog
from cloud import logs

logs.configure("info")

def answer(cookie):
    raise ValueError("no answer")

try:
    answer("very-" + "secret")
except ValueError:
    structlog.get_logger("test").exception("a request failed")
"""
ROOT = Path(__file__).parents[2]


def test_a_traceback_shows_no_local_variables():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    entry = json.loads(done.stderr)
    assert entry["event"] == "a request failed"
    assert entry["exception"][0]["exc_type"] == "ValueError"
    assert [frame["name"] for frame in entry["exception"][0]["frames"]][-1] == "answer"
    assert "very-secret" not in done.stderr
