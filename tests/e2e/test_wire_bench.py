"""`fleet bench wire` and `fleet bench fuzz` in short: they run the real things, and their sums add up."""

import pytest
from demo_process import needs_mosquitto

from cli.bench import fuzz, wire
from cli.bench.fuzz_payloads import PAYLOAD_BYTES_MAX, Fuzzer, real_messages
from cli.bench.wire import Day, account
from devices import kinds

PARTS = {
    "connection": 7_000.0, "time": 1_100.0, "keep_alive": 204.0, "parked_message": 900.0, "riding_message": 1_200.0,
    "ride_begin_and_end": 5_000.0,
}  # fmt: skip


def test_a_month_is_the_sum_of_its_parts():
    day = Day(rides=5.0, ride_s=400.0, readings_while_riding=66.0, parked_messages=94.0)
    assert day.keep_alives(300.0) == 94 * 2, "the third would come with the next message"
    assert day.keep_alives(60.0) > 94 * 10
    result = account(PARTS, day)
    assert result["bytes_per_day_total"] == pytest.approx(sum(result["bytes_per_day"].values()), abs=6)
    assert result["mb_per_month"] == pytest.approx(result["bytes_per_day_total"] * 30 / 1e6, abs=0.01)
    dear = account({**PARTS, "parked_message": 90_000.0}, day)
    assert dear["within_goal"] is False


def test_the_average_day_comes_from_the_demand_of_a_week():
    day = wire.average_day()
    assert 3 < day.rides < 10
    assert 180 < day.ride_s < 1_200
    assert 80 < day.parked_messages <= 96


@pytest.mark.e2e
@pytest.mark.mosquitto
def test_the_parts_are_measured_on_a_real_agent_with_tls(tmp_path):
    needs_mosquitto()
    found = wire.measure(tmp_path, 1)
    assert 100 < found["keep_alive_bytes"] < 300
    assert 3_000 < found["connection_bytes"] < 12_000
    assert 400 < found["parked_message_bytes"] < 1_500
    assert found["parked_message_bytes"] <= found["riding_message_bytes"] < 2_500
    assert 2_000 < found["ride_begin_and_end_bytes"] < 12_000
    assert 0 < found["mb_per_month"] < 20


@pytest.mark.e2e
@pytest.mark.mosquitto
def test_nonsense_stops_nobody_else(tmp_path):
    needs_mosquitto()
    found = fuzz.measure(tmp_path, 4_000, 1)
    assert found["messages"] == 4_000
    assert found["quarantined"] > 1_000
    assert found["valid_acknowledged"] == 9, "three lanes, before and after each of two batches"
    assert found["crashes"] == 0


def test_the_same_seed_is_the_same_nonsense_and_it_is_manifold():
    devices = {name: f"fuzz-{number:03d}" for number, name in enumerate(sorted(kinds()), 1)}
    samples = real_messages(devices, 1)
    assert len(samples) > 500
    assert samples == real_messages(devices, 1)
    first, second = (Fuzzer(samples, sorted(devices.values()), 1) for _ in range(2))
    made = [first.message("fuzz-001") for _ in range(3_000)]
    assert made == [second.message("fuzz-001") for _ in range(3_000)]
    assert all(len(payload) <= PAYLOAD_BYTES_MAX for _, payload in made)
    assert all("fuzz-001/up/" in topic for topic, _ in made), "what the broker's rules let this device say"
    assert len({payload for _, payload in made}) > 2_000
    assert any(b"[" * 500 in payload for _, payload in made)
    assert any(b"\xff" in payload for _, payload in made)
