"""A victim ends itself at the passage that was asked for, and the count of it survives."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import clock
from cli.chaos.control import Control

POINT = "ingest.after_sql_commit"
OTHER = "ingest.after_puback"
VICTIM = """
import sys
from pathlib import Path
from cli.chaos.control import Control
from fleet import milestones
milestones.observe(Control(Path(sys.argv[1])).observe)
for _ in range(int(sys.argv[2])):
    milestones.reached("ingest.after_puback")
    milestones.reached("ingest.after_sql_commit")
"""


@pytest.fixture
def page(tmp_path):
    return tmp_path / "victim.control"


def run(page, passages):
    return subprocess.run(
        [sys.executable, "-c", VICTIM, str(page), str(passages)], check=False, cwd=Path(__file__).parents[2]
    ).returncode


def test_a_victim_that_is_not_armed_lives(page):
    control = Control(page)
    assert run(page, 5) == 0
    assert (control.passed(POINT), control.ended_at(POINT)) == (5, 0)


def test_it_ends_at_the_asked_passage_and_only_once(page):
    control = Control(page)
    control.arm(POINT, 3)
    assert run(page, 5) == -signal.SIGKILL
    assert (control.passed(POINT), control.passed(OTHER), control.ended_at(POINT)) == (3, 3, 1)
    assert run(page, 5) == 0
    assert (control.passed(POINT), control.ended_at(POINT), control.ended_at(OTHER)) == (8, 1, 0)


def test_disarming_spares_it(page):
    control = Control(page)
    control.arm(POINT, 1)
    control.arm(POINT, 0)
    assert run(page, 5) == 0


def test_the_clock_of_a_victim_can_be_set_wrong_while_it_runs(page, monkeypatch):
    control, victim = Control(page), Control(page)
    monkeypatch.setattr(clock, "jump", victim.clock_jump_ms)
    for speed in (1.0, 10.0):
        ticking = clock.SystemClock(speed=speed)
        before_ms, before_s = ticking.now_ms(), ticking.monotonic_s()
        control.set_clock(-315_360_000_000)
        assert ticking.now_ms() < before_ms - 315_000_000_000
        assert ticking.monotonic_s() - before_s < 60
        control.set_clock(0)
        assert 0 <= ticking.now_ms() - before_ms < 60_000 * speed
