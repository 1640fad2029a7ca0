"""The wave after a broker's death, as a pure simulation of the schedule over 1,000 seeds; `fleet bench reconnect`
measures the same with real agents, TLS and a real broker."""

import random

import pytest

from edge.reconnect import pause_s
from edge.timing import Timing
from tests.edge_support import Rig, doorbell_kind, eventually

DEVICES = 390
TURN_S = Timing().reconnect_jitter_s
CONNECTS_PER_SECOND_MAX = 50
WELCOME_S = 1.5
"""Allowed from a connection to its welcome (TLS, hello, answer); the bench measures a fraction of it."""
SEEDS = {0.5: 250, 2.0: 250, 5.0: 200, 20.0: 150, 60.0: 100, 600.0: 50}
"""Outage → seeds; together 1,000 waves."""


@pytest.fixture
def kind():
    with doorbell_kind() as found:
        yield found


def wave(seed, outage_s, turn_s=TURN_S, *, keep=True):
    """Seconds from the broker's return to each device's connection; everybody lost it at second 0."""
    randomness = random.Random(seed)
    connected = []
    for _ in range(DEVICES):
        at_s = pause_s(turn_s, randomness, failed=False)
        while at_s < outage_s:
            at_s += pause_s(turn_s, randomness, failed=keep)
        connected.append(at_s - outage_s)
    return sorted(connected)


def most_per_second(connected):
    """Connects in the fullest window of one second, wherever it begins."""
    first, most = 0, 0
    for index, at_s in enumerate(connected):
        while at_s - connected[first] >= 1.0:
            first += 1
        most = max(most, index - first + 1)
    return most


@pytest.mark.parametrize("outage_s", sorted(SEEDS))
def test_390_devices_come_back_below_50_connects_a_second_and_within_20_seconds(outage_s):
    waves = [wave(f"{outage_s}:{seed}", outage_s) for seed in range(SEEDS[outage_s])]
    over = [seed for seed, one in enumerate(waves) if most_per_second(one) > CONNECTS_PER_SECOND_MAX]
    assert over == [], f"seeds {over} of outage {outage_s} s"
    assert max(one[-1 - DEVICES // 100] for one in waves) + WELCOME_S <= 20.0
    assert max(one[-1] for one in waves) <= TURN_S * 1.03


def test_drawing_anew_after_every_failure_would_not_do():
    """With full jitter each time, nearly every wave after a minute without a broker is too high."""
    waves = [wave(seed, 60.0, turn_s=15.0, keep=False) for seed in range(100)]
    assert sum(most_per_second(one) > CONNECTS_PER_SECOND_MAX for one in waves) > 80


def test_ten_seconds_would_not_do():
    waves = [wave(seed, 2.0, turn_s=10.0) for seed in range(100)]
    assert sum(most_per_second(one) > CONNECTS_PER_SECOND_MAX for one in waves) > 10


def test_a_fleet_that_lost_a_connection_twice_does_not_come_back_in_step():
    """Made and lost again is a new loss: its moment is drawn anew, else all would come exactly one turn later."""
    randomness = random.Random(3)
    second = sorted(pause_s(18.0, randomness, failed=False) for _ in range(DEVICES))
    assert most_per_second(second) <= CONNECTS_PER_SECOND_MAX


@pytest.mark.usefixtures("kind")
async def test_an_agent_keeps_its_turn_while_no_connection_can_be_made_and_draws_anew_when_one_was_lost(
    tmp_path, monkeypatch
):
    drawn = []

    def noted(turn_s, randomness, *, failed):
        drawn.append(failed)
        return pause_s(turn_s, randomness, failed=failed)

    monkeypatch.setattr("edge.agent.pause_s", noted)
    rig = Rig(tmp_path)
    rig.link.up = False  # the broker is away when the box starts: first attempts of a fleet come close together
    async with rig.running(connected=False):
        await eventually(lambda: len(drawn) >= 4)
        assert drawn[:4] == [False, True, True, True]
        rig.link.up = True
        await eventually(lambda: rig.agent.connected)
        before = len(drawn)
        rig.link.cut(up=False)
        await eventually(lambda: len(drawn) >= before + 3)
        assert drawn[before : before + 3] == [False, True, True], "a new loss is drawn anew"
