"""The production agent on a serial port: it is small and quick, as `fleet bench edge` measures at length.

Real components: Mosquitto with client certificates, `fleet serve`, `fleet edge` on a pseudo-terminal.
"""

import pytest
from demo_process import needs_mosquitto

from cli.bench import edge
from cli.bench.rig import BenchError

RSS_MB_MAX = 60
START_S_MAX = 5.0
"""Wanted are 1.5 s; tests share their machine with others."""


@pytest.mark.e2e
@pytest.mark.mosquitto
async def test_one_agent_is_small_and_soon_welcomed(tmp_path):
    needs_mosquitto()
    scene, rig = edge.set_up_with_tls(
        tmp_path, edge.fleet_of({"nursing_room": 1, "bike": 0, "meal_machine": 0}, edge.SEED)
    )
    with rig:
        figures = await edge.one_agent(rig, scene, 0.0)
    assert 20 < figures["agent_rss_mb"] <= RSS_MB_MAX
    assert 0 < figures["start_to_connected_s"] < START_S_MAX


def test_a_fleet_that_says_too_little_is_no_measurement():
    expected = edge._messages_expected({"nursing_room": 190, "meal_machine": 20, "bike": 180}, 31.0)
    assert expected == 190 * 2 + 20
    edge._check_messages(expected, expected, 31.0)
    with pytest.raises(BenchError, match="399 telemetry messages"):
        edge._check_messages(expected - 1, expected, 31.0)
    with pytest.raises(BenchError, match="nothing was measured"):
        edge._check_messages(5, edge._messages_expected({"bike": 180}, 60.0), 60.0)
