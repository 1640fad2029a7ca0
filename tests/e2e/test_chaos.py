"""The short chaos run through the command line: every named point hit, nothing lost, nothing doubled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.milestones import MILESTONES

pytestmark = [pytest.mark.e2e, pytest.mark.mosquitto]

ROOT = Path(__file__).parents[2]
RUN_S_MAX = 600
"""The run takes two to three minutes on two cores; beside other tests longer."""


def chaos(*arguments, timeout=RUN_S_MAX):
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "chaos", *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


@pytest.mark.timeout(RUN_S_MAX + 10)
def test_34_kills_and_every_weather_lose_and_double_nothing(tmp_path):
    done = chaos("--seed", "1", "--json", "--resume", str(tmp_path / "run"), "--devices", "nursing_room=24",
                 "--devices", "bike=4")  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    figures = json.loads(done.stdout)
    assert (figures["seed"], figures["lost"], figures["doubled"]) == (1, 0, 0)
    assert figures["kills"] >= 30
    assert figures["presses"] > 100
    assert figures["telemetry_points"] > 500
    assert set(figures["press_to_notified_ms"]) == {"p50", "p99", "max"}
    assert figures["recovered_s_max"] > 0
    impossible = {"edge.reserve.after_write"} if os.geteuid() else set()
    assert {name for name, hits in figures["crash_points"].items() if hits} >= set(MILESTONES) - impossible
    assert figures["classes"]["commands"]["happened"] > 0
    assert figures["classes"]["telemetry"]["happened"] > 100
    assert "fleet chaos --seed 1" in done.stderr
    assert json.loads((tmp_path / "run" / "totals.json").read_text())["rounds"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--devices", "bicycle=3"), "unknown kind bicycle"),
        (("--faults", "quake"), "unknown quake; known: all, none, cut"),
        (("--for", "soon"), "write a time such as 60s, 5m or 1h"),
        (("--scenario", "doom"), "unknown 'doom'; known: everything, calm"),
    ],
)
def test_a_wrong_option_ends_with_one_line(arguments, words):
    done = chaos(*arguments, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr
    assert not done.stdout
