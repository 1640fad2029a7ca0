"""The reconnect bench at small scale: real agents with TLS, a real broker that is killed, the real cloud."""

import pytest

from cli.bench.reconnect import check, measure, most_per_second, quantiles
from cli.bench.rig import BenchError
from edge.timing import Timing

GOOD = {
    "connects_per_second_max": 50,
    "welcomed_s": {"p50": 9.0, "p99": 20.0, "max": 21.0},
    "emergency": {"connected_s": 2.0, "acknowledged_s": 2.1},
}


def test_a_killed_broker_brings_everybody_back_and_the_room_with_an_emergency_at_once(tmp_path):
    found = measure(tmp_path, 0.5, {"bike": 2, "meal_machine": 1, "nursing_room": 3}, Timing(reconnect_jitter_s=3.0))
    assert found["devices"] == 6
    assert found["connects"] >= 6
    assert found["emergency"]["connected_s"] <= 2.0
    assert found["emergency"]["acknowledged_s"] < 10.0


def test_the_fullest_second_is_found_wherever_it_begins():
    assert most_per_second([]) == 0
    assert most_per_second([0.9, 1.0, 1.1, 1.85, 2.0]) == 4
    assert most_per_second([0.0, 1.0, 2.0]) == 1


def test_quantiles_of_few_and_many():
    assert quantiles([1.0]) == {"p50": 1.0, "p99": 1.0, "max": 1.0}
    assert quantiles([float(number) for number in range(1, 201)])["p99"] == 198.0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"connects_per_second_max": 51}, "connects in one second"),
        ({"welcomed_s": {"p99": 20.1}}, "99 %"),
        ({"emergency": {"connected_s": 2.1}}, "emergency"),
    ],
)
def test_a_missed_promise_fails_the_bench(change, what):
    check(GOOD)
    with pytest.raises(BenchError, match=what):
        check({**GOOD, **change})
