"""The real code on virtual time: one seed is one run, clean seeds keep every promise, planted bugs are noticed."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from cli.simulate.bugs import BUGS
from cli.simulate.plan import SQUALL, STORM
from cli.simulate.simulation import simulate

SEEDS_MAX = 3
QUICK_BUGS = (
    "deleted_when_the_broker_has_it",
    "expired_commands_accepted",
    "journal_not_durable",
    "pending_lost_with_a_new_generation",
    "wall_clock_trusted",
    "window_dropped_on_reconnect",
)


def digest_elsewhere(hash_seed):
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "simulate", "--seed", "5", "--days", "0.0005", "--json"],
        capture_output=True, text=True, timeout=90, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )  # fmt: skip
    return json.loads(done.stdout)["runs"][0]["digest"]


def test_one_seed_is_one_run_in_every_process():
    here = simulate(5, replace(STORM, duration_s=43.2))
    assert digest_elsewhere("1") == digest_elsewhere("2") == here.digest
    assert here.counts["presses"] > 0
    assert here.counts["points"] > 0
    assert here.counts["trace_fault"] > 0


@pytest.mark.parametrize("seed", [1, 2, 3, 5])
def test_clean_seeds_keep_every_promise(seed):
    result = simulate(seed, SQUALL)
    assert result.violations == []
    assert result.counts["notifications"] > 0
    assert result.counts["actuations"] > 0
    assert result.counts["trace_fault"] >= 10


@pytest.mark.parametrize("name", QUICK_BUGS)
def test_planted_bugs_are_noticed(name):
    assert any(not simulate(seed, SQUALL, bug=BUGS[name]()).passed for seed in range(1, SEEDS_MAX + 1))


def test_an_unknown_bug_is_a_usage_error():
    command = [sys.executable, "-m", "cli.main", "simulate", "--bug", "none-such"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "known:" in done.stderr
