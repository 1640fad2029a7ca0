"""Ingesters on one PostgreSQL and one broker are killed, frozen beyond their lease, added and removed under load."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.postgresql, pytest.mark.mosquitto, pytest.mark.e2e]

FAULTS = 6


@pytest.mark.timeout(300)
def test_ingesters_that_are_killed_frozen_added_and_removed_lose_and_double_nothing():
    done = subprocess.run(
        [
            sys.executable, "-m", "cli.main", "bench", "ingesters", "--kills", str(FAULTS), "--seed", "3",
            "--ingesters", "3", "--lease-s", "2", "--rate", "400", "--json",
        ],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == FAULTS
    assert (found["lost"], found["doubled"], found["out_of_order"]) == (0, 0, 0)
    assert found["fenced"] == found["woke_without_shards"] == found["freeze"] >= 1
    assert found["kill"] + found["kill_for_long"] >= 2
    assert found["add"] >= 1
    assert found["telemetry"] > 400 * FAULTS
    assert found["events"] > 0
